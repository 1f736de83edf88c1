"""From two films to a network's input: found, told apart, read, calibrated and brought into its frame."""
