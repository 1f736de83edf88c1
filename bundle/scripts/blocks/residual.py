"""Convolutional residual blocks in two and three dimensions."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from monai.networks.layers.factories import Conv
from torch import Tensor, nn


def convolution(spatial_dims: int, in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1):
    """Return a same-padded convolution in ``spatial_dims`` dimensions with its weights in channels-last order.

    The outputs inherit that order, which is faster on CPUs and tensor cores (benchmarks/training.py).
    """
    conv = Conv[Conv.CONV, spatial_dims](
        in_channels, out_channels, kernel_size, stride=stride, padding=kernel_size // 2
    )
    return conv.to(memory_format=torch.channels_last if spatial_dims == 2 else torch.channels_last_3d)


def zeroed(module: nn.Module) -> nn.Module:
    """Set all of the module's parameters to zero, so that its branch initially contributes nothing, and return it."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


def group_norm(channels: int, group_size: int = 16) -> nn.GroupNorm:
    """Return a group normalisation with groups of about ``group_size`` channels.

    Raises:
        ValueError: the channels do not split into whole groups.
    """
    groups = max(1, channels // group_size)
    if channels % groups:
        raise ValueError(
            f"group normalisation: {channels} channels do not split into {groups} groups of about {group_size}; "
            f"choose a multiple of {group_size}"
        )
    return nn.GroupNorm(groups, channels)


class ResidualBlock(nn.Module):
    """Two normalised convolutions with a skip connection, optionally modulated by an embedding and a condition.

    The condition is added right after the first convolution. Because a convolution of a concatenation is the sum of
    the convolutions of its parts, passing ``conv(h)`` as the condition is equivalent to concatenating ``h`` to the
    input of the first convolution (after normalisation and activation; the skip does not see ``h``), but ``conv(h)``
    can be computed once and reused for every diffusion step.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the input.
        out_channels: channels of the output.
        embedding_channels: channels of the embedding ``[B, E]`` that scales and shifts; 0 for none.
        dropout: dropout rate before the second convolution.
    """

    def __init__(
        self, spatial_dims: int, in_channels: int, out_channels: int, embedding_channels: int = 0, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.norm1 = group_norm(in_channels)
        self.conv1 = convolution(spatial_dims, in_channels, out_channels)
        self.norm2 = group_norm(out_channels)
        self.conv2 = zeroed(convolution(spatial_dims, out_channels, out_channels))
        self.dropout = nn.Dropout(dropout)
        self.skip = nn.Identity()
        if in_channels != out_channels:
            self.skip = convolution(spatial_dims, in_channels, out_channels, kernel_size=1)
        self.modulation = None
        if embedding_channels:
            self.modulation = zeroed(nn.Linear(embedding_channels, 2 * out_channels))

    def forward(self, x: Tensor, embedding: Tensor | None = None, condition: Tensor | None = None) -> Tensor:
        """Map ``x [B, in, ...]`` to ``[B, out, ...]``; ``condition`` is ``[B, out, ...]``, ``embedding`` ``[B, E]``."""
        y = self.conv1(F.silu(self.norm1(x)))
        if condition is not None:
            y = y + condition
        y = self.norm2(y)
        if self.modulation is not None and embedding is not None:
            scale, shift = self.modulation(F.silu(embedding)).chunk(2, dim=1)
            per_channel = [scale.shape[0], scale.shape[1]] + [1] * (y.ndim - 2)
            y = y * (1 + scale.reshape(per_channel)) + shift.reshape(per_channel)
        return self.skip(x) + self.conv2(self.dropout(F.silu(y)))


class Levels(nn.Module):
    """Chain of modules that returns the output of each.

    Args:
        levels: modules, in order.
    """

    def __init__(self, levels: Iterable[nn.Module]) -> None:
        super().__init__()
        self.levels = nn.ModuleList(levels)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the levels' outputs in order; the first reads ``x``, every other one its predecessor's output."""
        features: list[Tensor] = []
        for level in self.levels:
            x = level(x)
            features.append(x)
        return features


class Upsample(nn.Module):
    """1x1 convolution from ``in_channels`` to ``out_channels``, then nearest-neighbour doubling of the grid."""

    def __init__(self, spatial_dims: int, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = convolution(spatial_dims, in_channels, out_channels, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[B, in, ...]`` to ``[B, out, 2 * ...]``; the 1x1 convolution runs first, on the smaller grid."""
        return F.interpolate(self.conv(x), scale_factor=2.0, mode="nearest")


class SpaceToDepth(nn.Module):
    """Fold each ``patch``-sided cube of voxels into channels, so that convolutions run on a coarser grid."""

    def __init__(self, patch: int) -> None:
        super().__init__()
        self.patch = patch

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[B, C, U, V, W]`` to ``[B, C p^3, U/p, V/p, W/p]``."""
        p = self.patch
        b, c, u, v, w = x.shape
        x = x.reshape(b, c, u // p, p, v // p, p, w // p, p)
        return x.permute(0, 1, 3, 5, 7, 2, 4, 6).reshape(b, c * p * p * p, u // p, v // p, w // p)


class DepthToSpace(nn.Module):
    """Inverse of :class:`SpaceToDepth`."""

    def __init__(self, patch: int) -> None:
        super().__init__()
        self.patch = patch

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[B, C p^3, U, V, W]`` to ``[B, C, U p, V p, W p]``."""
        p = self.patch
        b, c, u, v, w = x.shape
        x = x.reshape(b, c // (p * p * p), p, p, p, u, v, w)
        return x.permute(0, 1, 5, 2, 6, 3, 7, 4).reshape(b, c // (p * p * p), u * p, v * p, w * p)
