"""Training: batches, inferers, handlers. No concrete network, loss or data set is known here."""
