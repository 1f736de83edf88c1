"""Tiled evaluation of networks on volumes that are too large to process at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product

import torch
from torch import Tensor
from tqdm import tqdm

_FEW = 8


@torch.no_grad()
def in_tiles(
    network: Callable[[Tensor], Tensor], volume: Tensor, tile: int, halo: int, factor: int = 1, stride: int = 1
) -> Tensor:
    """Compute ``network(volume)``, up to rounding, in cubes, so that memory grows with the tile and not the volume.

    The network sees every tile with ``halo`` voxels around it, fewer at the volume's border, where it pads as for the
    whole volume; its output in the halo is discarded. MONAI's sliding windows cannot do this: they weight all windows
    alike, whereas the outer voxels of a tile count at the volume's border, but must not count inside it.

    Args:
        network: maps ``[B, C, U, V, W]`` to ``[B, C', f U, f V, f W]``, where f is ``factor``.
        volume: ``[B, C, U, V, W]``; its batch is not split.
        tile: voxels of ``volume`` along each side of a tile; the last ones may be smaller.
        halo: number of voxels around an input voxel that affect its output.
        factor: output voxels per input voxel along each axis.
        stride: tiles start at multiples of it, because the network downsamples by this factor.

    Raises:
        ValueError: the tile has no voxels, the halo is negative, or either is not a multiple of the stride.
    """
    if tile < 1 or halo < 0 or tile % stride or halo % stride:
        raise ValueError(
            f"in_tiles: tile must be at least 1 and halo at least 0, both multiples of {stride}, got {tile} and "
            f"{halo}; choose others"
        )
    shape = volume.shape[2:]
    result = None
    corners = list(product(*(range(0, n, tile) for n in shape)))
    for corner in tqdm(corners, "tiles", unit="tile", leave=False, disable=None if len(corners) > _FEW else True):
        ends = [min(c + tile, n) for c, n in zip(corner, shape, strict=True)]
        starts = [max(c - halo, 0) for c in corner]
        output = network(volume[_box(starts, [e + halo for e in ends])])
        if result is None:
            result = output.new_empty(*output.shape[:2], *(factor * n for n in shape))
        core = _box(
            [c - s for c, s in zip(corner, starts, strict=True)],
            [e - s for e, s in zip(ends, starts, strict=True)],
            factor,
        )
        result[_box(corner, ends, factor)] = output[core]
    assert result is not None  # a volume has voxels
    return result


def _box(starts: Sequence[int], ends: Sequence[int], factor: int = 1) -> tuple[slice, ...]:
    """Return the slices of a box of voxels with all channels, on a grid finer by ``factor``."""
    return (slice(None), slice(None), *(slice(factor * s, factor * e) for s, e in zip(starts, ends, strict=True)))
