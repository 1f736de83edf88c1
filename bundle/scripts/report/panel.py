"""One picture of one case: the radiographs, every method's planes with their errors and its skeleton, and the truth."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patheffects import withStroke

from scripts.report.figure import HU_WINDOW, as_displayed
from scripts.report.projection import BONE_WINDOW, PROJECTIONS

ERROR_HU = 500.0
"""Error maps span ±ERROR_HU in every panel, so that panels can be compared."""
NOTICE = "synthetic reconstructions, NOT FOR DIAGNOSTIC USE"
SUFFIXES = (".png", ".pdf", ".svg")


class Plane(NamedTuple):
    """A direction of cut: the axis cut through, the axes across and up the picture, and its left edge's letter."""

    name: str
    cut: int
    across: int
    up: int
    left: str

    def of(self, volume: np.ndarray) -> np.ndarray:
        """The plane ``[across, up]`` through the centre of ``volume``."""
        return volume.take(volume.shape[self.cut] // 2, axis=self.cut)


PLANES = (Plane("axial", 2, 0, 1, "R"), Plane("sagittal", 0, 1, 2, "A"), Plane("coronal", 1, 0, 2, "R"))
ROWS = (*PLANES, *PROJECTIONS)
"""What a column shows, from top to bottom; a plane has its error below it."""

# Inches: a volume's longest edge, the least and most for a radiograph, and the key below it.
TILE, RADIOGRAPH, KEY = 1.45, (2.4, 4.0), 2.4
# The white between pictures, rows, and at the edge; a line of text, and the longest word beside a row.
GAP, ROW_GAP, MARGIN, LINE, WORD = 0.05, 0.16, 0.15, 0.16, 0.55


def draw_panel(
    path: str | Path,
    image: np.ndarray,
    truth_hu: np.ndarray,
    reconstructions: Mapping[str, np.ndarray],
    spacing_mm: float | Sequence[float],
    title: str,
) -> None:
    """Save the comparison of one case as PNG, PDF or SVG, by the suffix of ``path``.

    From left to right: the two radiographs above the scales, one column per method, and the truth. From top to bottom:
    the axial, sagittal and coronal planes through the centre, and under each its signed error, reconstruction minus
    truth, with the mean absolute error of that plane; then the skeleton, as maximum-intensity projections (MIP) from
    the front and from the side.

    Superior is up; the patient's right is on the left of frontal, axial and coronal pictures, anterior on the left of
    lateral and sagittal ones. All planes and projections have the same scale in mm.

    Args:
        path: file to write; it appears whole or not at all.
        image: input line integrals ``[2, N, N]``, frontal and lateral.
        truth_hu: the true CT ``[U, V, W]``.
        reconstructions: volumes ``[U, V, W]`` in HU, by method.
        spacing_mm: voxel spacing, one number or three (u, v, w).
        title: name of the case.

    Raises:
        ValueError: a suffix, shape, value or spacing that cannot be drawn.
    """
    path = checked_suffix(path)
    save_whole(panel(image, truth_hu, reconstructions, spacing_mm, title), path)


def panel(
    image: np.ndarray,
    truth_hu: np.ndarray,
    reconstructions: Mapping[str, np.ndarray],
    spacing_mm: float | Sequence[float],
    title: str,
) -> Figure:
    """The figure of :func:`draw_panel`; the label of each axes tells what it shows, e.g. ``"axial error, ours"``."""
    if not reconstructions or "truth" in reconstructions:
        raise ValueError(
            f"reconstructions must name at least one method, and none 'truth', got {list(reconstructions)}; "
            "pass {method: volume}"
        )
    volumes, spacing = checked_volumes({"truth": truth_hu, **reconstructions}), checked_spacing(spacing_mm)
    image, truth = _checked_image(image), volumes.pop("truth")
    columns = {**volumes, "truth": truth}
    page = _Page(truth.shape, spacing, [wrapped(name) for name in columns], title)
    page.draw_radiographs(image)
    for column, (name, volume) in enumerate(columns.items()):
        for row, plane in enumerate(PLANES):
            hu = plane.of(volume)
            page.draw_plane(row, column, f"{plane.name}, {name}", hu)
            if name != "truth":
                page.draw_error(row, column, f"{plane.name} error, {name}", hu - plane.of(truth))
        for row, projection in enumerate(PROJECTIONS, start=len(PLANES)):
            page.draw_skeleton(row, column, f"{projection.name} MIP, {name}", projection.of(volume))
    page.draw_key(f"Line integrals from 0 (black) to {image.max():.3g} (white).")
    return page.figure


class Sheet:
    """A figure on which places are in inches from the top left corner.

    Args:
        width: of the figure.
        height: likewise.
    """

    def __init__(self, width: float, height: float) -> None:
        self.width, self.height, self.figure = width, height, Figure(figsize=(width, height))
        FigureCanvasAgg(self.figure)

    def axes(self, x: float, y: float, width: float, height: float, label: str) -> Axes:
        """Axes with the top left corner at (x, y)."""
        place = x / self.width, 1 - (y + height) / self.height, width / self.width, height / self.height
        return self.figure.add_axes(place, label=label)

    def text(self, x: float, y: float, text: str, size: float, **style: Any) -> None:
        """Words as they are: a dollar sign starts no formula."""
        style = {"ha": "center", "va": "bottom", "fontsize": size, "parse_math": False} | style
        self.figure.text(x / self.width, 1 - y / self.height, text, **style)


class _Page(Sheet):
    """A panel while it is drawn.

    Args:
        shape: of the volumes, (U, V, W).
        spacing: of their voxels in mm, (u, v, w).
        heads: names over the columns.
        title: first line of the figure.
    """

    def __init__(self, shape: tuple[int, ...], spacing: np.ndarray, heads: Sequence[str], title: str) -> None:
        self.shape, self.spacing = shape, spacing
        self.inch_per_mm = TILE / (shape * spacing).max()
        self.size = shape * spacing * self.inch_per_mm
        top = MARGIN + (3.5 + max(head.count("\n") for head in heads)) * LINE
        self.tall = [max(self.size[shown.up], WORD) for shown in ROWS]
        heights = [2 * tall + GAP if shown in PLANES else tall for shown, tall in zip(ROWS, self.tall, strict=True)]
        self.rows = top + np.cumsum([0.0, *(height + ROW_GAP for height in heights)])
        bottom = self.rows[-1] - ROW_GAP
        self.radiograph = float(np.clip((bottom - top - KEY - 3 * LINE) / 2, *RADIOGRAPH))
        self.key = top + 2 * self.radiograph + 3 * LINE
        left = MARGIN + self.radiograph + 2.5 * LINE
        self.columns = left + (TILE + GAP) * np.arange(len(heads))
        super().__init__(self.columns[-1] + TILE + MARGIN, max(bottom, self.key + KEY) + MARGIN)

        self.text(self.width / 2, MARGIN, f"{title}\n{NOTICE}", 10, va="top")
        for x, head in zip(self.columns, heads, strict=True):
            self.text(x + TILE / 2, top - LINE / 4, head, 9)
        for y, tall, shown in zip(self.rows, self.tall, ROWS, strict=False):
            words = (shown.name, "error") if shown in PLANES else (f"{shown.name}\nMIP",)
            for i, word in enumerate(words):
                middle = y + i * (tall + GAP) + tall / 2
                self.text(left - LINE / 4, middle, word, 9, rotation=90, ha="right", va="center")

    def draw_radiographs(self, image: np.ndarray) -> None:
        """The line integrals ``[2, N, N]``, one above the other."""
        for row, (view, edge) in enumerate((("frontal", "R"), ("lateral", "A"))):
            y = self.rows[0] + row * (self.radiograph + 2 * LINE)
            axes = self.axes(MARGIN, y, self.radiograph, self.radiograph, f"{view} radiograph")
            _show(axes, image[row], "gray", 0.0, float(image.max()))
            mark(axes, 0.03, 0.5, edge)
            self.text(MARGIN + self.radiograph / 2, y - LINE / 4, f"{view} radiograph", 9)

    def draw_plane(self, row: int, column: int, label: str, hu: np.ndarray) -> None:
        """A plane of a volume, in ``HU_WINDOW``."""
        axes = self.tile(row, column, 0, label)
        self.tissue = _show(axes, hu, "gray", *HU_WINDOW)
        mark(axes, 0.03, 0.5, ROWS[row].left)

    def draw_skeleton(self, row: int, column: int, label: str, hu: np.ndarray) -> None:
        """A maximum-intensity projection of a volume, in ``BONE_WINDOW``."""
        axes = self.tile(row, column, 0, label)
        _show(axes, hu, "gray", *BONE_WINDOW)
        mark(axes, 0.03, 0.5, ROWS[row].left)

    def draw_error(self, row: int, column: int, label: str, difference: np.ndarray) -> None:
        """A plane's error under it, with the mean absolute value in the corner."""
        axes = self.tile(row, column, 1, label)
        self.error = _show(axes, difference, "RdBu_r", -ERROR_HU, ERROR_HU)
        mark(axes, 0.97, 0.06, f"{np.abs(difference).mean():.0f}", "black", "white", ha="right")

    def draw_key(self, note: str) -> None:
        """The scales, and what else a reader must know."""
        scales = ("CT number (HU)", self.tissue), ("reconstruction − truth (HU)", self.error)
        for y, (label, shown) in zip((self.key + LINE, self.key + 4.4 * LINE), scales, strict=True):
            bar, ticks = self.axes(MARGIN, y, self.radiograph, 0.1, label), np.linspace(*shown.get_clim(), 5)
            self.figure.colorbar(shown, cax=bar, orientation="horizontal", extend="both", ticks=ticks)
            bar.tick_params(labelsize=7)
            self.text(MARGIN + self.radiograph / 2, y - LINE / 4, label, 8)
        length_mm = 10.0 ** np.floor(np.log10((self.shape * self.spacing).max()))
        ruler = self.axes(MARGIN, self.key + 6.9 * LINE, length_mm * self.inch_per_mm, 0.04, "ruler")
        ruler.set(xticks=[], yticks=[], facecolor="black")
        voxels, edges = (" × ".join(f"{n:g}" for n in numbers) for numbers in (self.shape, self.spacing))
        notes = (
            f"The bar is {length_mm:g} mm long in every plane and MIP.",
            f"Planes through the centre of {voxels} voxels of {edges} mm.",
            "R: patient's right. A: anterior. Superior is up.",
            "Corners: mean absolute error of the plane (HU).",
            "MIP: the largest CT number on each line of sight, from {:g} (black) to {:g} HU (white).".format(
                *BONE_WINDOW
            ),
            note,
        )
        lines = [line for note in notes for line in textwrap.wrap(note, int(18 * self.radiograph))]
        self.text(MARGIN, self.key + 7.4 * LINE, "\n".join(lines), 7, ha="left", va="top")

    def tile(self, row: int, column: int, below: int, label: str) -> Axes:
        """Axes of a plane or projection, or of the picture ``below`` it."""
        width, height = self.size[ROWS[row].across], self.size[ROWS[row].up]
        x, y = self.columns[column], self.rows[row] + below * (self.tall[row] + GAP)
        return self.axes(x + (TILE - width) / 2, y + (self.tall[row] - height) / 2, width, height, label)


def _show(axes: Axes, plane: np.ndarray, colours: str, low: float, high: float) -> AxesImage:
    axes.set_axis_off()
    return axes.imshow(as_displayed(plane), cmap=colours, vmin=low, vmax=high, aspect="auto")


def mark(axes: Axes, x: float, y: float, text: str, colour: str = "white", edge: str = "black", **style: Any) -> None:
    """Small outlined words on a picture, at (x, y) of its width and height."""
    style = {"fontsize": 7, "va": "center", "path_effects": [withStroke(linewidth=1.5, foreground=edge)]} | style
    axes.text(x, y, text, color=colour, transform=axes.transAxes, **style)


def _checked_image(image: np.ndarray) -> np.ndarray:
    image = np.asarray(image, dtype=np.float32)
    if image.ndim != 3 or len(image) != 2 or image.shape[1] != image.shape[2] or image.size == 0:
        raise ValueError(f"image must be [2, N, N], got {list(image.shape)}; pass the frontal and lateral radiograph")
    if not np.isfinite(image).all():
        raise ValueError(f"image holds {np.sum(~np.isfinite(image))} NaN or infinite values; pass finite ones")
    return image


def checked_volumes(volumes: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Finite volumes as float32, all of the shape ``[U, V, W]`` that the first one has."""
    arrays = {name: np.asarray(volume, dtype=np.float32) for name, volume in volumes.items()}
    shape = next(iter(arrays.values())).shape
    for name, array in arrays.items():
        if array.ndim != 3 or array.size == 0:
            raise ValueError(f"{name!r} must be a volume [U, V, W], got {list(array.shape)}; drop its other axes")
        if array.shape != shape:
            raise ValueError(f"{name!r} has shape {array.shape}, the first volume {shape}; resample to one grid")
        if not np.isfinite(array).all():
            raise ValueError(f"{name!r} holds {np.sum(~np.isfinite(array))} NaN or infinite values; leave it out")
    return arrays


def checked_spacing(spacing_mm: float | Sequence[float]) -> np.ndarray:
    """The spacing in mm as three positive numbers (u, v, w)."""
    spacing = np.asarray(spacing_mm, dtype=float)
    if spacing.shape not in ((), (3,)) or not (np.isfinite(spacing) & (spacing > 0)).all():
        raise ValueError(f"spacing_mm must be one or three positive numbers, got {spacing_mm!r}; pass e.g. 2.0")
    return np.broadcast_to(spacing, 3)


def checked_suffix(path: str | Path) -> Path:
    """The path of a picture in a format that can be written."""
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{path} ends in {path.suffix!r}, which is none of {', '.join(SUFFIXES)}; rename it")
    return path


def wrapped(name: str, width: int = 18) -> str:
    """A name on lines of at most ``width`` characters; an underscore may end a line, as a hyphen may."""
    return "\n".join(textwrap.wrap(name.replace("_", "_ "), width)).replace("_ ", "_")


def save_whole(figure: Figure, path: Path) -> None:
    """Write a figure to a file that appears whole or not at all; a PDF holds its fonts as journals ask (type 42)."""
    partial = path.with_name(f".partial-{os.getpid()}-{path.name}")
    try:
        with rc_context({"pdf.fonttype": 42}):
            figure.savefig(partial, dpi=150)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
