"""Random views of CTs on the network's grid: pose, size and shape of the patient, drawn in millimetres.

:class:`WholeBody` is a CT to sample, :class:`Deformation` a drawn set of parameters, :class:`RandomDeformation` their
distribution, and ``resample`` the kernel. Parameters are small and stay on the CPU, so that they are the same for every
device; only their lattices of a few hundred nodes are copied to the device that holds the CTs.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from scripts.geometry import BiplanarGeometry, centred_coordinates_mm
from scripts.intensity import AIR_HU


@dataclass(frozen=True)
class WholeBody:
    """A CT centred on the isocentre, on any device, with air around it.

    Attributes:
        above_air: HU + 1000, float32 ``[U, V, W]``, so that air is the kernel's padding value, zero.
        spacing_mm: isotropic voxel spacing.
    """

    above_air: Tensor
    spacing_mm: float

    @classmethod
    def of(cls, hu: Tensor, spacing_mm: float, device: torch.device | str = "cpu") -> WholeBody:
        """Build a body from HU ``[U, V, W]`` of any type."""
        return cls(hu.to(device, torch.float32) - AIR_HU, spacing_mm)

    @property
    def half_size_mm(self) -> Tensor:
        """Distances from the isocentre to the faces along (u, v, w), ``[3]`` on the CPU."""
        return torch.tensor(self.above_air.shape) * (self.spacing_mm / 2)


def resample(bodies: Sequence[WholeBody], nodes_mm: Tensor, shape: Sequence[int]) -> Tensor:
    """Sample bodies trilinearly, each on its own deformed grid, with air outside.

    Args:
        bodies: B bodies on the same device.
        nodes_mm: positions in each body of a lattice over the grid, ``[B, 3, a, b, c]`` on the CPU; the lattice's
            corners are the centres of the grid's corner voxels, and trilinear interpolation places the other voxels.
        shape: shape of the grid.

    Returns:
        HU ``[B, U, V, W]`` on the bodies' device.
    """
    device = bodies[0].above_air.device
    half_size_mm = torch.stack([body.half_size_mm for body in bodies])[:, :, None, None, None]
    # grid_sample wants the fastest axis first
    positions = (nodes_mm / half_size_mm).flip(1).to(device, non_blocking=True)
    grid = interpolate_lattice(positions, shape).permute(0, 2, 3, 4, 1)
    sampled = [
        F.grid_sample(body.above_air[None, None], where[None], align_corners=False)[0]
        for body, where in zip(bodies, grid, strict=True)
    ]
    return torch.cat(sampled).add_(AIR_HU)


def interpolate_lattice(nodes: Tensor, shape: Sequence[int]) -> Tensor:
    """Interpolate a lattice ``[B, C, a, b, c]`` trilinearly to ``[B, C, U, V, W]``, with aligned corners.

    By products of small matrices, axis by axis, this takes a tenth of the time of ``F.interpolate`` on a CPU.
    """
    batch, channels, *counts = nodes.shape
    along_u, along_v, along_w = (
        _interpolation_matrix(count, n, nodes.device) for count, n in zip(counts, shape, strict=True)
    )
    # Batched products do not depend on the batch, whereas the last bits of one large product would.
    rows = nodes.reshape(-1, counts[1], counts[2])
    rows = torch.bmm(rows, along_w.T.expand(len(rows), -1, -1))
    planes = torch.bmm(along_v.expand(len(rows), -1, -1), rows).reshape(batch * channels, counts[0], -1)
    return torch.bmm(along_u.expand(len(planes), -1, -1), planes).reshape(batch, channels, *shape)


@functools.lru_cache
def _interpolation_matrix(nodes: int, points: int, device: torch.device) -> Tensor:
    """Return the linear interpolation ``[points, nodes]``, float32, from ``nodes`` to ``points`` with aligned ends."""
    unit = torch.eye(nodes)[None]
    return F.interpolate(unit, points, mode="linear", align_corners=True)[0].T.contiguous().to(device)


@dataclass(frozen=True)
class Deformation:
    """Deformation of a patient: a map from points of the network's grid to points of the CT.

    Attributes:
        matrix: linear part ``[3, 3]``.
        shift_mm: translation ``[3]``.
        displacement_mm: smooth displacement on a coarse lattice over the grid, ``[3, a, b, c]``.
    """

    matrix: Tensor
    shift_mm: Tensor
    displacement_mm: Tensor

    def nodes_mm(self, geometry: BiplanarGeometry) -> Tensor:
        """Return the positions ``[3, a, b, c]`` of the lattice over the geometry's volume.

        Since an affine map is trilinear, interpolating these positions gives the whole deformation exactly.
        """
        lattice = _lattice_mm(geometry.volume_shape, geometry.volume_spacing_mm, self.displacement_mm.shape[1:])
        moved = self.matrix @ lattice.flatten(1) + self.shift_mm[:, None]
        return moved.view_as(lattice) + self.displacement_mm


@functools.lru_cache
def _lattice_mm(shape: tuple[int, ...], spacing_mm: float, nodes: tuple[int, ...]) -> Tensor:
    """Return nodes ``[3, a, b, c]`` spread evenly from corner to corner of a grid."""
    ends = (centred_coordinates_mm(n, spacing_mm)[[0, -1]].float() for n in shape)
    axes = (torch.linspace(low, high, count) for (low, high), count in zip(ends, nodes, strict=True))
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))


@dataclass(frozen=True)
class RandomDeformation:
    """Distribution of plausible patient poses and shapes.

    Attributes:
        rotation_deg: standard deviation of the rotation about each axis.
        scale: standard deviation of the logarithm of the overall size.
        stretch: standard deviation of the logarithm of each axis's own size.
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
        """Draw a deformation; the same generator state gives the same one."""
        angles = torch.randn(3, generator=generator) * math.radians(self.rotation_deg)
        log_size = torch.randn(1, generator=generator) * self.scale + torch.randn(3, generator=generator) * self.stretch
        size = torch.exp(log_size)
        if torch.rand(1, generator=generator).item() < self.mirror:
            size[0] = -size[0]
        shift = (2 * torch.rand(3, generator=generator) - 1) * torch.tensor(self.shift_mm)
        nodes = torch.randn(3, *[self.lattice] * 3, generator=generator) * self.displacement_mm
        return Deformation(rotation_matrix(angles) * size, shift, nodes)


def rotation_matrix(angles: Tensor) -> Tensor:
    """Return the rotation ``[3, 3]`` by ``angles [3]`` radians about u, v and w: the exponential of a cross product."""
    a, b, c = angles.tolist()
    half = math.sqrt(a * a + b * b + c * c) / 2
    sinc = math.sin(half) / half if half else 1.0
    cross = torch.tensor([[0.0, -c, b], [c, 0.0, -a], [-b, a, 0.0]])
    # Rodrigues: 1 + sin|x|/|x| X + (1 - cos|x|)/|x|^2 X^2
    return torch.eye(3) + sinc * math.cos(half) * cross + sinc**2 / 2 * (cross @ cross)
