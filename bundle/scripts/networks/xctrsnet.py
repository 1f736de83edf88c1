"""X-CTRSNet's reconstruction branch SPaDRNet (Ge et al. 2022), our interpretation, since its code is not public.

We know only that it has a 2D encoder per view, lifts their features to 3D and fuses them, and has a 3D decoder. The
lifting, the fusion, and all depths, widths and normalisations are ours; the results of this network say little about
the original.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from scripts.blocks.residual import convolution
from scripts.geometry import BiplanarGeometry
from scripts.networks.contract import GeometryBound
from scripts.networks.denoiser import stage_shapes
from scripts.networks.expanded import on_grid
from scripts.networks.icm_reg import VolumeDecoder
from scripts.networks.lifting import RayReplication
from scripts.networks.triplane import PlaneEncoder
from scripts.physics.tensor_shapes import require_image


class LiftedFusion(nn.Module):
    """Replication of both views' features along their rays, fused by a 3D convolution.

    Args:
        geometry: the exam.
        side: cells along each side of the feature planes, which cover the detectors.
        grid: shape of the 3D features, which cover the volume.
        channels: channels of the planes and of the fused features.
    """

    def __init__(self, geometry: BiplanarGeometry, side: int, grid: tuple[int, int, int], channels: int) -> None:
        super().__init__()
        self.replicate = RayReplication(on_grid(geometry, side, grid))
        self.fuse = convolution(3, 2 * channels, channels)

    def lift(self, frontal: Tensor, lateral: Tensor) -> Tensor:
        """Map planes ``[B, C, P, P]`` to ``[B, 2C, *grid]``: the frontal channels, then the lateral ones."""
        b, c, _, _ = frontal.shape
        views = self.replicate(torch.stack([frontal, lateral], dim=2).flatten(0, 1))
        return views.unflatten(0, (b, c)).transpose(1, 2).flatten(1, 2)

    def forward(self, frontal: Tensor, lateral: Tensor) -> Tensor:
        """Map planes ``[B, C, P, P]`` to fused features ``[B, C, *grid]``."""
        return self.fuse(self.lift(frontal, lateral))


class XCTRSNet(GeometryBound):
    """Reconstruction by one encoder per view, lifting and fusion at every level, and one 3D decoder.

    Args:
        geometry: the exam; only its magnification at the isocentre counts, see
            :class:`~scripts.networks.lifting.RayReplication`.
        channels: channels of the levels in 2D and 3D, finest first; the first has the volume's grid, each next half.
        plane_blocks: residual blocks per level of the encoders.
        blocks: residual blocks per level of the decoder.
        dropout: rate inside the residual blocks.

    Shapes: images ``[B, 2, N, N]`` and volumes ``[B, 1, U, V, W]`` in network units; the output is not clipped.

    Raises:
        ValueError: the volume or detector does not divide into the levels.
    """

    def __init__(
        self,
        geometry: BiplanarGeometry,
        channels: tuple[int, ...] = (32, 64, 128, 256),
        plane_blocks: int = 2,
        blocks: int = 1,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(geometry)
        channels, pixels = tuple(channels), geometry.detector_pixels
        grids = stage_shapes(geometry.volume_shape, 1, len(channels))
        stride = max(1, pixels // max(geometry.volume_shape))
        divisor = stride * 2 ** (len(channels) - 1)
        if pixels % divisor:
            raise ValueError(
                f"X-CTRSNet: detector_pixels {pixels} must be divisible by {divisor} ({stride} pixels per voxel, "
                f"{len(channels)} levels); choose a geometry with a multiple of {divisor} pixels"
            )
        self.encoders = nn.ModuleList(
            nn.Sequential(
                convolution(2, 1, channels[0], 2 * stride + 1, stride), PlaneEncoder(channels, plane_blocks, dropout)
            )
            for _ in range(2)
        )
        self.fusion = nn.ModuleList(
            LiftedFusion(geometry, pixels // (stride * 2**i), grid, c)
            for i, (grid, c) in enumerate(zip(grids, channels, strict=True))
        )
        self.decoder = VolumeDecoder(channels, channels, blocks=blocks, dropout=dropout)

    def forward(self, image: Tensor) -> Tensor:
        """Reconstruct ``[B, 1, U, V, W]`` from ``image [B, 2, N, N]``.

        Raises:
            ValueError: the image's shape does not match the geometry.
        """
        require_image(image, self.image_shape)
        planes: list[list[Tensor]] = []
        for i, encoder in enumerate(self.encoders):
            planes.append(encoder(image[:, i : i + 1]))
        fused: list[Tensor] = []
        for i, fusion in enumerate(self.fusion):
            fused.append(fusion(planes[0][i], planes[1][i]))
        return self.decoder(fused)
