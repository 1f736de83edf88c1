"""Measurements over many cases: accuracy, calibration, sensitivity, segmentation, and all methods compared."""
