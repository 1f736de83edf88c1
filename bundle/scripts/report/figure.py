"""One picture of one reconstruction: inputs, re-projections, their difference, three slices, and the skeleton."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.image import AxesImage

from scripts.report.mip import BONE_WINDOW, PROJECTIONS
from scripts.report.planes import HU_WINDOW, as_displayed

# Heights in inches: a row of radiographs, a row of a volume's pictures, and the title.
VIEW_INCHES, VOLUME_INCHES, TITLE_INCHES = 3.2, 2.3, 0.5


def draw_reconstruction(
    path: str | Path,
    hu: np.ndarray,
    measured: np.ndarray,
    reprojected: np.ndarray,
    spacing_mm: float,
    title: str,
    truth: np.ndarray | None = None,
) -> None:
    """Save the picture as PNG.

    Superior is up; the patient's right is on the left of frontal, coronal and axial images, as radiologists read them;
    anterior is on the left of lateral and sagittal ones. Maximum-intensity projections (MIP) show the skeleton.

    Args:
        path: file to write.
        hu: volume ``[U, V, W]``.
        measured: input line integrals ``[2, N, N]``; a missing view is 0 everywhere, and has no row.
        reprojected: line integrals of ``hu``, ``[2, N, N]``.
        spacing_mm: voxel spacing, for the caption.
        title: name of the exam.
        truth: the true CT ``[U, V, W]``, if known, for a further row.
    """
    volumes = {"reconstruction": hu} | ({} if truth is None else {"truth": truth})
    views = {"frontal": (measured[0], reprojected[0]), "lateral": (measured[1], reprojected[1])}
    given = {view: images for view, images in views.items() if images[0].any()}
    heights = VIEW_INCHES * len(given), VOLUME_INCHES * len(volumes)
    figure = Figure(figsize=(11.5, sum(heights) + TITLE_INCHES), layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=heights)
    _draw_views(upper, given, float(measured.max(initial=1e-6)))
    _draw_volumes(lower, volumes)
    size = " × ".join(str(n) for n in hu.shape)
    missing = "".join(f"; {view} view not given" for view in views.keys() - given)
    about = f"{title}: {size} voxels at {spacing_mm:g} mm{missing}"
    figure.suptitle(f"{about}\nsynthetic, NOT FOR DIAGNOSTIC USE", fontsize=10, parse_math=False)
    figure.savefig(path, dpi=110)


def _draw_views(figure: SubFigure, given: Mapping[str, tuple[np.ndarray, np.ndarray]], brightest: float) -> None:
    """Draw a row per radiograph: the measured one, the re-projected one, and their difference."""
    spread = max(*(float(np.abs(after - before).max()) for before, after in given.values()), 1e-6)
    axes = figure.subplots(len(given), 3, squeeze=False)
    for row, (view, (before, after)) in zip(axes, given.items(), strict=True):
        first = _show(row[0], before, f"{view} input (line integral)", 0, brightest)
        _show(row[1], after, f"{view} re-projection", 0, brightest)
        _add_scale(figure, first, row[:2])
        _add_scale(figure, _show(row[2], after - before, "difference", -spread, spread, "RdBu_r"), row[2:])


def _draw_volumes(figure: SubFigure, volumes: Mapping[str, np.ndarray]) -> None:
    """Draw a row per volume: the three central slices, and the skeleton from the front and from the side."""
    axes = figure.subplots(len(volumes), 3 + len(PROJECTIONS), squeeze=False)
    for row, (name, volume) in zip(axes, volumes.items(), strict=True):
        u, v, w = (n // 2 for n in volume.shape)
        first = _show(row[0], volume[:, :, w], f"{name}, axial (HU)", *HU_WINDOW)
        _show(row[1], volume[:, v], "coronal", *HU_WINDOW)
        _show(row[2], volume[u], "sagittal", *HU_WINDOW)
        _add_scale(figure, first, row[:3])
        for axis, projection in zip(row[3:], PROJECTIONS, strict=True):
            last = _show(axis, projection.of(volume), f"{projection.name} MIP, bone window", *BONE_WINDOW)
        _add_scale(figure, last, row[3:])


def _show(axis: Axes, plane: np.ndarray, label: str, low: float, high: float, colours: str = "gray") -> AxesImage:
    # A fixed title and no ticks: the layout engine would measure them, although they do not show.
    axis.set_title(label, fontsize=9, y=1.0)
    axis.set(xticks=(), yticks=())
    axis.set_axis_off()
    return axis.imshow(as_displayed(plane), cmap=colours, vmin=low, vmax=high, interpolation="nearest")


def _add_scale(figure: SubFigure, shown: AxesImage, axes: Sequence[Axes]) -> None:
    """Add the scale of ``shown`` to the right of all the pictures that share it."""
    figure.colorbar(shown, ax=axes, shrink=0.8, fraction=0.15, aspect=25, pad=0.02).ax.tick_params(labelsize=7)
