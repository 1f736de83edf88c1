"""Consistency of a volume with its radiographs: the smallest change that meets them within their noise.

With the variance V of the volume's error and the noise sigma of the films, the change d minimises
d^T V^-1 d + |A (mu + d) - p|^2 / sigma^2. Its solution is d = V A^T y with (A V A^T + sigma^2) y = p - A mu, which
conjugate gradients find on the detectors: nothing is divided by V, and a voxel without variance stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from scripts.physics.separable import SeparableProjector
from scripts.physics.tensor_shapes import views_present


def consistent_change(
    mu: Tensor, line_integrals: Tensor, variance: Tensor, projector: SeparableProjector, sigma: float, steps: int
) -> Tensor:
    """Return the change d ``[B, 1, U, V, W]`` in 1/mm that makes volumes consistent with their radiographs.

    Args:
        mu: volumes ``[B, 1, U, V, W]`` in 1/mm.
        line_integrals: p ``[B, 2, N, N]``, dimensionless; a view of zeros is missing and asks for nothing.
        variance: V of every voxel ``[B, 1, U, V, W]`` in 1/mm^2, not negative.
        projector: A; it moves to the device of ``mu``.
        sigma: standard deviation of the films' noise, in line integrals.
        steps: iterations of conjugate gradients from d = 0.

    Raises:
        ValueError: a shape does not match the projector's geometry.
    """
    projector = projector.to(mu.device)
    present = views_present(line_integrals)[..., None, None]

    def spread(y: Tensor) -> Tensor:
        return variance * projector.adjoint(y)

    def system(y: Tensor) -> Tensor:
        return present * projector(spread(y)) + sigma**2 * y

    return spread(_conjugate_gradients(system, present * (line_integrals - projector(mu)), steps))


def _conjugate_gradients(system: Callable[[Tensor], Tensor], right: Tensor, steps: int) -> Tensor:
    """Solve ``system(y) = right [B, ...]``, each item of the batch on its own, from y = 0.

    What is solved to rounding stays, since further steps would follow the rounding.
    """
    y, residual, direction = torch.zeros_like(right), right, right
    square = _dot(residual, residual)
    solved = torch.finfo(right.dtype).eps ** 2 * square
    for _ in range(steps):
        image = system(direction)
        length = torch.where(square > solved, _ratio(square, _dot(direction, image)), 0.0)
        y, residual = y + length * direction, residual - length * image
        before, square = square, _dot(residual, residual)
        direction = residual + _ratio(square, before) * direction
    return y


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).flatten(1).sum(dim=1).reshape(-1, *[1] * (a.ndim - 1))


def _ratio(a: Tensor, b: Tensor) -> Tensor:
    """Divide, but return 0 for an item that is solved exactly, where both are 0."""
    return torch.where(b > 0, a / b, 0.0)
