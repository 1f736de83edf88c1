"""The report of one reconstruction: a single HTML file that opens from disk, without a network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scripts.report.checks import checked_affine, checked_volumes
from scripts.report.document import document
from scripts.report.facts import tables
from scripts.report.radiographs import radiographs
from scripts.report.slice_viewer import slices
from scripts.report.thumbnail import THUMBNAIL_FILE, thumbnail
from scripts.report.volume_viewer import volume_view

PAGE_FILE = "report.html"
"""Name of the page in the folder of a result."""


def write_page(
    folder: str | Path,
    record: Mapping[str, Any],
    images: Mapping[str, np.ndarray],
    volumes: Mapping[str, np.ndarray],
    affine: np.ndarray,
) -> None:
    """Write the page, :data:`PAGE_FILE`, with the volume in three dimensions, and its thumbnail for the index.

    Equal arguments give equal bytes.

    Superior is up; the patient's right is on the left of frontal, axial and coronal pictures, anterior on the left of
    lateral and sagittal ones.

    Args:
        folder: where to write the page.
        record: content of ``result.json``. ``metrics``, ``{name: number or None}``, compares the reconstruction with
            the truth if known; a list ``steps`` in one of ``inputs`` describes the processing of that film. The page
            lists unknown entries as provenance.
        images: ``measured`` and ``reprojected``, line integrals ``[2, N, N]`` with axes (u, w) and (v, w); a missing
            view is 0 everywhere in ``measured``. For films also ``frontal_film`` and ``lateral_film``, the pixels
            ``[rows, columns]`` as read.
        volumes: ``ct`` ``[U, V, W]`` in HU, and if known ``std`` (standard deviation) and ``truth``, in the same shape
            and unit, and ``support`` by the films in per cent. The page shows whole HU and per cent.
        affine: RAS voxel-to-mm ``[4, 4]``.

    Raises:
        ValueError: an array has another shape, NaN or infinite values, or HU that do not fit into 16 bits; or the
            affine turns or mirrors the patient's axes.
    """
    _write(folder, record, images, volumes, affine, scripts=("volume.js", "page.js"), libraries=("vtk.min.js",))


def write_light_page(
    folder: str | Path,
    record: Mapping[str, Any],
    images: Mapping[str, np.ndarray],
    volumes: Mapping[str, np.ndarray],
    affine: np.ndarray,
) -> None:
    """Write the page with still pictures instead of the volume in three dimensions; see :func:`write_page`."""
    _write(folder, record, images, volumes, affine, scripts=("page.js",), libraries=())


def _write(
    folder: str | Path,
    record: Mapping[str, Any],
    images: Mapping[str, np.ndarray],
    volumes: Mapping[str, np.ndarray],
    affine: np.ndarray,
    scripts: Sequence[str],
    libraries: Sequence[str],
) -> None:
    volumes, affine = checked_volumes(volumes), checked_affine(affine)
    spacing_mm = np.linalg.norm(affine[:3, :3], axis=0)
    page = document(
        "page.html",
        scripts,
        libraries,
        exam=record["exam"],
        notice=record.get("notice", "CT estimated from radiographs."),
        warnings=record.get("warnings", ()),
        facts=_facts(record, volumes["ct"].shape, spacing_mm),
        volume=volume_view(volumes, spacing_mm),
        slices=slices(volumes, affine, _std_words(record)),
        radiographs=radiographs(images),
        tables=tables(record),
    )
    small = thumbnail(images, volumes, spacing_mm)
    Path(folder, PAGE_FILE).write_bytes(page)
    Path(folder, THUMBNAIL_FILE).write_bytes(small)


def _facts(record: Mapping[str, Any], shape: tuple[int, ...], spacing_mm: np.ndarray) -> dict[str, Any]:
    """Collect the key facts for the top of the page."""
    facts = {
        "Volume": f"{_times(shape)} voxels",
        "Voxel": f"{_times(spacing_mm)} mm",
        "Field of view": f"{_times(shape * spacing_mm)} mm",
        "Samples": record.get("samples", 1),
    }
    return facts | {
        f"Re-projection error, {view}": f"{e:.1%}" for view, e in record.get("reprojection_error", {}).items()
    }


def _std_words(record: Mapping[str, Any]) -> str:
    if record.get("intervals_sha256"):
        return "Predicted standard deviation of the error (HU)"
    factor = record.get("std_temperature", 1)
    times = f", times {factor:g}" if factor != 1 else ""
    return f"Standard deviation of {record.get('samples', 'several')} samples{times} (HU)"


def _times(numbers: Iterable[float]) -> str:
    return " × ".join(f"{number:g}" for number in numbers)
