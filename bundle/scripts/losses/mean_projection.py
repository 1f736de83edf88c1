"""Geometry projection loss (DiffuX2CT, eq (9))."""

from __future__ import annotations

from torch import Tensor, nn


class MeanProjectionLoss(nn.Module):
    """L1 distance between mean projections along the three volume axes; parallel rays, as in the paper."""

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Return the scalar loss of volumes ``[B, 1, U, V, W]``."""
        difference = prediction - target
        along_u, along_v, along_w = (difference.mean(dim=axis).abs().mean() for axis in (2, 3, 4))
        return (along_u + along_v + along_w) / 3
