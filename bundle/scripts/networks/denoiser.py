"""The 3D conditional denoising U-Net of DiffuX2CT (section 3.3)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scripts.blocks.attention import SwinPair
from scripts.blocks.residual import (
    DepthToSpace,
    ResidualBlock,
    SpaceToDepth,
    Upsample,
    convolution,
    group_norm,
    zeroed,
)
from scripts.blocks.time import TimeEmbedding


def stage_shapes(volume_shape: tuple[int, int, int], patch: int, stages: int) -> list[tuple[int, int, int]]:
    """Return the grid shapes of the U-Net's stages, finest first.

    Raises:
        ValueError: the volume is not divisible by ``patch * 2**(stages - 1)``.
    """
    divisor = patch * 2 ** (stages - 1)
    if any(n % divisor or n < divisor for n in volume_shape):
        raise ValueError(
            f"volume_shape {tuple(volume_shape)} must be divisible by {divisor} (patch {patch}, {stages} stages); "
            f"crop or pad it to a multiple of {divisor}"
        )
    u, v, w = volume_shape
    return [(u // s, v // s, w // s) for s in (patch * 2**i for i in range(stages))]


class Stage(nn.Module):
    """Residual blocks on one grid after an entry that changes the resolution; the first block reads the condition.

    Args:
        entry: module applied to the incoming features.
        in_channels: channels the first block sees (after the entry and the skip, if any).
        channels: channels of the stage.
        embedding: channels of the time embedding.
        blocks: residual blocks.
        dropout: rate inside the blocks.
    """

    def __init__(
        self, entry: nn.Module, in_channels: int, channels: int, embedding: int, blocks: int, dropout: float
    ) -> None:
        super().__init__()
        self.entry = entry
        self.first = ResidualBlock(3, in_channels, channels, embedding, dropout)
        self.rest = nn.ModuleList(ResidualBlock(3, channels, channels, embedding, dropout) for _ in range(blocks - 1))

    def forward(self, f: Tensor, embedding: Tensor, condition: Tensor, skip: Tensor | None = None) -> Tensor:
        """Compute features on this stage's grid; ``skip`` is concatenated after the entry."""
        f = self.entry(f)
        if skip is not None:
            f = torch.cat([f, skip], dim=1)
        f = self.first(f, embedding, condition)
        for block in self.rest:
            f = block(f, embedding)
        return f


class Denoiser(nn.Module):
    """3D U-Net over N stages that reads the condition h^(i) on both sides of every stage.

    The condition is concatenated to the features of the encoder and of the decoder (f_down, f_up in the paper). The
    convolutions that read it are linear in it and do not depend on t, so :meth:`project_condition` computes them once
    per reconstruction; see :class:`~scripts.blocks.residual.ResidualBlock`.

    Args:
        volume_shape: voxels (U, V, W).
        channels: feature channels of each stage, finest first.
        condition_channels: channels of h^(i), one per stage.
        patch: side of the voxel cubes folded into channels before the first stage; 1 for none.
        blocks: residual blocks per stage and side.
        heads: attention heads in the last stage.
        window: attention window in cells.
        dropout: rate inside the residual blocks.
        in_channels: number of volumes it reads, including x_t.
        condition_kernel: kernel size of the convolutions that read h.

    Raises:
        ValueError: the volume does not divide into the stages or the windows, or the conditions do not match.
    """

    def __init__(
        self,
        volume_shape: tuple[int, int, int],
        channels: tuple[int, ...],
        condition_channels: tuple[int, ...],
        patch: int = 1,
        blocks: int = 1,
        heads: int = 4,
        window: int = 4,
        dropout: float = 0.2,
        in_channels: int = 1,
        condition_kernel: int = 3,
    ) -> None:
        super().__init__()
        if len(channels) != len(condition_channels):
            raise ValueError(
                f"denoiser: each stage takes one condition, got {len(channels)} channels and {len(condition_channels)} "
                "condition_channels; give as many of both"
            )
        self.channels, self.stages = tuple(channels), len(channels)
        shapes = stage_shapes(volume_shape, patch, self.stages)
        first, finer, coarser = channels[0], channels[:-1], channels[1:]
        embedding = 4 * first
        self.time = TimeEmbedding(first, embedding)
        self.fold, self.unfold = SpaceToDepth(patch), DepthToSpace(patch)
        self.stem = convolution(3, in_channels * patch**3, first)
        self.down = nn.ModuleList([Stage(nn.Identity(), first, first, embedding, blocks, dropout)])
        for c, c_next in zip(finer, coarser, strict=True):
            halve = convolution(3, c, c_next, stride=2)
            self.down.append(Stage(halve, c_next, c_next, embedding, blocks, dropout))
        self.attention = SwinPair(channels[-1], heads, shapes[-1], window)
        self.bottom = Stage(nn.Identity(), channels[-1], channels[-1], embedding, blocks, dropout)
        self.up = nn.ModuleList(
            Stage(Upsample(3, c_below, c), 2 * c, c, embedding, blocks, dropout)
            for c, c_below in zip(reversed(finer), reversed(coarser), strict=True)
        )
        self.head = nn.Sequential(group_norm(first), nn.SiLU(), zeroed(convolution(3, first, patch**3)))
        pairs = list(zip(condition_channels, channels, strict=True))
        self.condition_down = nn.ModuleList(convolution(3, h, c, condition_kernel) for h, c in pairs)
        self.condition_up = nn.ModuleList(convolution(3, h, c, condition_kernel) for h, c in pairs)

    def draws_nothing(self) -> bool:
        """Return whether the last layer is still in its initial state, in which the output is always zero."""
        return not any(parameter.any() for parameter in self.head[-1].parameters())

    def project_condition(self, h: list[Tensor]) -> list[Tensor]:
        """Map the conditions h^(i) to each stage's additive terms: N for the encoder, then N for the decoder."""
        down: list[Tensor] = []
        up: list[Tensor] = []
        for i, (to_down, to_up) in enumerate(zip(self.condition_down, self.condition_up)):  # noqa: B905 (TorchScript)
            active = F.silu(h[i])
            down.append(to_down(active))
            up.append(to_up(active))
        return down + up

    def forward(
        self, x: Tensor, timesteps: Tensor, condition: list[Tensor], control: list[Tensor] | None = None
    ) -> Tensor:
        """Predict ``[B, 1, U, V, W]`` from ``x [B, in_channels, U, V, W]`` at ``timesteps [B]``.

        ``condition`` holds the maps from :meth:`project_condition`. If given, ``control`` is added to the features that
        the encoder passes to the decoder, finest first, bottom last (:class:`~scripts.networks.controlnet.ControlNet`).
        """
        embedding = self.time(timesteps)
        f = self.stem(self.fold(x))
        skips: list[Tensor] = []
        for i, stage in enumerate(self.down):
            f = stage(f, embedding, condition[i])
            skips.append(f)
        f = self.bottom(self.attention(f), embedding, condition[2 * self.stages - 1])
        if control is not None:
            f = f + control[-1]
            skips = [skip + c for skip, c in zip(skips[:-1], control)]  # noqa: B905 (TorchScript)
        for i, stage in enumerate(self.up):
            level = self.stages - 2 - i
            f = stage(f, embedding, condition[self.stages + level], skips[level])
        return self.unfold(self.head(f))
