"""Likelihood of the truth under a predicted distribution."""

from __future__ import annotations

from torch import Tensor, nn


class LaplaceLoss(nn.Module):
    """Mean negative log likelihood of a Laplace distribution, without its constant: |x0 - x| / b + log b.

    For a fixed error, b = |x0 - x| minimises it.
    """

    def forward(self, predicted: Tensor, x0: Tensor) -> Tensor:
        """Return the scalar loss of volumes x and scales b, ``predicted [B, 2, U, V, W]``, given x0 ``[B, 1, ...]``."""
        x, b = predicted.chunk(2, dim=1)
        return ((x0 - x).abs() / b + b.log()).mean()
