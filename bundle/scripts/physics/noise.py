"""Detector noise of a radiograph: photon counting and read-out electronics."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def poisson_noise(
    line_integral: Tensor, photons: float, generator: torch.Generator, electronic_sigma: float = 0.0
) -> Tensor:
    """Return line integrals as measured with a finite number of photons.

    N ~ Poisson(N0 exp(-p)) photons arrive, the electronics add Gaussian noise, and -log(N / N0) is returned. To first
    order, the variance of the result is (N0 exp(-p) + sigma^2) / (N0 exp(-p))^2, or exp(p) / N0 without electronic
    noise, and the result is biased upwards by half of that. At least one photon is counted, so that the logarithm
    exists: a starved pixel reads log(N0).

    Args:
        line_integral: dimensionless line integrals p, any shape.
        photons: N0, photons per pixel in the open beam.
        generator: the source of randomness, on the device of ``line_integral``.
        electronic_sigma: standard deviation of the electronic noise, in photons.

    Returns:
        Noisy line integrals in the shape and dtype of ``line_integral``.

    Raises:
        ValueError: ``photons`` is not positive and finite, or ``electronic_sigma`` is negative or not finite.
    """
    if not (photons > 0 and math.isfinite(photons)):
        raise ValueError(f"noise: photons must be positive and finite, got {photons!r}; 1e5 per pixel is usual")
    if not (electronic_sigma >= 0 and math.isfinite(electronic_sigma)):
        raise ValueError(
            f"noise: electronic_sigma must be finite and not negative, got {electronic_sigma!r}; 0 leaves it out"
        )
    counts = torch.poisson(photons * torch.exp(-line_integral), generator=generator)
    if electronic_sigma > 0:
        electronic = torch.randn(counts.shape, generator=generator, dtype=counts.dtype, device=counts.device)
        counts = counts + electronic_sigma * electronic
    return -torch.log(counts.clamp(min=1.0) / photons)
