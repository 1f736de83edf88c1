"""Pictures and reports from NumPy arrays, without importing torch."""
