"""Change of resolution by a whole factor: means over pixels or voxels, and interpolation between voxels."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def coarsened(values: Tensor, factor: int) -> Tensor:
    """Average images ``[B, C, f M, f N]`` or volumes ``[B, C, f U, f V, f W]`` over cells of ``factor`` per side.

    Raises:
        ValueError: a side does not divide by the factor.
    """
    if factor < 1 or any(n % factor for n in values.shape[2:]):
        raise ValueError(
            f"resolution: {tuple(values.shape[2:])} does not divide by {factor}; choose a grid that is finer than the "
            "network's by a whole factor"
        )
    return (F.avg_pool2d if values.ndim == 4 else F.avg_pool3d)(values, factor)


def interpolated(volume: Tensor, factor: int) -> Tensor:
    """Interpolate ``[B, C, U, V, W]`` linearly to ``[B, C, f U, f V, f W]``."""
    return F.interpolate(volume, scale_factor=float(factor), mode="trilinear", align_corners=False)
