"""Reading and writing DICOM: CT series, radiographs, and the identity that links a result to its exam."""
