"""A CT volume in Hounsfield units, and its plausibility checks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

AIR_BELOW_HU = -200.0
"""Every CT of a body shows air or lung below this value; a volume that never does is not in HU."""
PITCH_MM = (0.05, 20.0)
"""Range of the voxels' pitch, finer and coarser than that of any CT of a body."""
MAX_EXTENT_MM = 3000.0
"""Largest extent, longer than any CT table."""


@dataclass(frozen=True)
class CtVolume:
    """A CT in its own orientation.

    Attributes:
        hu: Hounsfield units ``[X, Y, Z]`` float32.
        affine: RAS voxel-to-mm ``[4, 4]``.
        labels: tissue labels ``[X, Y, Z]`` on the same grid, where the truth is known.
    """

    hu: np.ndarray
    affine: np.ndarray
    labels: np.ndarray | None = None


def check_hu(hu: np.ndarray, name: str | Path) -> None:
    """Check that voxels can be a CT in Hounsfield units.

    Raises:
        ValueError: voxels are NaN, infinite, all the same, or never as low as the HU of lung or air.
    """
    if not np.isfinite(hu).all():
        raise ValueError(f"{name}: {int((~np.isfinite(hu)).sum())} voxels are NaN or infinite; export it again")
    low, high = float(hu.min()), float(hu.max())
    if low == high:
        raise ValueError(f"{name}: every voxel is {low}; a constant volume shows no patient")
    if low > AIR_BELOW_HU:
        raise ValueError(
            f"{name}: values within [{low:g}, {high:g}] never fall below {AIR_BELOW_HU:g}, so they are not HU (or this "
            "is a label map); apply the rescale slope and intercept, or exclude the file"
        )


def check_grid(affine: np.ndarray, shape: Sequence[int], name: str | Path) -> None:
    """Check that a grid with this affine ``[4, 4]`` can be that of a CT of a body.

    Raises:
        ValueError: the pitch of the voxels or the extent of the volume is that of no scanner.
    """
    pitches_mm = np.linalg.norm(affine[:3, :3], axis=0)
    extents_mm = pitches_mm * shape
    if pitches_mm.min() < PITCH_MM[0] or pitches_mm.max() > PITCH_MM[1] or extents_mm.max() > MAX_EXTENT_MM:
        raise ValueError(
            f"{name}: voxels of {_times(pitches_mm)} mm over {_times(extents_mm)} mm, expected {PITCH_MM[0]:g} to "
            f"{PITCH_MM[1]:g} mm over at most {MAX_EXTENT_MM:g} mm; correct the spacing, or export it again"
        )


def _times(numbers: Iterable[float]) -> str:
    return " x ".join(f"{number:g}" for number in numbers)
