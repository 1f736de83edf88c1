"""Radiographs spread over the volume grid, the oldest way to show a 3D network two 2D images."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from scripts.geometry import BiplanarGeometry, centred_coordinates_mm
from scripts.physics.separable import interpolation_matrix


def require_image(image: Tensor, image_shape: list[int]) -> None:
    """Raise ValueError unless ``image`` is ``[B] + image_shape``; TorchScript can call it."""
    if list(image.shape[1:]) != image_shape:
        raise ValueError(
            f"this network takes images [B] + {image_shape}, got {list(image.shape)}; resample them "
            "or choose the network that was trained for their geometry"
        )


class RayReplication(nn.Module):
    """Copies each radiograph along its view's depth axis, as if the rays were parallel.

    Voxel (u, v, w) of channel 0 holds the frontal radiograph, bilinearly sampled at (u, w) mm times the magnification
    of the isocentre plane (SDD / SOD; 1 for a parallel beam), whatever its depth v. Channel 1 holds the lateral one at
    (v, w), whatever u. Positions beyond the outermost pixel centres take the border pixel's value.

    So anatomy at the isocentre's depth lies where the volume has it, and what is nearer to the source or to the
    detector does not: the cone is ignored, as by X2CT-GAN, whose authors copy pixel to voxel. The magnification is
    ours; it makes the copy right in one plane for every geometry and detector size.

    Args:
        geometry: the exam.
    """

    def __init__(self, geometry: BiplanarGeometry) -> None:
        super().__init__()
        self.image_shape = [2, geometry.detector_pixels, geometry.detector_pixels]
        magnification = geometry.magnification(torch.zeros(1, dtype=torch.float64), source_sign=1.0)
        for axis, count in zip("uvw", geometry.volume_shape, strict=True):
            position_mm = magnification * centred_coordinates_mm(count, geometry.volume_spacing_mm)
            centre = (geometry.detector_pixels - 1) / 2
            index = (position_mm / geometry.detector_spacing_mm + centre).clamp(0, geometry.detector_pixels - 1)
            weights = interpolation_matrix(index, geometry.detector_pixels)
            self.register_buffer(f"along_{axis}", weights.float(), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """Map ``image [B, 2, N, N]`` to ``[B, 2, U, V, W]``.

        Raises:
            ValueError: an image of another shape than the geometry's.
        """
        require_image(image, self.image_shape)
        u, v, w = self.along_u.to(image.dtype), self.along_v.to(image.dtype), self.along_w.to(image.dtype)
        frontal = (u @ image[:, 0] @ w.t()).unsqueeze(2).expand(-1, -1, v.shape[0], -1)
        lateral = (v @ image[:, 1] @ w.t()).unsqueeze(1).expand(-1, u.shape[0], -1, -1)
        return torch.stack([frontal, lateral], dim=1)


def replicate_along_rays(image: Tensor, geometry: BiplanarGeometry) -> Tensor:
    """Map ``image [B, 2, N, N]`` to ``[B, 2, U, V, W]`` once; see :class:`RayReplication`, which keeps its matrices."""
    return RayReplication(geometry).to(image.device)(image)
