"""Colour scales, pictures in them, and their legends."""

from __future__ import annotations

import base64
import io
from typing import NamedTuple

import numpy as np
from matplotlib import colormaps
from PIL import Image

_SHARES = np.linspace(0, 1, 256)


def _colours(name: str) -> np.ndarray:
    return np.rint(255 * colormaps[name](_SHARES)).astype(np.uint8)


def _growing_opaque(colours: np.ndarray) -> np.ndarray:
    """Turn a scale into an overlay: transparent at its low end, opaque from its middle on."""
    colours[:, 3] = np.rint(255 * (2 * _SHARES).clip(max=1))
    return colours


GREY = _colours("gray")
"""Scale from black to white; like all scales an array of RGBA bytes ``[256, 4]``."""
SIGNED = _colours("RdBu_r")
"""Scale that is blue below zero, white at zero, and red above."""
SPREAD = _growing_opaque(_colours("plasma"))
"""Overlay for standard deviations."""
SUPPORT = _growing_opaque(_colours("viridis"))[::-1]
"""Overlay for the support by the films: transparent where they see all, bright and opaque where they see nothing."""


class Picture(NamedTuple):
    """Picture embedded in a page: ``source`` is a data URI, ``width`` and ``height`` are in pixels."""

    source: str
    width: int
    height: int


class Legend(NamedTuple):
    """Scale with the ``words`` above it and the texts of its two ends."""

    words: str
    low: str
    high: str
    bar: Picture


def coloured(values: np.ndarray, scale: np.ndarray, low: float, high: float) -> np.ndarray:
    """Show values ``[rows, columns]`` in a scale from ``low`` to ``high``, as RGBA bytes ``[rows, columns, 4]``."""
    steps = (values.astype(np.float64) - low) / (high - low) * 255
    return scale[np.floor(steps + 0.5).clip(0, 255).astype(np.uint8)]


def picture(pixels: np.ndarray) -> Picture:
    """Pack RGBA bytes ``[rows, columns, 4]`` as a PNG."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    rows, columns = pixels.shape[:2]
    return Picture("data:image/png;base64," + base64.b64encode(file.getvalue()).decode(), columns, rows)


def legend(words: str, scale: np.ndarray, low: str, high: str) -> Legend:
    """Describe a scale ``[256, 4]``."""
    return Legend(words, low, high, picture(scale[None]))
