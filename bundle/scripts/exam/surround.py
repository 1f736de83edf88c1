"""Detection of a constant surround, such as a C-arm's round shutter, from the pixels."""

from __future__ import annotations

import math

import numpy as np
from scipy.ndimage import binary_dilation, binary_propagation

CORNERS = 3
"""Smallest number of a film's four corners in a surround; pixels clipped at one side are the patient, or metal."""
TOLERANCE = 0.01
"""Tolerance of a surround's values, as a fraction of the film's range."""
STEP, STEPS = 0.1, 0.5
"""Smallest step at a surround's edge, as a fraction of the film's range, and fraction of the edge that needs one."""
ROUND = 0.01
"""Largest root mean square distance of an edge from the fitted circle, as a fraction of its radius, plus one pixel."""
_BLUR = 3
"""Width of the step at the edge, in pixels."""


def inside_surround(pixels: np.ndarray) -> np.ndarray:
    """Return the mask inside a constant surround at the highest value, or a round one at the lowest; all if none.

    Air is also dark, constant and around the patient, but no patient is round.

    Args:
        pixels: image ``[rows, columns]``, increasing with attenuation.

    Returns:
        Boolean mask ``[rows, columns]``.
    """
    low, high = float(pixels.min()), float(pixels.max())
    bright, dark = (_surround(pixels, value, high - low) for value in (high, low))
    return ~(bright | (dark if _is_round(dark) else False))


def _surround(pixels: np.ndarray, value: float, span: float) -> np.ndarray:
    """Return the surround of this value with its blurred edge; empty if it covers too few corners or has no step."""
    nothing = np.zeros(pixels.shape, dtype=bool)
    alike = np.abs(pixels - value) <= TOLERANCE * span
    border = np.ones(pixels.shape, dtype=bool)
    border[1:-1, 1:-1] = False
    region = binary_propagation(border & alike, mask=alike)
    if region[[0, 0, -1, -1], [0, -1, 0, -1]].sum() < CORNERS:
        return nothing
    grown = binary_dilation(region, iterations=_BLUR)
    is_step = np.abs(pixels[_edge(grown)] - value) > STEP * span
    return grown if is_step.size and is_step.mean() >= STEPS else nothing


def _is_round(surround: np.ndarray) -> bool:
    """Return whether the inner edge is part of a circle, fitted by least squares to x^2 + y^2 = 2 a x + 2 b y + c."""
    points = np.argwhere(_edge(surround)).astype(np.float64)
    if len(points) < 3:
        return False
    equations = np.column_stack([2 * points, np.ones(len(points))])
    (y, x, c), *_ = np.linalg.lstsq(equations, (points**2).sum(axis=1), rcond=None)
    radius = math.sqrt(max(c + y**2 + x**2, 0.0))
    off = np.hypot(*(points - (y, x)).T) - radius
    return bool(math.sqrt(np.mean(off**2)) <= 1 + ROUND * radius and radius < max(surround.shape))


def _edge(surround: np.ndarray) -> np.ndarray:
    """Return the pixels just inside a surround."""
    return binary_dilation(surround) & ~surround
