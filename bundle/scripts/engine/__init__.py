"""Engine parts: batches, inferers and handlers. They know no concrete network, loss or data set."""
