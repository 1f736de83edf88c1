"""The simple conditioning that DiffuX2CT's ablation compares the ICM with (Table 3, "X2CT-style")."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from scripts.blocks.residual import convolution
from scripts.geometry import BiplanarGeometry
from scripts.networks.lifting import RayReplication
from scripts.networks.triplane import PlaneEncoder, check_planes


class ExpandedConditioner(nn.Module):
    """Conditions h^(1..N) by "a 2D encoder with expanding and pixel-wise addition operations like X2CT-GAN".

    The quotation is all that section 4.3 says. The shared encoder after one stem per view, and the 1x1 convolutions
    before the expansion, are our interpretation.

    Args:
        geometry: the exam; only its magnification at the isocentre counts, see
            :class:`~scripts.networks.lifting.RayReplication`.
        grid_shapes: grids of h^(i), finest first.
        plane_channels: channels of the plane encoder's levels, finest first; levels beyond the grids are left out.
        condition_channels: channels of h^(i).
        stem_stride: image pixels per cell of the finest plane.
        blocks: residual blocks per encoder level.
        dropout: rate inside the residual blocks.

    Raises:
        ValueError: levels, grids or image size do not fit together.
    """

    def __init__(
        self,
        geometry: BiplanarGeometry,
        grid_shapes: list[tuple[int, int, int]],
        plane_channels: tuple[int, ...],
        condition_channels: tuple[int, ...],
        stem_stride: int = 1,
        blocks: int = 2,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        stages = len(grid_shapes)
        if len(plane_channels) < stages or len(condition_channels) != stages:
            raise ValueError(
                f"conditioner: {stages} grids need at least {stages} plane_channels and {stages} condition_channels, "
                f"got {len(plane_channels)} and {len(condition_channels)}; give one channel count for each"
            )
        check_planes(geometry, stem_stride, stages)
        channels, kernel = plane_channels[:stages], 2 * stem_stride + 1
        self.stem = nn.ModuleList(convolution(2, 1, channels[0], kernel, stem_stride) for _ in range(2))
        self.encoder = PlaneEncoder(channels, blocks, dropout)
        pairs = zip(channels, condition_channels, strict=True)
        self.reduce = nn.ModuleList(convolution(2, c, h, kernel_size=1) for c, h in pairs)
        side = geometry.detector_pixels // stem_stride
        self.expand = nn.ModuleList(
            RayReplication(on_grid(geometry, side // 2**i, grid)) for i, grid in enumerate(grid_shapes)
        )

    def forward(self, image: Tensor, z: Tensor | None = None) -> list[Tensor]:
        """Map ``image [B, 2, N, N]`` to conditions h^(i) ``[B, C_i, *grid_i]``. ``z`` has no effect."""
        batch = image.shape[0]
        planes = self.encoder(torch.cat([self.stem[0](image[:, :1]), self.stem[1](image[:, 1:])]))
        h: list[Tensor] = []
        for i, (reduce, expand) in enumerate(zip(self.reduce, self.expand)):  # noqa: B905 (TorchScript)
            plane = reduce(planes[i])
            views = torch.stack([plane[:batch], plane[batch:]], dim=2).flatten(0, 1)
            h.append(expand(views).sum(dim=1).unflatten(0, (batch, -1)))
        return h


def on_grid(geometry: BiplanarGeometry, pixels: int, shape: tuple[int, int, int]) -> BiplanarGeometry:
    """Return the same exam with another sampling of detector and volume over the same extent."""
    return replace(
        geometry,
        detector_pixels=pixels,
        detector_spacing_mm=geometry.detector_size_mm / pixels,
        volume_shape=shape,
        volume_spacing_mm=geometry.volume_size_mm[0] / shape[0],
    )
