"""Resampling between a CT's own grid, an isotropic RAS+ grid and the standard grid, without aliasing."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import SpatialResample
from skimage.measure import block_reduce

from scripts.intensity import AIR_HU
from scripts.smoothing import smoothed


def isotropic_grid(shape: tuple[int, ...], affine: np.ndarray, spacing_mm: float) -> tuple[tuple[int, ...], np.ndarray]:
    """Return the axis-aligned RAS+ grid that covers a volume including its voxel edges.

    Args:
        shape: voxels of the volume.
        affine: RAS voxel-to-mm affine ``[4, 4]`` of the volume, in any orientation, oblique or sheared.
        spacing_mm: spacing of the new grid.

    Returns:
        Shape and RAS affine of the grid, centred on the volume.
    """
    corners = np.stack(np.meshgrid(*[(-0.5, n - 0.5) for n in shape], indexing="ij"), axis=-1).reshape(-1, 3)
    corners_mm = nib.affines.apply_affine(affine, corners)
    low, high = corners_mm.min(axis=0), corners_mm.max(axis=0)
    counts = np.maximum(np.ceil((high - low) / spacing_mm - 1e-3), 1).astype(int)
    return tuple(int(n) for n in counts), grid_affine((low + high) / 2, counts, spacing_mm)


def grid_affine(centre_mm: np.ndarray, shape: np.ndarray | tuple[int, ...], spacing_mm: float) -> np.ndarray:
    """Return the RAS affine ``[4, 4]`` of an axis-aligned grid of ``shape`` voxels around ``centre_mm``."""
    affine = np.diag([spacing_mm] * 3 + [1.0])
    affine[:3, 3] = np.asarray(centre_mm) - (np.asarray(shape) - 1) / 2 * spacing_mm
    return affine


def resample_hu(hu: np.ndarray, affine: np.ndarray, to_shape: tuple[int, ...], to_affine: np.ndarray) -> np.ndarray:
    """Interpolate HU linearly on another grid, with air outside the data.

    Where the new grid is coarser, the HU are smoothed first.

    Args:
        hu: ``[X, Y, Z]`` float32.
        affine: RAS affine of ``hu``.
        to_shape: voxels of the new grid.
        to_affine: RAS affine of the new grid, with axes in any order and direction.

    Returns:
        HU of shape ``to_shape``, float32.
    """
    smooth = smoothed(hu, _new_voxels_in_old(affine, to_affine), mode="nearest")
    values = _resample(smooth, affine, to_shape, to_affine, mode="bilinear", padding="border")
    inside = resample_labels(np.ones(hu.shape, dtype=np.uint8), affine, to_shape, to_affine)
    return np.where(inside > 0, values, np.float32(AIR_HU))


def resample_labels(
    labels: np.ndarray, affine: np.ndarray, to_shape: tuple[int, ...], to_affine: np.ndarray
) -> np.ndarray:
    """Interpolate labels ``[X, Y, Z]`` on another grid by nearest neighbours, uint8, with 0 outside the data."""
    values = _resample(labels.astype(np.float32), affine, to_shape, to_affine, mode="nearest", padding="zeros")
    return values.astype(np.uint8)


def block_mean(hu: np.ndarray, factor: int) -> np.ndarray:
    """Average over cubes of ``factor`` voxels per side; every side must be a multiple of it."""
    return block_reduce(hu, factor, func=np.mean)


def cut(hu: np.ndarray, start: np.ndarray, shape: np.ndarray | tuple[int, ...]) -> np.ndarray:
    """Return the box of ``shape`` voxels from index ``start``, padded with air outside the volume."""
    stop = start + np.asarray(shape)
    inside = hu[tuple(slice(max(a, 0), max(b, 0)) for a, b in zip(start, stop, strict=True))]
    before = np.maximum(-start, 0)
    after = shape - before - inside.shape
    return np.pad(inside, list(zip(before, after, strict=True)), constant_values=AIR_HU)


def _new_voxels_in_old(affine: np.ndarray, to_affine: np.ndarray) -> np.ndarray:
    """Return the size ``[3]`` of a new voxel along each old axis, in old voxels."""
    old_to_new = np.abs(np.linalg.solve(affine[:3, :3], to_affine[:3, :3]))
    return old_to_new.max(axis=1)


def _resample(
    values: np.ndarray, affine: np.ndarray, to_shape: tuple[int, ...], to_affine: np.ndarray, mode: str, padding: str
) -> np.ndarray:
    image = MetaTensor(torch.as_tensor(values)[None], affine=torch.as_tensor(affine))
    resample = SpatialResample(mode=mode, padding_mode=padding, dtype=np.float32)
    return resample(image, dst_affine=torch.as_tensor(to_affine), spatial_size=to_shape)[0].numpy()
