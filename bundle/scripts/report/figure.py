"""One picture of one reconstruction: inputs, re-projections, their difference, and three slices."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

HU_WINDOW = (-1000.0, 600.0)


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
    anterior is on the left of lateral and sagittal ones.

    Args:
        path: file to write.
        hu: volume ``[U, V, W]``.
        measured: input line integrals ``[2, N, N]``; 0 everywhere for a view that was not given, which has no row.
        reprojected: line integrals of ``hu``, likewise.
        spacing_mm: voxel spacing, for the caption.
        title: name of the exam.
        truth: the true CT, for a further row of slices.
    """
    volumes = [("reconstruction", hu)] + ([("truth", truth)] if truth is not None else [])
    views = {"frontal": (measured[0], reprojected[0]), "lateral": (measured[1], reprojected[1])}
    given = {view: images for view, images in views.items() if images[0].any()}
    figure = Figure(figsize=(9.6, 3.3 * len(given) + 3.1 * len(volumes)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(given) + len(volumes), 3)
    brightest = float(measured.max())
    spread = max(*(float(np.abs(after - before).max()) for before, after in given.values()), 1e-6)
    for row, (view, (before, after)) in enumerate(given.items()):
        _show(figure, axes[row, 0], before, f"{view} input (line integral)", 0, brightest)
        _show(figure, axes[row, 1], after, f"{view} re-projection", 0, brightest)
        _show(figure, axes[row, 2], after - before, "difference", -spread, spread, "RdBu_r")
    u, v, w = (n // 2 for n in hu.shape)
    for row, (name, volume) in enumerate(volumes, start=len(given)):
        _show(figure, axes[row, 0], volume[:, :, w], f"{name}, axial (HU)", *HU_WINDOW)
        _show(figure, axes[row, 1], volume[:, v], f"{name}, coronal", *HU_WINDOW)
        _show(figure, axes[row, 2], volume[u], f"{name}, sagittal", *HU_WINDOW)
    size = " × ".join(str(n) for n in hu.shape)
    missing = "".join(f"; {view} view not given" for view in views.keys() - given)
    about = f"{title}: {size} voxels at {spacing_mm:g} mm{missing}"
    figure.suptitle(f"{about}\nsynthetic, NOT FOR DIAGNOSTIC USE", fontsize=10)
    figure.savefig(path, dpi=110)


def as_displayed(plane: np.ndarray) -> np.ndarray:
    """A plane or image ``[a, b]`` as rows and columns of a picture: b upwards, a from right to left."""
    return plane.T[::-1, ::-1]


def _show(figure, axis, plane: np.ndarray, label: str, low: float, high: float, colours: str = "gray") -> None:
    shown = axis.imshow(as_displayed(plane), cmap=colours, vmin=low, vmax=high, interpolation="nearest")
    axis.set_title(label, fontsize=9)
    axis.set_axis_off()
    figure.colorbar(shown, ax=axis, shrink=0.7).ax.tick_params(labelsize=7)
