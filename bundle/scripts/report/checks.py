"""Checks of arguments: each error gives the name, the rule, the value received and the remedy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np


def checked_volumes(volumes: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the volumes as float32.

    Args:
        volumes: ``[U, V, W]`` by name.

    Raises:
        ValueError: there is no volume, or one that is not three-dimensional, not finite, or of another shape than the
            first.
    """
    if not volumes:
        raise ValueError("a picture needs at least one volume, got none; pass {name: volume}")
    arrays = {name: np.asarray(volume, dtype=np.float32) for name, volume in volumes.items()}
    shape = next(iter(arrays.values())).shape
    for name, array in arrays.items():
        if array.ndim != 3 or array.size == 0:
            raise ValueError(f"{name!r} must be a volume [U, V, W], got {list(array.shape)}; drop its other axes")
        if array.shape != shape:
            raise ValueError(f"{name!r} has shape {array.shape}, the first volume {shape}; resample to one grid")
        _check_finite(name, array)
    return arrays


def checked_spacing(spacing_mm: float | Sequence[float]) -> np.ndarray:
    """Return the voxel spacing in mm as three numbers (u, v, w).

    Raises:
        ValueError: ``spacing_mm`` is not one or three positive numbers.
    """
    spacing = np.asarray(spacing_mm, dtype=float)
    if spacing.shape not in ((), (3,)) or not (np.isfinite(spacing) & (spacing > 0)).all():
        raise ValueError(f"spacing_mm must be one or three positive numbers, got {spacing_mm!r}; pass e.g. 2.0")
    return np.broadcast_to(spacing, 3)


def checked_radiographs(name: str, images: np.ndarray) -> np.ndarray:
    """Return both radiographs, ``[2, N, N]``, as float32.

    Raises:
        ValueError: they have another shape, or NaN or infinite values.
    """
    array = np.asarray(images, dtype=np.float32)
    if array.ndim != 3 or len(array) != 2 or array.shape[1] != array.shape[2] or array.size == 0:
        raise ValueError(
            f"{name!r} must be [2, N, N], got {list(array.shape)}; pass the frontal and the lateral radiograph"
        )
    _check_finite(name, array)
    return array


def checked_film(name: str, pixels: np.ndarray) -> np.ndarray:
    """Return the pixels of a film, ``[rows, columns]``, as float32.

    Raises:
        ValueError: they have another shape, or NaN or infinite values.
    """
    array = np.asarray(pixels, dtype=np.float32)
    if array.ndim != 2 or array.size == 0:
        raise ValueError(f"{name!r} must be [rows, columns], got {list(array.shape)}; pass one film")
    _check_finite(name, array)
    return array


def checked_affine(affine: np.ndarray) -> np.ndarray:
    """Return a RAS voxel-to-mm affine ``[4, 4]`` as float64.

    Raises:
        ValueError: it has another shape, is not finite, or turns or mirrors the patient's axes.
    """
    affine = np.asarray(affine, dtype=float)
    if affine.shape != (4, 4) or not np.isfinite(affine).all():
        raise ValueError(f"affine must be [4, 4] and finite, got {affine.tolist()}; pass RAS voxel-to-mm")
    # If an axis turned by more than 45 degrees or were mirrored, the letters at the edges of the slices would be wrong.
    if (np.diag(affine)[:3] <= np.linalg.norm(affine[:3, :3], axis=0) / math.sqrt(2)).any():
        raise ValueError(
            f"affine turns or mirrors the axes: {affine[:3, :3].tolist()}; reorder the volume to right, anterior, "
            "superior"
        )
    return affine


def _check_finite(name: str, array: np.ndarray) -> None:
    bad = np.sum(~np.isfinite(array))
    if bad:
        raise ValueError(f"{name!r} holds {bad} NaN or infinite values; pass finite values only")
