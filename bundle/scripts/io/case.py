"""The case folder; only this module knows its file names.

::

    <case>/frontal.nii.gz, lateral.nii.gz   line integrals [N, N], dimensionless; axes (u, w) and (v, w)
    <case>/geometry.json                    the exam, as BiplanarGeometry.to_json()
    <case>/ct.nii.gz                        standard volume [U, V, W], int16 HU, RAS+ (absent for a real X-ray exam)
    <case>/source.nii.gz                    the whole body on a finer isotropic grid, int16 HU, RAS+ (training only)
    <case>/labels.nii.gz                    tissue labels on the standard grid, uint8 (phantoms only)
    <case>/record.json                      provenance of the case
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from scripts.geometry import VIEWS, BiplanarGeometry, read_geometry
from scripts.io.atomic import whole_folder
from scripts.io.nifti import read_volume, write_image, write_volume
from scripts.io.nifti_radiograph import read_image

IMAGE_FILES = {view: f"{view}.nii.gz" for view in VIEWS}
GEOMETRY_FILE = "geometry.json"
CT_FILE = "ct.nii.gz"
SOURCE_FILE = "source.nii.gz"
LABELS_FILE = "labels.nii.gz"
RECORD_FILE = "record.json"
_PITCH_TOLERANCE = 0.01


class Volume(NamedTuple):
    """Voxels ``[U, V, W]`` in RAS+ order and their RAS voxel-to-mm affine ``[4, 4]``."""

    voxels: np.ndarray
    affine: np.ndarray


@dataclass(frozen=True)
class Case:
    """One exam with its volume grid.

    Attributes:
        name: the folder's name.
        line_integrals: ``[2, N, N]`` float32: frontal (u, w), lateral (v, w); a view that was not requested is 0.
        geometry: the exam.
        affine: RAS voxel-to-mm ``[4, 4]`` of the geometry's volume: that of the CT if there is one, else centred on
            the isocentre.
        ct: HU ``[1, U, V, W]`` float32, or None for an exam without CT.
    """

    name: str
    line_integrals: Tensor
    geometry: BiplanarGeometry
    affine: np.ndarray
    ct: Tensor | None = None


def read_case(folder: str | Path, views: Sequence[str] = VIEWS) -> Case:
    """Read and check a case folder.

    Args:
        folder: the case folder.
        views: views to read; the others may be missing.

    Raises:
        ValueError: a view or the geometry is missing, an image is unreadable, constant or NaN, or parts contradict each
            other; the message names the file, the rule, the value and the remedy.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such case folder")
    geometry = read_geometry(folder / GEOMETRY_FILE)
    line_integrals = _read_views({view: folder / IMAGE_FILES[view] for view in views}, geometry)
    ct, affine = _read_ct(folder / CT_FILE, geometry)
    return Case(folder.name, torch.from_numpy(line_integrals), geometry, affine, ct)


def read_exam(radiographs: Mapping[str, str | Path], geometry_file: str | Path) -> Case:
    """Read and check the radiographs of one exam and its geometry from any files.

    The case is named after the first file's folder; without a CT its volume is centred on the isocentre.

    Args:
        radiographs: files by view, one or two.
        geometry_file: geometry of the exam.

    Raises:
        ValueError: as for :func:`read_case`.
    """
    geometry = read_geometry(geometry_file)
    paths = {view: Path(path) for view, path in radiographs.items()}
    name = next(iter(paths.values())).resolve().parent.name
    return Case(name, torch.from_numpy(_read_views(paths, geometry)), geometry, geometry.volume_affine())


def write_case(
    folder: str | Path,
    geometry: BiplanarGeometry,
    line_integrals: np.ndarray,
    ct: Volume,
    source: Volume,
    labels: Volume | None,
    record: Mapping[str, Any],
) -> None:
    """Write a case folder atomically.

    Args:
        folder: destination; an older case is replaced.
        geometry: the exam.
        line_integrals: ``[2, N, N]``.
        ct: standard volume, int16 HU, of the geometry's shape.
        source: the whole body, int16 HU.
        labels: tissue labels on the standard grid, uint8.
        record: JSON-ready provenance.
    """
    folder = Path(folder)
    with whole_folder(folder, RECORD_FILE) as partial:
        for name, pixels in zip(VIEWS, line_integrals, strict=True):
            write_image(partial / IMAGE_FILES[name], pixels, geometry.detector_spacing_mm)
        write_volume(partial / CT_FILE, *ct)
        write_volume(partial / SOURCE_FILE, *source)
        if labels is not None:
            write_volume(partial / LABELS_FILE, *labels)
        (partial / GEOMETRY_FILE).write_text(geometry.to_json())
        (partial / RECORD_FILE).write_text(json.dumps(record, indent=2))


def read_record(folder: str | Path) -> dict[str, Any]:
    """Read the provenance of a prepared case.

    Raises:
        ValueError: the file is missing or damaged.
    """
    path = Path(folder) / RECORD_FILE
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: unreadable ({error}); delete the case folder and prepare it again") from error


def _read_views(paths: Mapping[str, Path], geometry: BiplanarGeometry) -> np.ndarray:
    """Read the views ``[2, N, N]``, 0 without a path, and check them against the geometry and each other."""
    line_integrals = np.zeros((len(VIEWS), *[geometry.detector_pixels] * 2), dtype=np.float32)
    for name, path in paths.items():
        if not path.is_file():
            needed = "both " * (len(paths) == len(VIEWS)) + " and ".join(paths)
            raise ValueError(f"{path}: the {name} view is missing; a case needs {needed}")
        pixels, pitch_mm = read_image(path)
        if pixels.shape[0] != geometry.detector_pixels:
            raise ValueError(
                f"{path}: {pixels.shape[0]} x {pixels.shape[1]} pixels, but {GEOMETRY_FILE} has detector_pixels = "
                f"{geometry.detector_pixels}; resample the image or correct the geometry"
            )
        if abs(pitch_mm / geometry.detector_spacing_mm - 1) > _PITCH_TOLERANCE:
            raise ValueError(
                f"{path}: pixels of {pitch_mm:.4g} mm, but {GEOMETRY_FILE} has detector_spacing_mm = "
                f"{geometry.detector_spacing_mm:.4g}; correct the one that is wrong"
            )
        line_integrals[VIEWS.index(name)] = pixels
    if np.array_equal(line_integrals[0], line_integrals[1]):
        raise ValueError(
            f"{paths['lateral']}: identical to {paths['frontal'].name}; give two orthogonal views, frontal and lateral"
        )
    return line_integrals


def _read_ct(path: Path, geometry: BiplanarGeometry) -> tuple[Tensor | None, np.ndarray]:
    if not path.is_file():
        return None, geometry.volume_affine()
    hu, affine = read_volume(path)
    if hu.shape != geometry.volume_shape:
        raise ValueError(
            f"{path}: shape {hu.shape}, but {GEOMETRY_FILE} has volume_shape = {geometry.volume_shape}; "
            "prepare the case again"
        )
    if not np.allclose(affine[:3, :3], geometry.volume_affine()[:3, :3], atol=1e-3):
        raise ValueError(
            f"{path}: axes {affine[:3, :3].tolist()} mm per voxel are not RAS+ with the volume_spacing_mm = "
            f"{geometry.volume_spacing_mm} of {GEOMETRY_FILE}; prepare the case again"
        )
    return torch.from_numpy(hu)[None], affine
