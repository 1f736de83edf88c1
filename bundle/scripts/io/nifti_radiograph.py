"""Radiographs in NIfTI files."""

from __future__ import annotations

import gzip
import hashlib
import math
import zlib
from collections.abc import Sequence
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np

from scripts.geometry import VIEWS
from scripts.io.intake import MAX_FILE_BYTES, read_bytes
from scripts.io.nifti import check_line_integrals
from scripts.io.radiograph import MAX_PIXELS, Radiograph

NIFTI_ORIENTATION = {"frontal": "LF", "lateral": "PF"}
"""Orientation of a NIfTI radiograph once read: upright, columns to the patient's left or posterior.

In the file the first axis follows u (frontal) or v (lateral) and the second w; see ``scripts.geometry``. An affine may
not contradict that.
"""
_UPRIGHT = (("R", "S"), ("A", "S"), ("R", "A"), ("L", "P"))
"""Directions of the first two axes in an affine: frontal and lateral in the patient, then those of a plane image that
knows no patient, as nibabel and ITK write them."""
_GZIP = b"\x1f\x8b"
_KINDS = (nib.Nifti1Image, nib.Nifti2Image)
_LARGEST_HEADER = 540


def is_nifti(head: bytes) -> bool:
    """Return whether a file's content is NIfTI, compressed or not."""
    return _kind(_uncompressed(head)) is not None


def is_packed(head: bytes) -> bool:
    """Return whether a file's first bytes are the header of NIfTI with two radiographs, compressed or not."""
    header = _uncompressed(head)
    kind: Any = _kind(header)
    try:
        return bool(_lengths(kind.header_class.from_fileobj(BytesIO(header), check=False).get_data_shape()) == [2])
    except Exception:  # on hostile bytes nibabel raises errors of any kind; reading the file will name them
        return False


def _uncompressed(head: bytes) -> bytes:
    if head.startswith(_GZIP):
        with suppress(zlib.error):
            return zlib.decompressobj(wbits=31).decompress(head, _LARGEST_HEADER)
    return head


def _kind(header: bytes) -> Any:
    """Return nibabel's class of image; None if the bytes do not begin with a header of NIfTI."""
    return next((kind for kind in _KINDS if kind.header_class.may_contain_header(header)), None)


def _lengths(shape: Sequence[int]) -> list[int]:
    """Return the lengths of the axes after the first two, without those of length 1."""
    return [n for n in shape[2:] if n != 1]


def read_nifti(path: Path) -> list[Radiograph]:
    """Read the radiographs of one file: ``[X, Y]`` of line integrals is one radiograph of unknown view.

    So are ``[X, Y, 1]`` and ``[X, Y, 1, 1]``; ``[X, Y, 2]`` and ``[X, Y, 1, 2]`` are a frontal and a lateral one.

    Raises:
        ValueError: the file is not NIfTI, damaged, too large, does not hold one or two radiographs, or the pixels are
            not line integrals.
    """
    file = _read(path)
    planes = file.pixels.reshape(*file.pixels.shape[:2], -1)
    views = VIEWS if planes.shape[2] == 2 else (None,)
    return [_radiograph(path, file, plane, view) for view, plane in zip(views, np.moveaxis(planes, 2, 0), strict=True)]


def read_image(path: Path) -> tuple[np.ndarray, float]:
    """Read the only, square radiograph of a file, with the axes of a case.

    Returns:
        Line integrals ``[N, N]`` float32 (dimensionless, second axis superior) and the pixel pitch in mm.

    Raises:
        ValueError: as for :func:`read_nifti`, or the image is not square.
    """
    pixels, pitches_mm, _ = _read(path)
    square = pixels.reshape(pixels.shape[:2]) if set(pixels.shape[2:]) <= {1} else pixels
    if square.ndim != 2 or square.shape[0] != square.shape[1]:
        raise ValueError(f"{path}: a radiograph is one square 2D image, got shape {pixels.shape}; crop or pad it")
    if not math.isclose(*pitches_mm, rel_tol=1e-3):
        raise ValueError(f"{path}: pixels must be square, got a pitch of {list(pitches_mm)} mm; resample the image")
    check_line_integrals(square, path)
    return square, pitches_mm[0]


class _File(NamedTuple):
    """Content of a file: pixels as stored, their pitch along the first two axes, and the digest."""

    pixels: np.ndarray
    pitches_mm: tuple[float, float]
    sha256: str


def _read(path: Path) -> _File:
    data = read_bytes(path)
    unpacked = _unpacked(path, data)
    kind = _kind(unpacked)
    if kind is None:
        raise _unreadable(path, "no header of one")
    try:
        image: Any = kind.from_bytes(unpacked)
        as_stored: Any = type(image.header).from_fileobj(BytesIO(unpacked), check=False)
    except Exception as error:  # on hostile bytes nibabel raises errors of any kind
        raise _unreadable(path, error) from error
    _check_header(path, image.header, as_stored, len(unpacked))
    _check_axes(path, image)
    try:
        pixels = image.get_fdata(dtype=np.float32)
    except Exception as error:  # on hostile bytes nibabel raises errors of any kind
        raise _unreadable(path, error) from error
    first_mm, second_mm = (float(pitch) for pitch in image.header.get_zooms()[:2])
    return _File(pixels, (first_mm, second_mm), hashlib.sha256(data).hexdigest())


def _unpacked(path: Path, data: bytes) -> bytes:
    """Return the uncompressed bytes of a file; raise ValueError if the stream is damaged or too large."""
    if not data.startswith(_GZIP):
        return data
    try:
        with gzip.open(BytesIO(data)) as stream:
            unpacked = stream.read(MAX_FILE_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise _unreadable(path, error) from error
    if len(unpacked) > MAX_FILE_BYTES:
        raise ValueError(f"{path}: unpacks to more than {MAX_FILE_BYTES} bytes; give a file of one or two radiographs")
    return unpacked


def _check_header(path: Path, header: Any, as_stored: Any, size: int) -> None:
    """Check a file by its header alone, before allocating the memory that it declares."""
    try:
        shape, unit = header.get_data_shape(), header.get_xyzt_units()[0]
        declared = math.prod(shape) * header.get_data_dtype().itemsize
    except Exception as error:  # on hostile bytes nibabel raises errors of any kind
        raise _unreadable(path, error) from error
    if len(shape) < 2 or min(shape) < 1 or _lengths(shape) not in ([], [2]):
        raise ValueError(
            f"{path}: a radiograph is [X, Y] or [X, Y, 1], a frontal and a lateral one [X, Y, 2]; got shape "
            f"{list(shape)}: give two files{_shape_meant(shape)}"
        )
    if math.prod(shape[:2]) > MAX_PIXELS:
        raise ValueError(f"{path}: {shape[0]} x {shape[1]} pixels, at most {MAX_PIXELS} are read; resample the image")
    if declared > size:
        raise ValueError(f"{path}: declares {declared} bytes of pixels and holds {size}; copy or export it again")
    if unit in ("meter", "micron"):
        raise ValueError(f"{path}: the pixel pitch is in {unit}s; convert it to millimetres")
    if not as_stored["pixdim"][1:3].all():  # nibabel turns 0 into 1 mm
        raise ValueError(f"{path}: the pixel pitch, pixdim, is 0 mm; set it to the detector's")


def _check_axes(path: Path, image: Any) -> None:
    """Check that an affine, if the file states one, has the axes of :data:`NIFTI_ORIENTATION`."""
    if not image.header["sform_code"] and not image.header["qform_code"]:
        return
    if not np.isfinite(image.affine).all():
        raise _unreadable(path, "its affine is not finite")
    found = nib.aff2axcodes(image.affine)[:2]
    if found not in _UPRIGHT:
        raise ValueError(
            f"{path}: by its affine, the axes of its pixels point to {' and '.join(map(str, found))}; a film has R and "
            "S (frontal), A and S (lateral), or those of a plane image, R and A or L and P: flip or swap its axes, or "
            "if its pixels are in order, set sform_code and qform_code to 0"
        )


def _shape_meant(shape: Sequence[int]) -> str:
    lengths = len([n for n in shape if n > 1])
    if lengths > 2:
        return " of one X-ray image each; this is a volume, and prepare.json makes radiographs of a CT"
    return ", and put the axis of length 1 last" if lengths == 2 else ""


def _radiograph(path: Path, file: _File, plane: np.ndarray, view: str | None) -> Radiograph:
    check_line_integrals(plane, path)
    column_mm, row_mm = file.pitches_mm
    return Radiograph(
        path=str(path),
        sha256=file.sha256,
        pixels=np.ascontiguousarray(plane[::-1, ::-1].T),
        scale="line_integral",
        view=view,
        orientation=None if view is None else NIFTI_ORIENTATION[view],
        pixel_spacing_mm=(row_mm, column_mm),
    )


def _unreadable(path: Path, error: Exception | str) -> ValueError:
    return ValueError(f"{path}: not a readable NIfTI file ({error}); copy or export it again")
