"""One picture of one case: the radiographs, every method's planes with their errors and its skeleton, and the truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from scripts.report.checks import checked_radiographs, checked_spacing, checked_volumes
from scripts.report.mip import BONE_WINDOW, PROJECTIONS, Projection
from scripts.report.planes import ERROR_HU, HU_WINDOW, PLANES, Plane
from scripts.report.saving import save_whole
from scripts.report.sheet import LINE, NOTICE, Sheet, head_height, mark, note_lines, show

ROWS: tuple[Plane | Projection, ...] = (*PLANES, *PROJECTIONS)
"""Content of a column from top to bottom; each plane has its error below it."""

# Inches: a volume's longest edge, the smallest and largest radiograph, and the key below the radiographs.
EDGE, RADIOGRAPH, KEY = 1.45, (2.4, 4.0), 2.4
# Inches: the gaps between pictures and between rows, the margin of the page, and the longest word left of a row.
GAP, ROW_GAP, MARGIN, WORD = 0.05, 0.16, 0.15, 0.55


def draw_panel(
    path: str | Path,
    image: np.ndarray,
    truth_hu: np.ndarray,
    reconstructions: Mapping[str, np.ndarray],
    spacing_mm: float | Sequence[float],
    title: str,
) -> None:
    """Save the comparison of one case.

    From left to right: the two radiographs above the scales, one column per method, and the truth. From top to bottom:
    the axial, sagittal and coronal planes through the centre, and under each its signed error, reconstruction minus
    truth, with the mean absolute error of that plane; then maximum-intensity projections (MIP) of the skeleton from the
    front and from the side.

    Superior is up; the patient's right is on the left of frontal, axial and coronal pictures, anterior on the left of
    lateral and sagittal ones. All planes and projections have the same scale in mm.

    Args:
        path: file to write atomically, PNG, PDF or SVG by its suffix.
        image: input line integrals ``[2, N, N]``, frontal and lateral.
        truth_hu: the true CT ``[U, V, W]``.
        reconstructions: volumes ``[U, V, W]`` in HU, by method.
        spacing_mm: voxel spacing, one number or three (u, v, w).
        title: name of the case.

    Raises:
        ValueError: a suffix, shape, value or spacing cannot be drawn, or there is no method, or one named ``truth``.
    """
    save_whole(panel(image, truth_hu, reconstructions, spacing_mm, title), path)


def panel(
    image: np.ndarray,
    truth_hu: np.ndarray,
    reconstructions: Mapping[str, np.ndarray],
    spacing_mm: float | Sequence[float],
    title: str,
) -> Figure:
    """Return the figure of :func:`draw_panel`; axes have labels such as ``"axial error, ours"``."""
    if not reconstructions or "truth" in reconstructions:
        raise ValueError(
            f"reconstructions must name at least one method, and none 'truth', got {list(reconstructions)}; "
            "pass {method: volume}"
        )
    volumes, image = checked_volumes({"truth": truth_hu, **reconstructions}), checked_radiographs("image", image)
    truth = volumes.pop("truth")
    columns = {**volumes, "truth": truth}
    page = _Page(truth.shape, checked_spacing(spacing_mm), list(columns), title)
    page.draw_radiographs(image)
    for column, (name, volume) in enumerate(columns.items()):
        page.draw_volume(column, name, volume)
        if name != "truth":
            page.draw_errors(column, name, volume, truth)
    page.draw_scales()
    page.draw_notes(f"Line integrals from 0 (black) to {image.max():.3g} (white).")
    return page.figure


class _Page(Sheet):
    """Panel under construction.

    Args:
        shape: shape of the volumes, (U, V, W).
        spacing: voxel spacing in mm, (u, v, w).
        names: names of the columns.
        title: first line of the figure.
    """

    def __init__(self, shape: tuple[int, ...], spacing: np.ndarray, names: Sequence[str], title: str) -> None:
        self.shape, self.spacing, self.size_mm = shape, spacing, np.multiply(shape, spacing)
        self.inch_per_mm = EDGE / self.size_mm.max()
        self.size = self.size_mm * self.inch_per_mm
        self.top = MARGIN + 2 * LINE + head_height(names)
        self.tall = [max(self.size[shown.up], WORD) for shown in ROWS]
        heights = [2 * tall + GAP if shown in PLANES else tall for shown, tall in zip(ROWS, self.tall, strict=True)]
        self.rows = self.top + np.cumsum([0.0, *(height + ROW_GAP for height in heights)])
        bottom = self.rows[-1] - ROW_GAP
        self.radiograph = float(np.clip((bottom - self.top - KEY - 3 * LINE) / 2, *RADIOGRAPH))
        self.key = self.top + 2 * self.radiograph + 3 * LINE
        self.left = MARGIN + self.radiograph + 2.5 * LINE
        self.columns = self.left + (EDGE + GAP) * np.arange(len(names))
        super().__init__(self.columns[-1] + EDGE + MARGIN, max(bottom, self.key + KEY) + MARGIN)
        self._write_names(names, title)

    def _write_names(self, names: Sequence[str], title: str) -> None:
        self.text(self.width / 2, MARGIN, f"{title}\n{NOTICE}", 10, va="top")
        for x, name in zip(self.columns, names, strict=True):
            self.head(x + EDGE / 2, self.top, name)
        for y, tall, shown in zip(self.rows[:-1], self.tall, ROWS, strict=True):
            words = (shown.name, "error") if shown in PLANES else (f"{shown.name}\nMIP",)
            for i, word in enumerate(words):
                self.row_name(self.left, y + i * (tall + GAP) + tall / 2, word)

    def draw_radiographs(self, image: np.ndarray) -> None:
        """Draw the line integrals ``[2, N, N]``, one above the other."""
        for row, projection in enumerate(PROJECTIONS):
            y, label = self.top + row * (self.radiograph + 2 * LINE), f"{projection.name} radiograph"
            axes = self.axes(MARGIN, y, self.radiograph, self.radiograph, label)
            show(axes, image[row], "gray", 0.0, float(image.max()))
            mark(axes, 0.03, 0.5, projection.left)
            self.text(MARGIN + self.radiograph / 2, y - LINE / 4, label, 9)

    def draw_volume(self, column: int, name: str, hu: np.ndarray) -> None:
        """Draw the planes and projections of a volume."""
        for row, shown in enumerate(ROWS):
            kind, window = (shown.name, HU_WINDOW) if shown in PLANES else (f"{shown.name} MIP", BONE_WINDOW)
            axes = self._tile(row, column, 0, f"{kind}, {name}")
            show(axes, shown.of(hu), "gray", *window)
            mark(axes, 0.03, 0.5, shown.left)

    def draw_errors(self, column: int, name: str, hu: np.ndarray, truth: np.ndarray) -> None:
        """Draw the error under each plane, with its mean absolute value in the corner."""
        for row, plane in enumerate(PLANES):
            axes, error = self._tile(row, column, 1, f"{plane.name} error, {name}"), plane.of(hu) - plane.of(truth)
            show(axes, error, "RdBu_r", -ERROR_HU, ERROR_HU)
            mark(axes, 0.97, 0.06, f"{np.abs(error).mean():.0f}", "black", "white", ha="right")

    def draw_scales(self) -> None:
        """Draw the colour scales, and the ruler of planes and projections."""
        self._scale(self.key + LINE, "CT number (HU)", "gray", *HU_WINDOW)
        self._scale(self.key + 4.4 * LINE, "reconstruction − truth (HU)", "RdBu_r", -ERROR_HU, ERROR_HU)
        ruler = self.axes(MARGIN, self.key + 6.9 * LINE, self._ruler_mm() * self.inch_per_mm, 0.04, "ruler")
        ruler.set(xticks=[], yticks=[], facecolor="black")

    def draw_notes(self, note: str) -> None:
        """Write the notes, with ``note`` last."""
        voxels, edges = (" × ".join(f"{n:g}" for n in numbers) for numbers in (self.shape, self.spacing))
        low, high = BONE_WINDOW
        notes = (
            f"The bar is {self._ruler_mm():g} mm long in every plane and MIP.",
            f"Planes cut the centre of {voxels} voxels of {edges} mm.",
            "R: patient's right. A: anterior. Superior is up.",
            "Corners: mean absolute error of the plane (HU).",
            f"MIP: the largest CT number on each line of sight, from {low:g} (black) to {high:g} HU (white).",
            note,
        )
        self.notes(MARGIN, self.key + 7.4 * LINE, note_lines(notes, self.radiograph))

    def _tile(self, row: int, column: int, below: int, label: str) -> Axes:
        """Add axes for a plane or projection, or, with ``below`` 1, for the picture under it."""
        width, height = self.size[ROWS[row].across], self.size[ROWS[row].up]
        x, y = self.columns[column], self.rows[row] + below * (self.tall[row] + GAP)
        return self.axes(x + (EDGE - width) / 2, y + (self.tall[row] - height) / 2, width, height, label)

    def _scale(self, y: float, label: str, colours: str, low: float, high: float) -> None:
        bar = self.axes(MARGIN, y, self.radiograph, 0.1, label)
        scale, ticks = ScalarMappable(Normalize(low, high), colours), np.linspace(low, high, 5)
        self.figure.colorbar(scale, cax=bar, orientation="horizontal", extend="both", ticks=ticks)
        bar.tick_params(labelsize=7)
        self.text(MARGIN + self.radiograph / 2, y - LINE / 4, label, 8)

    def _ruler_mm(self) -> float:
        """Return the largest power of ten that fits into a volume."""
        return float(10.0 ** np.floor(np.log10(self.size_mm.max())))
