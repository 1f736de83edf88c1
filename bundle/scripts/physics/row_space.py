"""How much of a volume its radiographs can see: the share of it in the row space of the projector A.

Radiographs of d and of its projection P d = A^T (A A^T)^+ A d onto that space are the same; they say nothing of the
rest. Both are spread over many voxels, so their energies are compared in a neighbourhood, by a Gaussian G: the support
is G(|P d|^2) / G(|d|^2).
"""

from __future__ import annotations

import torch
from monai.networks.layers import GaussianFilter
from torch import Tensor

from scripts.physics.consistency import consistent_change
from scripts.physics.separable import SeparableProjector
from scripts.physics.tensor_shapes import views_present


def visible_part(d: Tensor, image: Tensor, projector: SeparableProjector, steps: int) -> Tensor:
    """Return P d ``[B, 1, U, V, W]``, the smallest volume with the same line integrals as ``d``.

    Args:
        d: volumes ``[B, 1, U, V, W]``.
        image: radiographs ``[B, 2, N, N]`` in any unit; a view of zeros is missing.
        projector: A; it moves to the device of ``d``.
        steps: iterations of conjugate gradients.

    Raises:
        ValueError: a shape does not match the projector's geometry.
    """
    films = views_present(image)[..., None, None] * projector.to(d.device)(d)
    return consistent_change(torch.zeros_like(d), films, torch.ones_like(d), projector, sigma=0.0, steps=steps)


def support(d: Tensor, image: Tensor, projector: SeparableProjector, steps: int, width: float) -> Tensor:
    """Return the share ``[B, 1, U, V, W]`` of ``d`` around each voxel that radiographs can see, between 0 and 1.

    It does not depend on the scale of ``d``, and is 0 where ``d`` is 0 all around.

    Args:
        d, image, projector, steps: see :func:`visible_part`.
        width: standard deviation of G in voxels.

    Raises:
        ValueError: a shape does not match the projector's geometry.
    """
    around = GaussianFilter(3, width).to(d)
    seen, all_of_it = (around(part.square()) for part in (visible_part(d, image, projector, steps), d))
    return torch.where(all_of_it > 0, seen / all_of_it, 0.0).clamp(max=1.0)
