"""DICOM in and out: CT series and radiographs, and the identity that ties a result to its exam."""
