"""Anti-aliasing: smoothing before an image or a volume is sampled at larger pixels."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter


def smoothed(values: np.ndarray, wider: np.ndarray, mode: str) -> np.ndarray:
    """Smooth values by a Gaussian with the variance that a box of the new pixel size adds to one of the old size.

    Args:
        values: array of any dimension.
        wider: size of the new pixels in old ones along each axis; up to 1, nothing is smoothed.
        mode: how values continue beyond the edge, see ``scipy.ndimage.gaussian_filter``.
    """
    # a box of n pixels has the variance n^2 / 12
    return gaussian_filter(values, np.sqrt(np.maximum(wider**2 - 1, 0) / 12), mode=mode)
