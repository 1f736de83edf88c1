"""NIfTI files: volumes read with checks, volumes and images written atomically."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError

from scripts.io.atomic import whole_file

SUFFIXES = (".nii.gz", ".nii")
MAX_LINE_INTEGRAL = 100.0
"""Upper limit, beyond any radiograph of a body: 40 cm of water is 8, and 3 cm of steel adds 40."""
MIN_LINE_INTEGRAL = -0.5
"""Lower limit: noise may make a line integral slightly negative, but not more."""
_DAMAGE = (ImageFileError, HeaderDataError, OSError, EOFError, zlib.error, TypeError, ValueError, OverflowError)
"""Errors that nibabel raises on invalid files."""


def read_volume(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Read a 3D NIfTI volume as stored.

    Returns:
        Voxels ``[X, Y, Z]`` float32 with the file's scaling applied, and the RAS voxel-to-mm affine ``[4, 4]``.

    Raises:
        ValueError: the file is unreadable, does not state the orientation, or the volume is not 3D.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    try:
        image: Any = nib.load(path)
        voxels = image.get_fdata(dtype=np.float32)
    except _DAMAGE as error:
        raise ValueError(f"{path}: not a readable NIfTI file ({error}); copy or export it again") from error
    if len(image.shape) != 3:
        raise ValueError(f"{path}: a CT is one 3D volume, got shape {image.shape}; split it into one file per volume")
    if int(image.header["qform_code"]) == 0 and int(image.header["sform_code"]) == 0:
        raise ValueError(f"{path}: sform_code and qform_code are 0, so left and right are unknown; set the affine")
    if image.header.get_xyzt_units()[0] in ("meter", "micron"):
        raise ValueError(f"{path}: the affine is in {image.header.get_xyzt_units()[0]}s; convert it to millimetres")
    affine = np.asarray(image.affine, dtype=np.float64)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise ValueError(f"{path}: the affine is singular or not finite: {affine.tolist()}; set a valid one")
    return voxels, affine


def check_line_integrals(pixels: np.ndarray, name: str | Path) -> None:
    """Check that an image ``[N, N]`` can be line integrals.

    Raises:
        ValueError: pixels are NaN, infinite, all the same, or outside the range of a body's attenuation.
    """
    if not np.isfinite(pixels).all():
        raise ValueError(f"{name}: {int((~np.isfinite(pixels)).sum())} pixels are NaN or infinite; export it again")
    low, high = float(pixels.min()), float(pixels.max())
    if low == high:
        raise ValueError(f"{name}: every pixel is {low}; a constant image shows no patient")
    if low < MIN_LINE_INTEGRAL or high > MAX_LINE_INTEGRAL:
        raise ValueError(
            f"{name}: pixels must be line integrals within [{MIN_LINE_INTEGRAL}, {MAX_LINE_INTEGRAL}], got "
            f"[{low:.4g}, {high:.4g}]; convert detector counts I by -ln(I / I0)"
        )


def write_volume(path: str | Path, voxels: np.ndarray, affine: np.ndarray) -> None:
    """Write voxels ``[X, Y, Z]`` atomically in their own dtype with a RAS mm affine ``[4, 4]``."""
    image = nib.Nifti1Image(voxels, affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, code="scanner")
    image.set_qform(affine, code="scanner")
    _save(image, Path(path))


def write_image(path: str | Path, pixels: np.ndarray, pitch_mm: float) -> None:
    """Write a radiograph ``[N, N]`` atomically as float32 with its pixel pitch, centred on the origin."""
    affine = np.diag([pitch_mm, pitch_mm, 1.0, 1.0])
    affine[:2, 3] = [-(n - 1) / 2 * pitch_mm for n in pixels.shape]
    image = nib.Nifti1Image(np.asarray(pixels, dtype=np.float32), affine)
    image.header.set_xyzt_units("mm")
    _save(image, Path(path))


def _save(image: nib.Nifti1Image, path: Path) -> None:
    with whole_file(path) as partial:
        nib.save(image, partial)
