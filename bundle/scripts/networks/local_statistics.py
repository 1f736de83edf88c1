"""Statistics of a volume around every voxel, as evidence for a pointwise network."""

from __future__ import annotations

import torch
from torch import Tensor

DEVIATION_MM = (5.0, 7.5, 15.0, 25.0)
"""Standard deviations of the Gaussian windows in which the volume's deviation is measured."""
MEAN_MM = 15.0
"""That of the window of the local mean."""
COUNT = 6 + len(DEVIATION_MM)
"""Number of statistics."""
FLOOR = 0.008
"""Deviation, in network range, below which the logarithm hardly falls: 10 HU."""


def local_statistics(volume: Tensor, spacing_mm: float) -> Tensor:
    """Return :data:`COUNT` statistics ``[B, COUNT, U, V, W]`` of ``volume [B, 1, U, V, W]`` in network range.

    These are the value, its local mean, logarithms of the gradient's size per voxel and of the deviation in every
    window, and the position from -1 to 1 along the three axes.
    """
    square, mean = volume.square(), gaussian_means(volume, MEAN_MM / spacing_mm)
    steps = torch.stack(torch.gradient(volume, dim=[2, 3, 4])).square().sum(dim=0)
    deviations = [
        (gaussian_means(square, sigma) - gaussian_means(volume, sigma).square()).clamp(min=0)
        for sigma in (mm / spacing_mm for mm in DEVIATION_MM)
    ]
    logarithms = [torch.log(variance.sqrt() / FLOOR + 1) for variance in (steps, *deviations)]
    axes = [torch.linspace(-1, 1, n, device=volume.device) for n in volume.shape[2:]]
    position = torch.stack(torch.meshgrid(*axes, indexing="ij")).expand(len(volume), -1, -1, -1, -1)
    return torch.cat([volume, mean, *logarithms, position.to(volume.dtype)], dim=1)


def gaussian_means(x: Tensor, sigma: float) -> Tensor:
    """Return means of ``x [..., U, V, W]`` in Gaussian windows of ``sigma`` voxels, cut off at the volume's edge."""
    along_u, along_v, along_w = (_window_matrix(n, sigma).to(x) for n in x.shape[-3:])
    x = torch.matmul(along_v, torch.matmul(x, along_w.T))
    return torch.matmul(along_u, x.flatten(-2)).unflatten(-1, x.shape[-2:])


def _window_matrix(n: int, sigma: float) -> Tensor:
    """Return the 1D window at each of n cells, ``[n, n]``; rows sum to one."""
    cells = torch.arange(n)
    weights = torch.exp(-0.5 * ((cells[:, None] - cells) / sigma).square())
    return weights / weights.sum(dim=1, keepdim=True)
