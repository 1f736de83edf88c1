"""Consistency of a volume with its radiographs: the smallest change that meets them within their noise.

With the covariance C of the volume's error and the noise sigma of the films, the change d minimises
d^T C^-1 d + |A (mu + d) - p|^2 / sigma^2. Its solution is d = C A^T y with (A C A^T + sigma^2) y = p - A mu, which
conjugate gradients find on the detectors: C is never inverted, and a voxel without variance stays as it is.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from scripts.physics.separable import SeparableProjector
from scripts.physics.tensor_shapes import views_present

FILM_NOISE = 0.02
"""Usual standard deviation of the films' noise, in line integrals; that of the simulated radiographs in training."""


class Independent(nn.Module):
    """Covariance C of errors that are independent in all voxels: their variance, in 1/mm^2."""

    def forward(self, values: Tensor, variance: Tensor) -> Tensor:
        """Return C ``values``; both are ``[B, 1, U, V, W]``."""
        return variance * values


class Consistency(nn.Module):
    """Change of volumes that makes them consistent with their radiographs. TorchScript-able.

    Args:
        projector: A; volumes, radiographs and variances share its dtype and device.
        covariance: C, called as ``covariance(values, weights)`` for volumes ``values``.
    """

    def __init__(self, projector: SeparableProjector, covariance: nn.Module) -> None:
        super().__init__()
        self.projector = projector
        self.covariance: Any = covariance

    def forward(self, residual: Tensor, weights: Tensor, present: Tensor, sigma: float, steps: int) -> Tensor:
        """Return the change d ``[B, 1, U, V, W]`` in 1/mm.

        The units may be any in which A maps volumes to radiographs.

        Args:
            residual: p - A mu ``[B, 2, N, N]``, dimensionless; 0 for a missing view.
            weights: what the covariance needs of every voxel ``[B, C, U, V, W]``, not negative.
            present: 1 for a view that is there and 0 for a missing one, ``[B, 2, 1, 1]``.
            sigma: standard deviation of the films' noise, in line integrals.
            steps: iterations of conjugate gradients from d = 0.

        Raises:
            ValueError: a shape does not match the projector's geometry.
        """
        change, direction = torch.zeros_like(weights[:, :1]), residual
        square = _dot(residual, residual)
        # What is solved to rounding stays, since further steps would follow the rounding.
        eps = 2.0**-52 if residual.dtype == torch.float64 else 2.0**-23
        solved = eps**2 * square
        for _ in range(steps):
            spread = self.covariance(self.projector.adjoint(direction), weights)  # C A^T y is the sum of these
            image = present * self.projector(spread) + sigma**2 * direction
            length = torch.where(square > solved, _ratio(square, _dot(direction, image)), torch.zeros_like(square))
            change, residual = change + length.unsqueeze(4) * spread, residual - length * image
            before, square = square, _dot(residual, residual)
            direction = residual + _ratio(square, before) * direction
        return change


def consistent_change(
    mu: Tensor, line_integrals: Tensor, variance: Tensor, projector: SeparableProjector, sigma: float, steps: int
) -> Tensor:
    """Return :class:`Consistency`'s change of volumes ``mu`` for radiographs ``line_integrals``.

    Args:
        mu: volumes ``[B, 1, U, V, W]`` in 1/mm.
        line_integrals: p ``[B, 2, N, N]``, dimensionless; a view of zeros is missing and asks for nothing.
        variance: of every voxel's error ``[B, 1, U, V, W]`` in 1/mm^2, not negative; errors are independent.
        sigma, steps: see :meth:`Consistency.forward`.
        projector: A; it moves to the device of ``mu``.

    Raises:
        ValueError: a shape does not match the projector's geometry.
    """
    projector = projector.to(mu.device)
    present = views_present(line_integrals).unsqueeze(2).unsqueeze(3)
    consistency = Consistency(projector, Independent())
    return consistency(present * (line_integrals - projector(mu)), variance, present, sigma, steps)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(dim=[1, 2, 3], keepdim=True)


def _ratio(a: Tensor, b: Tensor) -> Tensor:
    """Divide, but return 0 for an item that is solved exactly, where both are 0."""
    return torch.where(b > 0, a / b, torch.zeros_like(a))
