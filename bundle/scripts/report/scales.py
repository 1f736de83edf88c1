"""Colour scales, pictures in them, and their legends."""

from __future__ import annotations

import base64
import io

import numpy as np
from matplotlib import colormaps
from PIL import Image

from scripts.report.document import Html, tag

STEPS = np.linspace(0, 1, 256)


def _colours(name: str) -> np.ndarray:
    return np.rint(255 * colormaps[name](STEPS)).astype(np.uint8)


def _growing_opaque(colours: np.ndarray) -> np.ndarray:
    """The same scale over something else: clear at its low end, opaque from its middle on."""
    colours[:, 3] = np.rint(255 * (2 * STEPS).clip(max=1))
    return colours


GREY = _colours("gray")
SIGNED = _colours("RdBu_r")
"""Blue below zero, white, red above."""
SPREAD = _growing_opaque(_colours("plasma"))


def coloured(values: np.ndarray, scale: np.ndarray, low: float, high: float) -> np.ndarray:
    """Values ``[rows, columns]`` in a scale ``[256, 4]`` from ``low`` to ``high``, as RGBA ``[rows, columns, 4]``."""
    steps = (values.astype(np.float64) - low) / (high - low) * 255
    return scale[np.floor(steps + 0.5).clip(0, 255).astype(np.uint8)]


def picture(pixels: np.ndarray, words: str) -> Html:
    """RGBA ``[rows, columns, 4]`` as an image element; ``words`` are for those who do not see it."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    rows, columns = pixels.shape[:2]
    source = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    return tag("img", src=source, alt=words, width=columns, height=rows)


def legend(words: str, scale: np.ndarray, low: str, high: str) -> Html:
    """A scale between the texts of its ends."""
    return tag("p", tag("span", words), tag("b", low), picture(scale[None], ""), tag("b", high), class_="legend")
