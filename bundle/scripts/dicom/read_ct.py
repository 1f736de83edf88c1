"""Reading of CT series stored as one DICOM file per slice."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydicom.dataset import FileDataset
from pydicom.pixels import pixel_array
from pydicom.uid import UID
from scipy.ndimage import binary_propagation

from scripts.dicom.attributes import integer, is_stated, numbers
from scripts.dicom.files import HEAD_BYTES, is_dicom, may_hold_image, read_file
from scripts.dicom.identity import contradictions
from scripts.dicom.pixels import check_decodable, pixel_format, rescaled, stored_pixels, trim
from scripts.intensity import AIR_HU

logger = logging.getLogger(__name__)
MIN_SLICES = 10
"""Smallest number of slices; a shorter series is a localizer, a bolus-tracking or a biopsy scan, not a volume."""
POSITION_TOLERANCE = 0.1
"""Largest distance of a slice from its position on the even grid, as a fraction of the slice spacing."""
SCANNED_HU = (-1024.0, 3071.0)
"""Range of a scanner's values; padding beyond it cannot be tissue."""
_DIRECTION_TOLERANCE = 1e-3
_PITCH_TOLERANCE = 1e-4
"""Relative tolerance: a twentieth of a pixel along 512 pixels."""
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_SERIES_TAGS = ["SeriesInstanceUID", "PatientID", "Modality"]


class Series(NamedTuple):
    """Files of one ``SeriesInstanceUID`` with attributes of their headers; missing ones are empty strings."""

    uid: str
    patient: str
    modality: str
    files: list[Path]


def group_series(files: Iterable[Path]) -> list[Series]:
    """Group DICOM files by ``SeriesInstanceUID``, or by folder if an anonymiser has emptied it.

    Files that are not DICOM are left out, unless their name ends in ``.dcm``: such a file forms a group of its own,
    whose reading fails with its name, so that a damaged slice is never lost silently. Files without an image, such as a
    ``DICOMDIR`` or a report, are also left out.
    """
    groups: dict[str, Series] = {}
    for path in sorted(files):
        if not _may_be_slice(path):
            continue
        try:
            header = read_file(path, stop_before_pixels=True, specific_tags=[*_SERIES_TAGS, "SOPClassUID"])
        except ValueError:
            header = FileDataset(path, {})
        if not may_hold_image(_sop_class(header)):
            continue
        uid, patient, modality = (str(header.get(tag) or "").strip() for tag in _SERIES_TAGS)
        group = uid or str(path.parent if header else path)
        groups.setdefault(group, Series(uid, patient, modality, [])).files.append(path)
    return list(groups.values())


def _may_be_slice(path: Path) -> bool:
    with path.open("rb") as file:
        return is_dicom(file.read(HEAD_BYTES)) or path.suffix.lower() == ".dcm"


def _sop_class(header: FileDataset) -> UID:
    meta = getattr(header, "file_meta", {})
    return UID(str(header.get("SOPClassUID") or meta.get("MediaStorageSOPClassUID", "")))


def read_series(files: Iterable[Path]) -> tuple[np.ndarray, np.ndarray]:
    """Read one CT series, sorted by position, in Hounsfield units.

    Slices may be tilted against their stacking direction (gantry tilt); the affine then has a shear.

    Args:
        files: slices of one series in any order.

    Returns:
        HU ``[X, Y, Z]`` float32 (X along a slice's rows, Z along the stack) and the RAS affine ``[4, 4]`` in mm.

    Raises:
        ValueError: the files are not one complete, evenly spaced CT volume; the message names the rule that failed.
    """
    paths = [Path(path) for path in files]
    slices, where = [read_file(path) for path in paths], paths[0].parent
    _check_is_one_ct(slices, where)
    slices, positions = _sort(slices, where)
    step = _even_step(positions, where)
    hu = np.stack([_hounsfield(s).T for s in slices], axis=-1)
    return hu, _LPS_TO_RAS @ _lps_affine(slices[0], positions[0], step)


def is_synthetic(path: Path) -> bool:
    """Return whether a DICOM file states that no scanner made it, as our own results do."""
    return read_file(path, stop_before_pixels=True, specific_tags=["SyntheticData"]).get("SyntheticData") == "YES"


def _check_is_one_ct(slices: list[FileDataset], where: Path) -> None:
    """Check that the slices are one stack of parallel CT slices of one patient."""
    for s in slices:
        name = str(s.filename)
        if s.get("Modality") != "CT":
            raise ValueError(f"{name}: Modality is {s.get('Modality')!r}, expected 'CT'; remove it")
        if "LOCALIZER" in s.get("ImageType", []):
            raise ValueError(f"{name}: a localizer (ImageType {list(s.ImageType)}), not a slice; remove it")
        if integer(name, s, "NumberOfFrames", default=1) > 1:
            raise ValueError(
                f"{name}: {s.NumberOfFrames} frames in one file; enhanced multi-frame CT is not supported, "
                "convert it to NIfTI (for example with dcm2niix)"
            )
        missing = [tag for tag in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing") if not s.get(tag)]
        if missing:
            raise ValueError(f"{name}: {', '.join(missing)} missing, so the slice has no position in the patient")
    different = contradictions(slices, ["PatientID"])
    different += [tag for tag in ("Rows", "Columns") if len({s.get(tag) for s in slices}) > 1]
    pitches_mm = np.array([numbers(str(s.filename), s, "PixelSpacing", 2) for s in slices])
    for s, pitch_mm in zip(slices, pitches_mm, strict=True):
        if pitch_mm.min() <= 0:
            raise ValueError(
                f"{str(s.filename)}: PixelSpacing is {pitch_mm.tolist()} mm, expected two positive numbers; export it "
                "again"
            )
    if not np.allclose(pitches_mm, pitches_mm[0], rtol=_PITCH_TOLERANCE, atol=0):
        different.append("PixelSpacing")
    if different:
        values = sorted({str(s.get(different[0])) for s in slices})
        raise ValueError(f"{where}: a series must have one {different[0]}, got {values}; separate the images")
    for tag in ("RescaleSlope", "RescaleIntercept"):
        _check_rescale(slices, tag, where)
    orientations = np.array([numbers(str(s.filename), s, "ImageOrientationPatient", 6) for s in slices])
    for s, axes in zip(slices, orientations.reshape(-1, 2, 3), strict=True):
        if np.abs(axes @ axes.T - np.eye(2)).max() > _DIRECTION_TOLERANCE:
            raise ValueError(
                f"{str(s.filename)}: ImageOrientationPatient is {axes.ravel().tolist()}, expected two unit vectors at "
                "right angles; export it again"
            )
    spread = float(np.abs(orientations - orientations[0]).max())
    if spread > _DIRECTION_TOLERANCE:
        raise ValueError(f"{where}: slices differ in ImageOrientationPatient by {spread:.3g}; separate the stacks")
    if len(slices) < MIN_SLICES:
        raise ValueError(f"{where}: a CT volume needs at least {MIN_SLICES} slices, got {len(slices)}")


def _check_rescale(slices: list[FileDataset], tag: str, where: Path) -> None:
    """Check that all slices or none have the tag; without it, stored values are taken for HU."""
    without = [s for s in slices if not is_stated(s, tag)]
    if without and len(without) < len(slices):
        raise ValueError(f"{str(without[0].filename)}: has no {tag}, unlike other slices; export the series again")
    if without:
        logger.warning("%s: no %s; stored values are taken for HU in this respect", where, tag)


def _sort(slices: list[FileDataset], where: Path) -> tuple[list[FileDataset], np.ndarray]:
    """Return the slices sorted along their normal, and their LPS positions ``[Z, 3]`` in mm."""
    rows, columns = np.array(slices[0].ImageOrientationPatient, dtype=float).reshape(2, 3)
    positions = np.array([numbers(str(s.filename), s, "ImagePositionPatient", 3) for s in slices])
    height_mm = positions @ np.cross(rows, columns)
    order = np.argsort(height_mm)
    gaps_mm = np.diff(height_mm[order])
    typical = float(np.median(gaps_mm))
    if (gaps_mm < 1e-3).any():
        twin = slices[order[int(np.argmin(gaps_mm))]]
        raise ValueError(
            f"{where}: two slices at position {[float(x) for x in twin.ImagePositionPatient]} mm; "
            "remove the duplicates or separate the phases of the scan"
        )
    uneven = np.flatnonzero(np.abs(gaps_mm - typical) > POSITION_TOLERANCE * typical)
    if len(uneven):
        found = ", ".join(
            f"{gaps_mm[i]:.2f} mm between {height_mm[order][i]:.2f} and {height_mm[order][i + 1]:.2f}" for i in uneven
        )
        raise ValueError(
            f"{where}: slices missing or unevenly spaced: expected gaps of {typical:.2f} mm within "
            f"{POSITION_TOLERANCE:.0%}, got {found} (positions along the slice normal, mm); restore the missing slices"
        )
    return [slices[i] for i in order], positions[order]


def _even_step(positions: np.ndarray, where: Path) -> np.ndarray:
    """Return the LPS vector in mm from one slice to the next, and refuse a stack that is not straight."""
    step = (positions[-1] - positions[0]) / (len(positions) - 1)
    even = positions[0] + np.arange(len(positions))[:, None] * step
    drift_mm = np.linalg.norm(positions - even, axis=1)
    worst = int(drift_mm.argmax())
    if drift_mm[worst] > max(POSITION_TOLERANCE * np.linalg.norm(step), 0.05):
        raise ValueError(
            f"{where}: slices do not lie on a straight, even stack: the one at {positions[worst].tolist()} mm is "
            f"{drift_mm[worst]:.2f} mm away from its position; separate the stacks"
        )
    return step


def _hounsfield(s: FileDataset) -> np.ndarray:
    """Return pixels ``[rows, columns]`` float32 with the slice's own rescale slope and intercept; padding is air."""
    path = str(s.filename)
    if not s.get("PixelData"):
        raise ValueError(f"{path}: no pixel data: the file is truncated or holds no image; copy or export it again")
    form = pixel_format(path, s, widths=(8, 16, 32))
    syntax = UID(s.file_meta.TransferSyntaxUID)
    check_decodable(path, syntax)
    s.NumberOfFrames = form.frames
    try:
        if not syntax.is_encapsulated:
            trim(s, form)
        raw = pixel_array(s, index=0, raw=True, correct_unused_bits=False)
    except Exception as error:  # on damaged bytes pydicom raises errors of any kind
        raise ValueError(
            f"{path}: cannot decode its pixels, stored as {syntax.name} ({error}); export it again, uncompressed"
        ) from error
    values, is_padding = stored_pixels(path, s, form, raw)
    try:
        hu = rescaled(values, s)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: RescaleSlope or RescaleIntercept is not a number ({error}); export again") from error
    hu[_surrounding(hu, is_padding)] = AIR_HU
    return hu.astype(np.float32)


def _surrounding(hu: np.ndarray, is_padding: np.ndarray) -> np.ndarray:
    """Return the padding around the field of view and padding that no scanner could have measured.

    In some files the padding value is also that of water; inside the field of view, such pixels are tissue.
    """
    edge = np.ones(hu.shape, dtype=bool)
    edge[1:-1, 1:-1] = False
    low, high = SCANNED_HU
    return is_padding & ((hu < low) | (hu > high)) | binary_propagation(edge & is_padding, mask=is_padding)


def _lps_affine(first: FileDataset, origin: np.ndarray, step: np.ndarray) -> np.ndarray:
    """Return the affine ``[4, 4]`` from voxels (column, row, slice) to LPS mm, DICOM PS3.3 C.7.6.2.1.1."""
    along_row, along_column = np.array(first.ImageOrientationPatient, dtype=float).reshape(2, 3)
    row_pitch_mm, column_pitch_mm = (float(x) for x in first.PixelSpacing)
    affine = np.eye(4)
    affine[:3, 0] = along_row * column_pitch_mm
    affine[:3, 1] = along_column * row_pitch_mm
    affine[:3, 2] = step
    affine[:3, 3] = origin
    return affine
