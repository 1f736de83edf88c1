"""Page of a sweep: readers choose a method and a case, and see slices, errors, volumes and measurements."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from scripts.report.checks import checked_affine, checked_volumes
from scripts.report.document import document
from scripts.report.slice_viewer import chosen_slices, packed_volume
from scripts.report.volume_viewer import VolumeView

STEP_HU = 10
"""Unit of the volumes on the page, which makes it half as large as whole HU would."""


class Measured(NamedTuple):
    """A row of the table: case, method, and the texts of its metrics."""

    case: str
    method: str
    cells: Sequence[str]


class Carried(NamedTuple):
    """A volume on the page."""

    case: str
    method: str
    packed: str


def write_comparison_page(
    path: str | Path,
    cases: Mapping[str, Mapping[str, np.ndarray]],
    affine: np.ndarray,
    rows: Sequence[Mapping[str, Any]],
    columns: Mapping[str, tuple[str, int]],
) -> None:
    """Write the page, a single file that opens from disk, without a network.

    Args:
        path: file to write.
        cases: volumes ``[U, V, W]`` in HU by method, ``truth`` among them, by case; all of one grid and the same
            methods.
        affine: RAS voxel-to-mm ``[4, 4]``.
        rows: measurements, each with ``case``, ``method`` and metrics by name; NaN where there is none.
        columns: heading and decimals of the metrics in the table.

    Raises:
        ValueError: there is no case or no truth, cases have other methods or grids than the first, or an array cannot
            be shown; see :func:`scripts.report.page.write_page`.
    """
    checked = {case: checked_volumes(volumes) for case, volumes in cases.items()}
    if not checked:
        raise ValueError("a comparison needs at least one case, got none; pass {case: {method: volume}}")
    first = next(iter(checked.values()))
    shape = next(iter(first.values())).shape
    for case, volumes in checked.items():
        if "truth" not in volumes or volumes.keys() != first.keys():
            raise ValueError(
                f"case {case!r} has the volumes {list(volumes)}; pass 'truth' and the same methods in each"
            )
        if volumes["truth"].shape != shape:
            raise ValueError(f"case {case!r} has shape {volumes['truth'].shape}, the first {shape}; use one grid")
    affine = checked_affine(affine)
    page = document(
        "comparison.html",
        scripts=("volume.js", "page.js", "comparison.js"),
        libraries=("vtk.min.js",),
        methods=[method for method in first if method != "truth"],
        cases=list(checked),
        heads=[head for head, _ in columns.values()],
        rows=[_measured(row, columns) for row in rows if row["case"] in checked and row["method"] in first],
        volumes=[
            Carried(case, method, packed_volume(method, volume, STEP_HU))
            for case, volumes in checked.items()
            for method, volume in volumes.items()
        ],
        step_hu=STEP_HU,
        slices=chosen_slices(shape, affine, with_truth=True, step_hu=STEP_HU),
        volume=VolumeView(),
    )
    Path(path).write_bytes(page)


def _measured(row: Mapping[str, Any], columns: Mapping[str, tuple[str, int]]) -> Measured:
    numbers = [(row.get(metric, math.nan), digits) for metric, (_, digits) in columns.items()]
    cells = ["–" if math.isnan(value) else f"{value:.{digits}f}".replace("-", "−") for value, digits in numbers]
    return Measured(row["case"], row["method"], cells)
