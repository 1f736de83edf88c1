"""Files: case folders, NIfTI, pictures, archives, text; written whole or not at all, read with checks."""
