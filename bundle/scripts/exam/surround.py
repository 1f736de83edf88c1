"""A constant surround, such as a C-arm's round shutter, found by sight."""

from __future__ import annotations

import math

import numpy as np
from scipy.ndimage import binary_dilation, binary_propagation

CORNERS = 3
"""Of a film's four, that a surround covers at least: what is clipped at one side is the patient, or metal."""
TOLERANCE = 0.01
"""Of a surround's values, as a share of the film's range."""
STEP, STEPS = 0.1, 0.5
"""At a surround's edge, as a share of the film's range; and the share of the edge where it must be one."""
ROUND = 0.01
"""Root mean square distance of a circle's edge to the fitted circle, as a share of its radius, beside one pixel."""
_BLUR = 3
"""Pixels within which the edge is a step."""


def inside_surround(pixels: np.ndarray) -> np.ndarray:
    """The pixels inside a constant surround at the highest value, or a round one at the lowest; all if there is none.

    Air is dark, constant and around the patient as well, but no patient is round.

    Args:
        pixels: ``[rows, columns]``, growing with attenuation.

    Returns:
        bool ``[rows, columns]``.
    """
    low, high = float(pixels.min()), float(pixels.max())
    bright, dark = (_surround(pixels, value, high - low) for value in (high, low))
    return ~(bright | (dark if _is_round(dark) else False))


def _surround(pixels: np.ndarray, value: float, span: float) -> np.ndarray:
    """The surround of this value and its blurred edge; nothing if it covers too few corners or ends without a step."""
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
    """Whether the inner edge is part of a circle, fitted by least squares to x^2 + y^2 = 2 a x + 2 b y + c."""
    points = np.argwhere(_edge(surround)).astype(np.float64)
    if len(points) < 3:
        return False
    equations = np.column_stack([2 * points, np.ones(len(points))])
    (y, x, c), *_ = np.linalg.lstsq(equations, (points**2).sum(axis=1), rcond=None)
    radius = math.sqrt(max(c + y**2 + x**2, 0.0))
    off = np.hypot(*(points - (y, x)).T) - radius
    return bool(math.sqrt(np.mean(off**2)) <= 1 + ROUND * radius and radius < max(surround.shape))


def _edge(surround: np.ndarray) -> np.ndarray:
    """The pixels just inside a surround."""
    return binary_dilation(surround) & ~surround
