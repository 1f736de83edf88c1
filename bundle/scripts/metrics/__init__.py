"""Image metrics with an explicit data range, as pure functions."""
