"""From CTs to cases: scans found, cut to the standard volume, projected and split by patient."""
