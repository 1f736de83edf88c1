"""Results of reconstructions: files, the record of their provenance, and the summary of a batch."""
