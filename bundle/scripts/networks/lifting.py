"""Lifting of radiographs to the volume grid by replication or back-projection, and residuals of a volume.

Replication copies along parallel rays; back-projection follows the true ones. A missing view is an image channel of
zeros, which no real radiograph is.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from scripts.geometry import VIEWS, BiplanarGeometry, centred_coordinates_mm
from scripts.intensity import MU_WATER_PER_MM, RADIOGRAPH_SCALE, hu_to_network, mu_to_hu
from scripts.physics.separable import SeparableProjector, interpolation_matrix
from scripts.physics.tensor_shapes import require_image, views_present


class RayReplication(nn.Module):
    """Replication of each radiograph along its view's depth axis, as if the rays were parallel.

    Voxel (u, v, w) of channel 0 holds the frontal radiograph, bilinearly sampled at (u, w) mm times the magnification
    of the isocentre plane (SDD / SOD; 1 for a parallel beam), for every depth v. Channel 1 holds the lateral one at
    (v, w), for every u. Positions beyond the outermost pixel centres take the border pixel's value.

    Anatomy at the isocentre's depth is therefore placed correctly. Anatomy closer to the source or the detector is not,
    because the cone is ignored; X2CT-GAN ignores it too and copies pixel to voxel. The magnification is our addition;
    it makes the copy correct in one plane for every geometry and detector size.

    Args:
        geometry: the exam.
    """

    def __init__(self, geometry: BiplanarGeometry) -> None:
        super().__init__()
        self.image_shape = [2, geometry.detector_pixels, geometry.detector_pixels]
        self.along_u, self.along_v, self.along_w = (
            nn.Buffer(_at_isocentre(geometry, count), persistent=False) for count in geometry.volume_shape
        )

    def forward(self, image: Tensor) -> Tensor:
        """Map ``image [B, 2, N, N]`` to ``[B, 2, U, V, W]``.

        Raises:
            ValueError: the image's shape does not match the geometry.
        """
        require_image(image, self.image_shape)
        u, v, w = self.along_u.to(image.dtype), self.along_v.to(image.dtype), self.along_w.to(image.dtype)
        frontal = (u @ image[:, 0] @ w.t()).unsqueeze(2).expand(-1, -1, v.shape[0], -1)
        lateral = (v @ image[:, 1] @ w.t()).unsqueeze(1).expand(-1, u.shape[0], -1, -1)
        return torch.stack([frontal, lateral], dim=1)


def _at_isocentre(geometry: BiplanarGeometry, count: int) -> Tensor:
    """Return the pixel weights ``[count, N]`` that sample the shadows of ``count`` voxels in the isocentre plane."""
    last = geometry.detector_pixels - 1
    magnification = geometry.magnification(torch.zeros(1, dtype=torch.float64), source_sign=1.0)
    position_mm = magnification * centred_coordinates_mm(count, geometry.volume_spacing_mm)
    index = (position_mm / geometry.detector_spacing_mm + last / 2).clamp(0, last)
    return interpolation_matrix(index, geometry.detector_pixels).float()


class ReplicatedAttenuation(nn.Module):
    """Replication of each ray's mean attenuation, as by :class:`RayReplication`.

    Args:
        geometry: the exam; the length of every ray is taken as the depth of the volume.
    """

    def __init__(self, geometry: BiplanarGeometry) -> None:
        super().__init__()
        self.replicate = RayReplication(geometry)
        depth_mm = [geometry.volume_size_mm[geometry.view(name).depth_axis] for name in VIEWS]
        self.depth_mm = nn.Buffer(torch.tensor(depth_mm).reshape(1, 2, 1, 1, 1), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """Map ``image [B, 2, N, N]`` in network units to ``[B, 2, U, V, W]`` in network units per mm."""
        return self.replicate(image) / self.depth_mm


class BackProjectedAttenuation(nn.Module):
    """Back-projection of each ray's mean attenuation by the projector's adjoint: A_i^T p_i / A_i^T A_i 1.

    Radiographs of a homogeneous volume yield its attenuation wherever a ray passes. This is the first iterate of SIRT,
    view by view.

    Args:
        geometry: the exam.
    """

    def __init__(self, geometry: BiplanarGeometry) -> None:
        super().__init__()
        self.projector = SeparableProjector(geometry)
        ones = torch.ones(1, 1, *geometry.volume_shape)
        seen = self.projector.adjoint_by_view(self.projector(ones))
        self.seen = nn.Buffer(torch.where(seen > 0, seen, 1.0), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """Map ``image [B, 2, N, N]`` in network units to ``[B, 2, U, V, W]`` in network units per mm."""
        return self.projector.adjoint_by_view(image) / self.seen

    @torch.jit.export
    def project(self, volume: Tensor) -> Tensor:
        """Project ``[B, 1, U, V, W]`` per mm to ``[B, 2, N, N]``."""
        return self.projector(volume)


class AttenuationScale(nn.Module):
    """Affine map between attenuation, in a radiograph's network units per mm, and a volume's network range."""

    def __init__(self) -> None:
        super().__init__()
        low, water = hu_to_network(mu_to_hu(torch.tensor([0.0, MU_WATER_PER_MM]))).tolist()
        self.low, self.slope = low, (water - low) / (MU_WATER_PER_MM * RADIOGRAPH_SCALE)

    def forward(self, attenuation: Tensor) -> Tensor:
        """Map attenuation to network range and clip it."""
        return (self.low + self.slope * attenuation).clamp(-1.0, 1.0)

    @torch.jit.export
    def inverse(self, volume: Tensor) -> Tensor:
        """Map network range to attenuation, clipped to be non-negative."""
        return ((volume - self.low) / self.slope).clamp(min=0.0)


class Unexplained(nn.Module):
    """Back-projected residual of the radiographs given a volume: A_i^T (p_i - A_i x) / A_i^T A_i 1.

    The result shows, ray by ray, how much attenuation is missing (positive) or in excess (negative). It is the negative
    gradient of the data term, normalised to the volume's units.

    Args:
        geometry: the exam.
    """

    def __init__(self, geometry: BiplanarGeometry) -> None:
        super().__init__()
        self.spread, self.scale = BackProjectedAttenuation(geometry), AttenuationScale()

    def forward(self, image: Tensor, estimate: Tensor) -> Tensor:
        """Map ``image [B, 2, N, N]`` and ``estimate [B, 1, U, V, W]`` to ``[B, 2, U, V, W]`` in network range.

        A missing view gives 0.
        """
        return self.back_project(self.rest(image, estimate))

    @torch.jit.export
    def rest(self, image: Tensor, estimate: Tensor) -> Tensor:
        """Return p_i - A_i x on the detectors, ``[B, 2, N, N]`` in network units; 0 for a missing view."""
        present = views_present(image).unsqueeze(2).unsqueeze(3)
        return (image - self.spread.project(self.scale.inverse(estimate))) * present

    @torch.jit.export
    def back_project(self, rest: Tensor) -> Tensor:
        """Return A_i^T rest_i / A_i^T A_i 1, ``[B, 2, U, V, W]`` in network range."""
        return self.scale.slope * self.spread(rest)

    @torch.jit.export
    def first_estimate(self, image: Tensor) -> Tensor:
        """Return the volume ``[B, 1, U, V, W]`` to start from: the mean back-projection of the views present."""
        views = self.spread(image)
        count = views_present(image).sum(dim=1).clamp(min=1.0).reshape(-1, 1, 1, 1, 1)
        return self.scale(views.sum(dim=1, keepdim=True) / count)
