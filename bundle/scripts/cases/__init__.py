"""Preparation of CTs as cases: finding scans, cutting the standard volume, projection, and splits by patient."""
