"""Radiographs in NIfTI files."""

from __future__ import annotations

import gzip
import math
import zlib
from contextlib import suppress
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.spatialimages import SpatialImage

from scripts.geometry import VIEWS
from scripts.io.digest import sha256
from scripts.io.intake import MAX_FILE_BYTES
from scripts.io.nifti import check_line_integrals, load_nifti
from scripts.io.radiograph import MAX_PIXELS, Radiograph

NIFTI_ORIENTATION = {"frontal": "LF", "lateral": "PF"}
"""How the pixels of a NIfTI radiograph are arranged once read: upright, columns to the patient's left or posterior.

In the file the first axis follows u (frontal) or v (lateral) and the second w, whatever its affine says; see
``scripts.geometry``.
"""

_CHUNK = 2**20


def check_nifti(path: Path) -> None:
    """Refuse a file by its header alone, before memory is set aside for what it declares.

    Raises:
        ValueError: not a NIfTI file, not one or two radiographs, too large, or shorter than it declares.
    """
    size = _unpacked_size(path)
    if size > MAX_FILE_BYTES:
        raise ValueError(f"{path}: unpacks to more than {MAX_FILE_BYTES} bytes; give a file of one or two radiographs")
    try:
        image = nib.load(path)
        header = image.header
        with image.file_map["image"].get_prepare_fileobj("rb") as file:
            as_stored = type(header).from_fileobj(file, check=False)
        shape, unit = header.get_data_shape(), header.get_xyzt_units()[0]
        declared = math.prod(shape) * header.get_data_dtype().itemsize
    except Exception as error:  # on hostile bytes nibabel raises errors of any kind
        raise _unreadable(path, error) from error
    if len(shape) < 2 or min(shape) < 1 or [n for n in shape[2:] if n != 1] not in ([], [2]):
        raise ValueError(
            f"{path}: a radiograph is [X, Y], a frontal and a lateral one [X, Y, 2]; got shape {list(shape)}: give two "
            "files"
        )
    if math.prod(shape[:2]) > MAX_PIXELS:
        raise ValueError(f"{path}: {shape[0]} x {shape[1]} pixels, at most {MAX_PIXELS} are read; resample the image")
    if declared > size:
        raise ValueError(f"{path}: declares {declared} bytes of pixels and holds {size}; copy or export it again")
    if unit in ("meter", "micron"):
        raise ValueError(f"{path}: the pixel pitch is in {unit}s; convert it to millimetres")
    if not as_stored["pixdim"][1:3].all():  # of which nibabel makes 1 mm
        raise ValueError(f"{path}: the pixel pitch, pixdim, is 0 mm; set it to the detector's")


def read_nifti(path: Path) -> list[Radiograph]:
    """The radiographs of one file: ``[X, Y]`` of line integrals is one, whose view the file does not say.

    ``[X, Y, 2]`` and ``[X, Y, 1, 2]`` are a frontal and a lateral one.

    Raises:
        ValueError: as :func:`check_nifti`, or pixels that are no line integrals.
    """
    check_nifti(path)
    try:
        image = load_nifti(path)
    except OverflowError as error:
        raise _unreadable(path, error) from error
    planes = image.get_fdata(dtype=np.float32).reshape(*image.shape[:2], -1)
    views = VIEWS if planes.shape[2] == 2 else (None,)
    return [
        _line_integrals(path, image, plane, view) for view, plane in zip(views, np.moveaxis(planes, 2, 0), strict=True)
    ]


def _line_integrals(path: Path, image: SpatialImage, plane: np.ndarray, view: str | None) -> Radiograph:
    check_line_integrals(plane, path)
    column_mm, row_mm = (float(pitch) for pitch in image.header.get_zooms()[:2])
    return Radiograph(
        path=str(path),
        sha256=sha256(path),
        pixels=np.ascontiguousarray(plane[::-1, ::-1].T),
        scale="line_integral",
        view=view,
        orientation=NIFTI_ORIENTATION.get(view),
        pixel_spacing_mm=(row_mm, column_mm),
    )


def _unpacked_size(path: Path) -> int:
    """Bytes in a file, of a compressed one as far as the limit goes or the stream is sound."""
    if path.suffix.lower() != ".gz":
        return path.stat().st_size
    size = 0
    with suppress(OSError, EOFError, zlib.error), gzip.open(path) as stream:
        while size <= MAX_FILE_BYTES and (chunk := stream.read(_CHUNK)):
            size += len(chunk)
    return size


def _unreadable(path: Path, error: Exception) -> ValueError:
    return ValueError(f"{path}: not a readable NIfTI file ({error}); copy or export it again")
