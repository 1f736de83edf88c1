"""The skeletons of several volumes beside each other, for the first page of a document."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from scripts.report.figure import as_displayed
from scripts.report.panel import (
    NOTICE,
    Sheet,
    checked_spacing,
    checked_suffix,
    checked_volumes,
    mark,
    save_whole,
    wrapped,
)
from scripts.report.projection import BONE_WINDOW, PROJECTIONS

# Inches: the longest edge of a volume, the white between pictures, and a line of text.
TILE, GAP, LINE = 2.4, 0.06, 0.18


def draw_skeletons(path: str | Path, volumes: Mapping[str, np.ndarray], spacing_mm: float | Sequence[float]) -> None:
    """Save maximum-intensity projections, a column per volume and a row per view, as PNG, PDF or SVG by the suffix.

    Superior is up; the patient's right is on the left of frontal pictures, anterior on the left of lateral ones. All
    have the same scale in mm, and ``BONE_WINDOW``.

    Args:
        path: file to write; it appears whole or not at all.
        volumes: ``[U, V, W]`` in HU, by the name that stands above.
        spacing_mm: voxel spacing, one number or three (u, v, w).

    Raises:
        ValueError: a suffix, shape, value or spacing that cannot be drawn.
    """
    path = checked_suffix(path)
    save_whole(skeletons(volumes, spacing_mm), path)


def skeletons(volumes: Mapping[str, np.ndarray], spacing_mm: float | Sequence[float]) -> Figure:
    """The figure of :func:`draw_skeletons`; the label of each axes tells what it shows, e.g. ``"frontal, truth"``."""
    if not volumes:
        raise ValueError(f"a picture of skeletons needs at least one volume, got {volumes!r}; pass {{name: volume}}")
    volumes, spacing = checked_volumes(volumes), checked_spacing(spacing_mm)
    heads = [wrapped(name) for name in volumes]
    size = next(iter(volumes.values())).shape * spacing
    size *= TILE / size.max()
    left, top = 2 * LINE, (1.5 + max(head.count("\n") for head in heads)) * LINE
    width, bottom = len(volumes) * (TILE + GAP), top + len(PROJECTIONS) * (size[2] + GAP)
    note = "Maximum-intensity projections, {:g} to {:g} HU; ".format(*BONE_WINDOW) + f"{NOTICE}."
    lines = textwrap.wrap(note, int(18 * width))
    sheet = Sheet(left + width, bottom + (len(lines) + 0.2) * LINE)
    sheet.text(left, bottom, "\n".join(lines), 7, ha="left", va="top")
    for column, (head, (name, volume)) in enumerate(zip(heads, volumes.items(), strict=True)):
        middle = left + column * (TILE + GAP) + TILE / 2
        sheet.text(middle, top - LINE / 4, head, 10)
        for row, projection in enumerate(PROJECTIONS):
            y, across = top + row * (size[2] + GAP), size[projection.across]
            axes = sheet.axes(middle - across / 2, y, across, size[2], f"{projection.name}, {name}")
            axes.set_axis_off()
            low, high = BONE_WINDOW
            axes.imshow(as_displayed(projection.of(volume)), cmap="gray", vmin=low, vmax=high, aspect="auto")
            mark(axes, 0.03, 0.5, projection.left)
            if column == 0:
                sheet.text(1.6 * LINE, y + size[2] / 2, projection.name, 10, rotation=90, ha="right", va="center")
    return sheet.figure
