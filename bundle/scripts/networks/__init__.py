"""Networks: DiffuX2CT's conditioner, denoiser and their union, one file per baseline."""
