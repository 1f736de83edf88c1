"""Files: case folders, NIfTI, pictures, archives and text, written atomically and read with checks."""
