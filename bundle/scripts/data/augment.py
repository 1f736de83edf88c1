"""Random views of a CT on the network's grid: pose, size and shape of the patient, drawn in millimetres.

``resample_volume`` is the pure kernel, :class:`Deformation` a drawn set of parameters, :class:`RandomDeformation` the
distribution they come from.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from scripts.geometry import BiplanarGeometry, centred_coordinates_mm
from scripts.intensity import AIR_HU


def resample_volume(hu: Tensor, spacing_mm: float, points_mm: Tensor) -> Tensor:
    """Trilinear samples of a volume centred on the isocentre, air outside.

    Args:
        hu: HU ``[U, V, W]``, float32.
        spacing_mm: its isotropic spacing.
        points_mm: where to sample, ``[u, v, w, 3]`` in (u, v, w) order.

    Returns:
        HU ``[u, v, w]``.
    """
    half_size = torch.tensor([n * spacing_mm / 2 for n in hu.shape], dtype=points_mm.dtype)
    grid = (points_mm / half_size).flip(-1)  # grid_sample wants the fastest axis first
    above_air = (hu - AIR_HU)[None, None]
    return F.grid_sample(above_air, grid[None], align_corners=False)[0, 0] + AIR_HU


def grid_points_mm(geometry: BiplanarGeometry) -> Tensor:
    """Voxel centres ``[U, V, W, 3]`` of the geometry's volume, float32."""
    axes = (centred_coordinates_mm(n, geometry.volume_spacing_mm).float() for n in geometry.volume_shape)
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)


@dataclass(frozen=True)
class Deformation:
    """A patient moved and reshaped: points of the network's grid to points of the CT.

    Attributes:
        matrix: linear part ``[3, 3]``.
        shift_mm: translation ``[3]``.
        displacement_mm: smooth displacement on a coarse lattice over the grid, ``[3, a, b, c]``.
    """

    matrix: Tensor
    shift_mm: Tensor
    displacement_mm: Tensor

    def __call__(self, points_mm: Tensor) -> Tensor:
        """Map points ``[U, V, W, 3]`` of a regular grid; the displacement is spread over that grid."""
        smooth = F.interpolate(self.displacement_mm[None], points_mm.shape[:3], mode="trilinear", align_corners=True)[0]
        return points_mm @ self.matrix.T + self.shift_mm + smooth.permute(1, 2, 3, 0)


@dataclass(frozen=True)
class RandomDeformation:
    """Distribution of plausible patient poses and shapes.

    Attributes:
        rotation_deg: standard deviation of the rotation about each axis.
        scale: standard deviation of the logarithm of the overall size.
        stretch: standard deviation of the logarithm of each axis' own size.
        shift_mm: largest translation along (u, v, w), uniform.
        displacement_mm: standard deviation of the elastic displacement.
        lattice: nodes of the elastic lattice along each axis.
        mirror: probability of exchanging left and right (a situs inversus, consistent with its radiographs).
    """

    rotation_deg: float = 5.0
    scale: float = 0.08
    stretch: float = 0.05
    shift_mm: tuple[float, float, float] = (15.0, 15.0, 50.0)
    displacement_mm: float = 6.0
    lattice: int = 5
    mirror: float = 0.0

    def draw(self, generator: Generator) -> Deformation:
        """One deformation; the same generator state draws the same one."""
        angles = torch.randn(3, generator=generator) * math.radians(self.rotation_deg)
        log_size = torch.randn(1, generator=generator) * self.scale + torch.randn(3, generator=generator) * self.stretch
        size = torch.exp(log_size)
        if torch.rand(1, generator=generator).item() < self.mirror:
            size[0] = -size[0]
        shift = (2 * torch.rand(3, generator=generator) - 1) * torch.tensor(self.shift_mm)
        nodes = torch.randn(3, *[self.lattice] * 3, generator=generator) * self.displacement_mm
        return Deformation(rotation_matrix(angles) * size, shift, nodes)


def rotation_matrix(angles: Tensor) -> Tensor:
    """Rotation ``[3, 3]`` by ``angles [3]`` radians about u, v and w: the exponential of their cross product."""
    a, b, c = angles.tolist()
    return torch.linalg.matrix_exp(torch.tensor([[0.0, -c, b], [c, 0.0, -a], [-b, a, 0.0]]))
