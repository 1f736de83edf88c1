"""2D features of both radiographs, lifted to the volume along the X-rays: the simplest cone-beam conditioning.

The implicit conditioning mechanism (:mod:`~scripts.networks.triplane`) adds a third, modelled plane and sums the three;
here the features of the two seen planes are concatenated.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from scripts.blocks.residual import convolution
from scripts.geometry import BiplanarGeometry
from scripts.networks.triplane import (
    InterleavedConvolution,
    PlaneDecoder,
    PlaneEncoder,
    RayQueries,
    TriplaneConditioner,
    check_planes,
)


class ViewLifting(RayQueries):
    """Lifting that takes half of the channels of h^(i) from each view's plane, sampled along the rays.

    Args:
        geometry: the exam, over the *full* volume grid.
        grid_shape: cells (U, V, W) of h^(i).
        side: cells along each side of the planes.
        in_channels: channels of the planes.
        channels: channels of h^(i), an even number.
    """

    def __init__(
        self, geometry: BiplanarGeometry, grid_shape: tuple[int, int, int], side: int, in_channels: int, channels: int
    ) -> None:
        super().__init__(geometry, grid_shape, side)
        self.reduce = nn.ModuleList(convolution(2, in_channels, channels // 2, kernel_size=1) for _ in range(2))

    def forward(self, u_uw: Tensor, u_vw: Tensor) -> Tensor:
        """Map the planes ``[B, C_in, P, P]`` to h ``[B, C, U, V, W]``."""
        return torch.cat([self.frontal(self.reduce[0](u_uw)), self.lateral(self.reduce[1](u_vw))], dim=1)


class LiftedConditioner(nn.Module):
    """Conditioner of radiographs ``[B, 2, N, N]`` to h^(1..N): a 2D U-Net shared by both views, then ray lifting.

    The views exchange their profiles along w before the U-Net (the paper's interleaved convolution).

    Args:
        geometry, grid_shapes, plane_channels, condition_channels, stem_stride, blocks, dropout: as for
            :class:`~scripts.networks.triplane.TriplaneConditioner`.
        per_view: channels of each view; those of the frontal one come first.

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
        dropout: float = 0.0,
        per_view: int = 1,
    ) -> None:
        super().__init__()
        self.per_view = per_view
        levels, stages = len(plane_channels), len(grid_shapes)
        if levels < stages or len(condition_channels) != stages or any(c % 2 for c in condition_channels):
            raise ValueError(
                f"conditioner: {stages} grids need at least {stages} plane_channels and {stages} even "
                f"condition_channels, got {tuple(plane_channels)} and {tuple(condition_channels)}; give one number each"
            )
        check_planes(geometry, stem_stride, levels)
        side, kernel = geometry.detector_pixels // stem_stride, 2 * stem_stride + 1
        self.stem = nn.ModuleList(convolution(2, per_view, plane_channels[0], kernel, stem_stride) for _ in range(2))
        self.interleaved = InterleavedConvolution(plane_channels[0])
        self.encoder = PlaneEncoder(plane_channels, blocks, dropout)
        self.decoder = PlaneDecoder(plane_channels, stages, dropout)
        self.lift = nn.ModuleList(
            ViewLifting(geometry, grid, side // 2**i, c, h)
            for i, (grid, c, h) in enumerate(zip(grid_shapes, plane_channels, condition_channels))  # noqa: B905
        )

    def forward(self, image: Tensor, z: Tensor | None = None) -> list[Tensor]:
        """Map ``image [B, 2 per_view, N, N]`` to conditions h^(i) ``[B, C_i, *grid_i]``. ``z`` has no effect."""
        batch, c = image.shape[0], self.per_view
        x1, x2 = self.interleaved(self.stem[0](image[:, :c]), self.stem[1](image[:, c:]))
        planes = self.decoder(self.encoder(torch.cat([x1, x2])))
        h: list[Tensor] = []
        for i, lift in enumerate(self.lift):
            h.append(lift(planes[i][:batch], planes[i][batch:]))
        return h


class JointConditioner(nn.Module):
    """Combination of both conditionings: half of the channels of each h^(i) come from the ICM, half are lifted.

    Args:
        geometry, grid_shapes, plane_channels: arguments for both.
        condition_channels: channels of h^(i), multiples of four.
        sizes, named: further arguments for both.
    """

    def __init__(
        self,
        geometry: BiplanarGeometry,
        grid_shapes: list[tuple[int, int, int]],
        plane_channels: tuple[int, ...],
        condition_channels: tuple[int, ...],
        *sizes: Any,
        **named: Any,
    ) -> None:
        super().__init__()
        arguments = (geometry, grid_shapes, plane_channels, tuple(c // 2 for c in condition_channels), *sizes)
        self.implicit = TriplaneConditioner(*arguments, **named)
        self.lifted = LiftedConditioner(*arguments, **named)

    def forward(self, image: Tensor, z: Tensor | None = None) -> list[Tensor]:
        """Map ``image`` to conditions h^(i) ``[B, C_i, *grid_i]``; ``z`` disturbs the ICM's."""
        h: list[Tensor] = []
        for a, b in zip(self.implicit(image, z), self.lifted(image)):  # noqa: B905 (TorchScript)
            h.append(torch.cat([a, b], dim=1))
        return h
