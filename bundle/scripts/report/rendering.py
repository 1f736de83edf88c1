"""Skin, bone and metal of several volumes in three dimensions, side by side.

Networks output at most 1500 HU, which is below the threshold of metal: only true CTs show metal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from scripts.report.checks import checked_spacing, checked_volumes
from scripts.report.grid import Tile, grid
from scripts.report.raycasting import BONE, METAL, SKIN, render
from scripts.report.saving import save_whole
from scripts.report.sheet import NOTICE, mark

VIEWS = {"frontal": 0.0, "oblique": 40.0}
"""Angles of the eye in degrees from the front of the patient towards the patient's left."""
PIXELS = 256
"""Pixels along the longest edge of a volume."""
EDGE = 1.7
"""Inches of the longest edge of a volume."""


def draw_rendering(path: str | Path, volumes: Mapping[str, np.ndarray], spacing_mm: float | Sequence[float]) -> None:
    """Save a picture with a column per volume and a row per view.

    Superior is up; the patient's right is on the left. Skin is translucent, and metal shines through bone. All volumes
    have the same scale in mm. A volume that lacks a surface is drawn without it.

    Args:
        path: file to write atomically, PNG, PDF or SVG by its suffix.
        volumes: ``[U, V, W]`` in HU, by the name shown above.
        spacing_mm: voxel spacing, one number or three (u, v, w).

    Raises:
        ValueError: a suffix, shape, value or spacing cannot be drawn.
    """
    save_whole(rendering(volumes, spacing_mm), path)


def rendering(volumes: Mapping[str, np.ndarray], spacing_mm: float | Sequence[float]) -> Figure:
    """Return the figure of :func:`draw_rendering`; axes have labels such as ``"oblique, truth"``."""
    volumes, spacing = checked_volumes(volumes), checked_spacing(spacing_mm)
    columns: dict[str, dict[str, Tile]] = {name: {} for name in volumes}
    for view, degrees in VIEWS.items():
        pictures = _trimmed([render(hu, spacing, degrees, PIXELS) for hu in volumes.values()])
        for tiles, picture in zip(columns.values(), pictures, strict=True):
            tiles[view] = _tile(picture)
    key = (
        f"Skin (translucent): −{-SKIN.threshold_hu:g} HU. Bone: {BONE.threshold_hu:g} HU. Metal (red): "
        f"{METAL.threshold_hu:g} HU, more than a reconstruction can reach. R: patient's right."
    )
    return grid(columns, [key, NOTICE])


def _tile(picture: np.ndarray) -> Tile:
    height, width = np.array(picture.shape[:2]) * EDGE / PIXELS
    return Tile(width, height, partial(_draw, picture=picture))


def _draw(axes: Axes, picture: np.ndarray) -> None:
    axes.imshow(picture, aspect="auto")
    axes.set_axis_off()
    mark(axes, 0.03, 0.5, "R", "black", "white")


def _trimmed(pictures: list[np.ndarray]) -> list[np.ndarray]:
    """Cut off the columns at the left and right that are white in all pictures."""
    used = np.flatnonzero((np.array(pictures) < 1).any(axis=(0, 1, 3)))
    return [picture[:, used[0] : used[-1] + 1] for picture in pictures] if len(used) else pictures
