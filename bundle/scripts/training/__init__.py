"""Training: batches, inferers and handlers, independent of concrete networks, losses and data sets."""
