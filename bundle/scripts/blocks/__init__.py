"""Building blocks of the networks: residual convolutions, window attention, time embedding."""
