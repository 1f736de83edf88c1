"""Pose errors of views, simulated by moving the volume instead of source and detector.

:class:`~scripts.physics.raymarch.RayMarchProjector` takes exact poses. Here a pose costs one trilinear sample per
voxel, whereas the ray march takes one at every step of every ray: 8 times as many for 64 voxels and 128 pixels per
side. The price is a little blur from the extra interpolation.
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from scripts.geometry import VIEWS, BiplanarGeometry, centred_coordinates_mm


def seen_from(mu: Tensor, rotation: Tensor, shift_mm: Tensor, spacing_mm: float) -> Tensor:
    """Return volumes as seen by an apparatus that is turned about the isocentre and then shifted: mu(R x + t).

    Values outside the volume are 0.

    Args:
        mu: attenuation ``[B, 1, U, V, W]``.
        rotation: R ``[B, 3, 3]``.
        shift_mm: t ``[B, 3]`` along (u, v, w).
        spacing_mm: isotropic voxel spacing.

    Returns:
        Volumes on the same grid, in the apparatus' axes.
    """
    axes = [centred_coordinates_mm(n, spacing_mm).to(mu) for n in mu.shape[2:]]
    points_mm = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
    moved_mm = points_mm.flatten(0, 2) @ rotation.mT + shift_mm[:, None]
    half_size_mm = mu.new_tensor([n * spacing_mm / 2 for n in mu.shape[2:]])
    grid = (moved_mm / half_size_mm).flip(-1).unflatten(1, mu.shape[2:])  # grid_sample wants the fastest axis first
    return F.grid_sample(mu, grid, align_corners=False)


class Projector(Protocol):
    """Projector of a volume to the line integrals of an exam's views.

    Attributes:
        geometry: the exam.
    """

    geometry: BiplanarGeometry

    def __call__(self, mu: Tensor) -> Tensor:
        """Map ``mu [B, 1, U, V, W]`` in 1/mm to ``[B, 2, N, N]``."""
        ...


class Poses(Protocol):
    """A distribution of pose errors."""

    def draw(self, exams: int, generator: Generator) -> tuple[Tensor, Tensor]:
        """Draw rotations ``[exams, 2, 3, 3]`` and shifts in mm ``[exams, 2, 3]``."""
        ...


class MisalignedProjector(nn.Module):
    """Projector that gives each view its own pose error, drawn anew for every exam.

    Args:
        projector: projector of the views without errors.
        poses: distribution of pose errors, drawn with the CPU's global generator, which the trainer seeds at every
            iteration.
    """

    def __init__(self, projector: Projector, poses: Poses) -> None:
        super().__init__()
        self.projector, self.poses = projector, poses

    def forward(self, mu: Tensor) -> Tensor:
        """Return line integrals ``[B, 2, N, N]`` of ``mu [B, 1, U, V, W]`` in 1/mm."""
        spacing_mm = self.projector.geometry.volume_spacing_mm
        rotation, shift_mm = (drawn.to(mu) for drawn in self.poses.draw(len(mu), torch.default_generator))
        views = (
            self.projector(seen_from(mu, rotation[:, view], shift_mm[:, view], spacing_mm))[:, view]
            for view in range(len(VIEWS))
        )
        return torch.stack(list(views), dim=1)
