"""Embedding of the diffusion time."""

from __future__ import annotations

from monai.networks.nets.diffusion_model_unet import get_timestep_embedding
from torch import Tensor, nn


class TimeEmbedding(nn.Module):
    """Sinusoidal embedding of integer timesteps refined by a two-layer perceptron (Ho et al. 2020)."""

    def __init__(self, sinusoids: int, channels: int) -> None:
        super().__init__()
        self.sinusoids = sinusoids
        self.refine = nn.Sequential(nn.Linear(sinusoids, channels), nn.SiLU(), nn.Linear(channels, channels))

    def forward(self, timesteps: Tensor) -> Tensor:
        """Map timesteps ``[B]`` to ``[B, channels]``."""
        return self.refine(get_timestep_embedding(timesteps, self.sinusoids))
