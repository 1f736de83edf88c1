"""Diff2CT (see papers in the docs): X2NoiseNet lifts the radiographs, and a 3D diffusion U-Net reads them with x_t.

Only the outline of X2NoiseNet is known: two 2D encoders, replication along the rays, a sum, a 3D convolution, and a
concatenation with x_t. Depths, widths and normalisation are our reading.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scripts.blocks.residual import ResidualBlock, convolution, group_norm
from scripts.diffusion.parametrisation import Parametrisation
from scripts.geometry import BiplanarGeometry
from scripts.networks.denoiser import Denoiser, stage_shapes
from scripts.networks.diffux2ct import DiffuX2CT
from scripts.networks.expanded import on_grid
from scripts.networks.lifting import RayReplication


class X2NoiseNet(nn.Module):
    """Conditioner that maps radiographs ``[B, 2, N, N]`` to one condition on the denoiser's grid.

    Args:
        geometry: the exam.
        grid: shape of the condition.
        channels: channels of the encoders and of the condition.
        blocks: residual blocks per encoder.
        dropout: rate inside the residual blocks.
    """

    def __init__(
        self,
        geometry: BiplanarGeometry,
        grid: tuple[int, int, int],
        channels: int,
        blocks: int = 2,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        stride = max(1, geometry.detector_pixels // (2 * max(grid)))
        if geometry.detector_pixels % stride:
            raise ValueError(
                f"X2NoiseNet: detector_pixels {geometry.detector_pixels} must be divisible by {stride} for the grid "
                f"{tuple(grid)}; choose a geometry with a multiple of {stride} pixels"
            )
        self.encoders = nn.ModuleList(
            nn.Sequential(
                convolution(2, 1, channels, 2 * stride + 1, stride),
                *(ResidualBlock(2, channels, channels, dropout=dropout) for _ in range(blocks)),
            )
            for _ in range(2)
        )
        self.replicate = RayReplication(on_grid(geometry, geometry.detector_pixels // stride, grid))
        self.conv = nn.Sequential(group_norm(channels), nn.SiLU(), convolution(3, channels, channels))

    def forward(self, image: Tensor, z: Tensor | None = None) -> list[Tensor]:
        """Return the condition ``[B, C, *grid]``, in a list. ``z`` has no effect."""
        planes: list[Tensor] = []
        for i, encoder in enumerate(self.encoders):
            planes.append(encoder(image[:, i : i + 1]))
        views = self.replicate(torch.stack(planes, dim=2).flatten(0, 1))
        return [self.conv(views.sum(dim=1).unflatten(0, (image.shape[0], -1)))]


class ConcatenatedDenoiser(Denoiser):
    """DiffuX2CT's U-Net with a single condition, which its first block reads together with the features of x_t.

    Since the backbone is the same, a comparison with DiffuX2CT compares the conditioning mechanisms.

    Args:
        volume_shape: voxels (U, V, W).
        channels: channels of each stage, finest first.
        condition_channels: channels of the condition.
        sizes: further arguments of :class:`~scripts.networks.denoiser.Denoiser`.
    """

    def __init__(
        self, volume_shape: tuple[int, int, int], channels: tuple[int, ...], condition_channels: int, **sizes: Any
    ) -> None:
        super().__init__(volume_shape, channels, (condition_channels,) * len(channels), **sizes)
        self.condition_down, self.condition_up = self.condition_down[:1], self.condition_up[:0]

    def project_condition(self, h: list[Tensor]) -> list[Tensor]:
        """Return each stage's additive term: the condition's map for the first, zeros for the others."""
        maps: list[Tensor] = []
        for to_down in self.condition_down:
            maps.append(to_down(F.silu(h[0])))
        # A product, because torch.zeros would fix the batch size in an exported graph.
        nothing = 0 * h[0][:, :1, :1, :1, :1]
        return maps + [nothing for _ in range(2 * self.stages - 1)]


def diff2ct(
    geometry: BiplanarGeometry,
    parametrisation: Parametrisation,
    alphas_cumprod: Tensor,
    channels: tuple[int, ...],
    condition_channels: int,
    patch: int = 1,
    blocks: int = 1,
    heads: int = 4,
    window: int = 4,
    dropout: float = 0.0,
    steps: int = 8,
    power: float = 1.0,
    network: type[DiffuX2CT] = DiffuX2CT,
) -> DiffuX2CT:
    """Build Diff2CT at any size, with DiffuX2CT's interface; see the classes for the arguments.

    Args:
        network: :class:`~scripts.networks.correcting.SelfCorrecting` carries an estimate along.
    """
    grid = stage_shapes(geometry.volume_shape, patch, len(channels))[0]
    conditioner = X2NoiseNet(geometry, grid, condition_channels, dropout=dropout)
    sizes = {"patch": patch, "blocks": blocks, "heads": heads, "window": window, "dropout": dropout}
    sizes["in_channels"] = network.reads
    denoiser = ConcatenatedDenoiser(geometry.volume_shape, channels, condition_channels, **sizes)
    return network(conditioner, denoiser, parametrisation, alphas_cumprod, geometry, steps, power)
