"""Shifted-window self-attention over a volume (Liu et al. 2021, in three dimensions)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scripts.blocks.residual import group_norm, zeroed


def _partition(x: Tensor, window: int) -> Tensor:
    """Split ``[B, C, U, V, W]`` into windows of tokens ``[B, M, window^3, C]``."""
    b, c, u, v, w = x.shape
    x = x.reshape(b, c, u // window, window, v // window, window, w // window, window)
    return x.permute(0, 2, 4, 6, 3, 5, 7, 1).reshape(b, -1, window * window * window, c)


def _merge(tokens: Tensor, window: int, u: int, v: int, w: int) -> Tensor:
    """Invert :func:`_partition` for a grid of u, v, w cells."""
    b, c = tokens.shape[0], tokens.shape[-1]
    x = tokens.reshape(b, u // window, v // window, w // window, window, window, window, c)
    return x.permute(0, 7, 1, 4, 2, 5, 3, 6).reshape(b, c, u, v, w)


def _relative_index(window: int) -> Tensor:
    """Return the index ``[window^3, window^3]`` of each token pair's offset in a table of (2 window - 1)^3 biases."""
    axis = torch.arange(window)
    position = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).reshape(-1, 3)
    offset = position[:, None] - position[None, :] + window - 1
    side = 2 * window - 1
    return (offset[..., 0] * side + offset[..., 1]) * side + offset[..., 2]


def _shift_mask(grid_shape: tuple[int, int, int], window: int, shift: int) -> Tensor:
    """Return a mask ``[M, window^3, window^3]``, True where tokens of a shifted window are neighbours in the volume."""
    region = torch.zeros(1, 1, *grid_shape)
    for axis, count in enumerate(grid_shape, start=2):
        label = torch.zeros(count)
        label[count - window : count - shift] = 1
        label[count - shift :] = 2
        sizes = [1] * 5
        sizes[axis] = count
        region = region * 3 + label.reshape(sizes)
    tokens = _partition(region, window)[0, :, :, 0]
    return tokens[:, :, None] == tokens[:, None, :]


class ShiftedWindowAttention(nn.Module):
    """Multi-head self-attention inside cubic windows that are shifted by ``shift`` cells.

    Args:
        channels: channels of the features, a multiple of ``heads``.
        heads: attention heads.
        grid_shape: cells along the three axes; fixed, because the mask of a shifted window depends on it.
        window: window side in cells; it divides every axis of ``grid_shape``.
        shift: cyclic shift in cells, 0 or less than ``window``.

    Raises:
        ValueError: the grid does not split into windows or the channels into heads, or the shift exceeds a window.
    """

    def __init__(
        self, channels: int, heads: int, grid_shape: tuple[int, int, int], window: int = 4, shift: int = 0
    ) -> None:
        super().__init__()
        if channels % heads:
            raise ValueError(
                f"attention: {channels} channels do not split into {heads} heads; choose a multiple of {heads}"
            )
        if not 0 <= shift < window:
            raise ValueError(f"attention: shift must be at least 0 and less than the window of {window}, got {shift}")
        if any(n % window for n in grid_shape):
            raise ValueError(
                f"attention: a grid of {tuple(grid_shape)} cells does not split into windows of {window}; "
                "choose a volume shape or a window so that it does"
            )
        self.heads, self.window = heads, window
        # If one window spans an axis, a shift would cut that axis in two, so no axis is shifted.
        self.shift = shift if min(grid_shape) > window else 0
        self.norm = group_norm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.project = zeroed(nn.Linear(channels, channels))
        self.bias = nn.Parameter(torch.zeros((2 * window - 1) ** 3, heads))
        self.bias_index = nn.Buffer(_relative_index(window), persistent=False)
        mask = _shift_mask(grid_shape, window, self.shift) if self.shift else torch.ones(1, window**3, window**3)
        outside = torch.zeros(mask.shape).masked_fill(~mask.bool(), float("-inf"))
        self.outside = nn.Buffer(outside.unsqueeze(1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Apply residual attention to ``x [B, C, *grid_shape]``."""
        b, c, u, v, w = x.shape
        shift, tokens_per_window = self.shift, self.window * self.window * self.window
        tokens = _partition(torch.roll(self.norm(x), [-shift, -shift, -shift], [2, 3, 4]), self.window)
        windows = tokens.shape[1]
        qkv = self.qkv(tokens).reshape(b, windows, tokens_per_window, 3, self.heads, c // self.heads)
        q, k, v_ = qkv.permute(3, 0, 1, 4, 2, 5).unbind(0)
        bias = self.bias[self.bias_index].permute(2, 0, 1) + self.outside
        y = F.scaled_dot_product_attention(q, k, v_, attn_mask=bias.to(q.dtype))
        y = self.project(y.permute(0, 1, 3, 2, 4).reshape(b, windows, tokens_per_window, c))
        return x + torch.roll(_merge(y, self.window, u, v, w), [shift, shift, shift], [2, 3, 4])


class SwinPair(nn.Module):
    """A regular and a shifted window attention, each followed by a pointwise feed-forward layer."""

    def __init__(self, channels: int, heads: int, grid_shape: tuple[int, int, int], window: int = 4) -> None:
        super().__init__()
        self.attention = nn.ModuleList(
            ShiftedWindowAttention(channels, heads, grid_shape, window, shift) for shift in (0, window // 2)
        )
        self.feed_forward = nn.ModuleList(
            nn.Sequential(
                group_norm(channels),
                nn.Conv3d(channels, 2 * channels, 1),
                nn.GELU(),
                zeroed(nn.Conv3d(2 * channels, channels, 1)),
            )
            for _ in range(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[B, C, *grid_shape]`` to the same shape."""
        for attention, feed_forward in zip(self.attention, self.feed_forward):  # noqa: B905 (TorchScript: no strict)
            x = attention(x)
            x = x + feed_forward(x)
        return x
