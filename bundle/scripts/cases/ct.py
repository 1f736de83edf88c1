"""A CT volume in Hounsfield units, and its plausibility check."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

AIR_BELOW_HU = -200.0
"""Every CT of a body shows air or lung below this value; a volume that never does is not in HU."""


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
