"""Networks: DiffuX2CT's conditioner, its denoiser and their combination, and one file per baseline."""
