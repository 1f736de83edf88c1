"""Reliability diagram: measured against nominal coverage of intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from scripts.report.saving import save_whole


def draw_reliability(
    path: str | Path, levels: Sequence[float], coverages: Mapping[str, np.ndarray], title: str
) -> None:
    """Save a reliability diagram.

    The diagonal is perfect calibration. Intervals are too narrow (overconfident) where a curve is below it, and too
    wide where it is above.

    Args:
        path: file to write atomically, PNG, PDF or SVG by its suffix.
        levels: nominal coverages ``[L]`` in [0, 1].
        coverages: measured coverages ``[cases, L]`` by name; dots show their mean, a thin line each case.
        title: title of the picture.

    Raises:
        ValueError: the suffix is unknown, or coverages do not belong to the levels.
    """
    figure = Figure(figsize=(4.6, 4.8), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="black", linewidth=0.8, linestyle="--", label="perfect")
    for index, (name, values) in enumerate(coverages.items()):
        cases = np.asarray(values, dtype=float)
        if cases.ndim != 2 or cases.shape[1] != len(levels) or not len(cases):
            raise ValueError(
                f"{name!r}: coverages must be [cases, {len(levels)} levels], got {list(cases.shape)}; "
                "pass a row per case"
            )
        colour = f"C{index}"
        axes.plot(levels, cases.T, color=colour, linewidth=0.6, alpha=0.5)
        axes.plot(levels, cases.mean(0), color=colour, marker="o", markersize=3, label=name)
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", xlabel="nominal coverage of the interval")
    axes.set_ylabel("share of voxels whose truth is inside")
    axes.grid(linewidth=0.3)
    axes.legend(loc="upper left", fontsize=8)
    axes.set_title(title, fontsize=9)
    save_whole(figure, path)
