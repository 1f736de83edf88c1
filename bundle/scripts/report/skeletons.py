"""The skeletons of several volumes side by side, for the first page of a document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from scripts.report.checks import checked_spacing, checked_volumes
from scripts.report.grid import Tile, grid
from scripts.report.mip import BONE_WINDOW, PROJECTIONS, Projection
from scripts.report.saving import save_whole
from scripts.report.sheet import NOTICE, mark, show

EDGE = 2.4
"""Inches of the longest edge of a volume."""


def draw_skeletons(path: str | Path, volumes: Mapping[str, np.ndarray], spacing_mm: float | Sequence[float]) -> None:
    """Save maximum-intensity projections with a column per volume and a row per view.

    Superior is up; the patient's right is on the left of frontal pictures, anterior on the left of lateral ones. All
    pictures have the same scale in mm, and show ``BONE_WINDOW``.

    Args:
        path: file to write atomically, PNG, PDF or SVG by its suffix.
        volumes: ``[U, V, W]`` in HU, by the name shown above.
        spacing_mm: voxel spacing, one number or three (u, v, w).

    Raises:
        ValueError: a suffix, shape, value or spacing cannot be drawn.
    """
    save_whole(skeletons(volumes, spacing_mm), path)


def skeletons(volumes: Mapping[str, np.ndarray], spacing_mm: float | Sequence[float]) -> Figure:
    """Return the figure of :func:`draw_skeletons`; axes have labels such as ``"frontal, truth"``."""
    volumes, spacing = checked_volumes(volumes), checked_spacing(spacing_mm)
    size = next(iter(volumes.values())).shape * spacing
    size *= EDGE / size.max()

    def tile(projection: Projection, hu: np.ndarray) -> Tile:
        return Tile(size[projection.across], size[projection.up], partial(_draw, projection=projection, hu=hu))

    columns = {
        name: {projection.name: tile(projection, hu) for projection in PROJECTIONS} for name, hu in volumes.items()
    }
    low, high = BONE_WINDOW
    return grid(columns, [f"Maximum-intensity projections, {low:g} to {high:g} HU; {NOTICE}."])


def _draw(axes: Axes, projection: Projection, hu: np.ndarray) -> None:
    show(axes, projection.of(hu), "gray", *BONE_WINDOW)
    mark(axes, 0.03, 0.5, projection.left)
