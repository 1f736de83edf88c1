"""Reading and writing: DICOM and NIfTI files and case folders to arrays, geometry and provenance."""
