"""Both radiographs on a page: the film, the network's input, the re-projection, and their difference."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from scripts.report.checks import checked_film, checked_radiographs
from scripts.report.planes import as_displayed
from scripts.report.scales import GREY, SIGNED, Legend, Picture, coloured, legend, picture

FILM_PIXELS = 512
"""Largest number of pixels along each side of a film on a page."""
LETTERS = {"frontal": {"left": "R", "right": "L"}, "lateral": {"left": "A", "right": "P"}}
"""Letters at the sides of a radiograph, and of any picture along its direction."""


class Tile(NamedTuple):
    """Captioned picture with the letters at its sides and its CSS classes."""

    words: str
    picture: Picture
    letters: Mapping[str, str]
    style: str


class View(NamedTuple):
    """One radiograph; a missing view has no tiles."""

    name: str
    tiles: Sequence[Tile]


class Radiographs(NamedTuple):
    """Both views, and the legends of their scales."""

    views: Sequence[View]
    legends: Sequence[Legend]


def radiographs(images: Mapping[str, np.ndarray]) -> Radiographs:
    """Prepare the radiographs of a page.

    Args:
        images: see :func:`scripts.report.page.write_page`.

    Raises:
        ValueError: an image has another shape, or NaN or infinite values.
    """
    measured, reprojected = (checked_radiographs(name, images[name]) for name in ("measured", "reprojected"))
    if reprojected.shape != measured.shape:
        raise ValueError(
            f"'reprojected' must be {list(measured.shape)} as 'measured', got {list(reprojected.shape)}; project onto "
            "the same detector"
        )
    given = [bool(image.any()) for image in measured]
    difference = reprojected - measured
    brightest = float(measured.max(initial=1e-6))
    spread = float(np.abs(difference[given]).max(initial=1e-6))
    shown = (
        ("network input", measured, GREY, 0.0, brightest, "tile"),
        ("re-projection", reprojected, GREY, 0.0, brightest, "tile"),
        ("difference", difference, SIGNED, -spread, spread, "tile light"),
    )
    views = []
    for index, (view, letters) in enumerate(LETTERS.items()):
        name = view.capitalize()
        tiles = [_film(f"{name} film as read", images, f"{view}_film")] if f"{view}_film" in images else []
        tiles += [
            Tile(f"{name} {words}", picture(coloured(as_displayed(image[index]), scale, low, high)), letters, style)
            for words, image, scale, low, high, style in shown
        ]
        views.append(View(name, tiles if given[index] else ()))
    legends = (
        legend("Line integral", GREY, "0", f"{brightest:.3g}"),
        legend("Re-projection − input (line integral)", SIGNED, f"−{spread:.2g}", f"{spread:.2g}"),
    )
    return Radiographs(views, legends)


def _film(words: str, images: Mapping[str, np.ndarray], name: str) -> Tile:
    """Show a film in grey between its 1st and 99th percentile, no larger than :data:`FILM_PIXELS`."""
    pixels = checked_film(name, images[name])
    every = math.ceil(max(pixels.shape) / FILM_PIXELS)
    low, high = np.percentile(pixels, (1, 99))
    grey = coloured(pixels[::every, ::every], GREY, low, max(high, low + 1e-6))
    return Tile(words, picture(grey), {}, "tile")
