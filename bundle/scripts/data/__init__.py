"""Data: the phantom, the datasets and their transforms."""
