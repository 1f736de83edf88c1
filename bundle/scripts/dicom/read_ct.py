"""CT series stored as one DICOM file per slice."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pydicom
from pydicom.dataset import FileDataset
from pydicom.errors import InvalidDicomError
from pydicom.pixels import apply_rescale

MIN_SLICES = 10
"""A shorter series is a localizer, a bolus-tracking or a biopsy scan, not a volume."""
POSITION_TOLERANCE = 0.1
"""How far a slice may lie from its place on the even grid, as a fraction of the slice spacing."""
_DIRECTION_TOLERANCE = 1e-3
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_SERIES_TAGS = ["SeriesInstanceUID", "PatientID", "Modality"]


class Series(NamedTuple):
    """The files of one ``SeriesInstanceUID``, with what their headers say; empty strings where they say nothing."""

    uid: str
    patient: str
    modality: str
    files: list[Path]


def group_series(files: Iterable[Path]) -> list[Series]:
    """Group DICOM files by ``SeriesInstanceUID``, or by folder where an anonymiser has emptied it.

    Files that are not DICOM are left out, unless their name ends in ``.dcm``: such a file makes a group of its own
    whose reading fails with its name, so that a damaged slice is never lost silently.
    """
    groups: dict[str, Series] = {}
    for path in sorted(files):
        try:
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=_SERIES_TAGS)
        except (InvalidDicomError, EOFError):
            if path.suffix.lower() != ".dcm":
                continue
            header = FileDataset(path, {})
        uid, patient, modality = (str(header.get(tag, "")).strip() for tag in _SERIES_TAGS)
        group = uid or str(path.parent if header else path)
        groups.setdefault(group, Series(uid, patient, modality, [])).files.append(path)
    return list(groups.values())


def read_series(files: Iterable[Path]) -> tuple[np.ndarray, np.ndarray]:
    """Read one CT series, sorted by position, in Hounsfield units.

    Slices may be tilted against their stacking direction (gantry tilt): the affine then has a shear.

    Args:
        files: the slices of one series in any order.

    Returns:
        HU ``[X, Y, Z]`` float32 (X along a slice's rows, Z along the stack) and the RAS affine ``[4, 4]`` in mm.

    Raises:
        ValueError: the files are not one complete, evenly spaced CT volume; the message names the rule that failed.
    """
    paths = [Path(path) for path in files]
    slices, where = [_read_slice(path) for path in paths], paths[0].parent
    _check_is_one_ct(slices, where)
    slices, positions = _sort(slices, where)
    step = _even_step(positions, where)
    hu = np.stack([_hounsfield(s).T for s in slices], axis=-1)
    return hu, _LPS_TO_RAS @ _lps_affine(slices[0], positions[0], step)


def is_synthetic(path: Path) -> bool:
    """Whether a DICOM file says of itself that no scanner made it, as our own results do."""
    return pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["SyntheticData"]).get("SyntheticData") == "YES"


def _read_slice(path: Path) -> FileDataset:
    try:
        return pydicom.dcmread(path)
    except (InvalidDicomError, EOFError, OSError) as error:
        raise ValueError(f"{path}: not a readable DICOM file ({error}); copy or export it again") from error


def _check_is_one_ct(slices: list[FileDataset], where: Path) -> None:
    """Refuse what is not one stack of parallel CT slices of one patient."""
    for s in slices:
        name = str(s.filename)
        if s.get("Modality") != "CT":
            raise ValueError(f"{name}: Modality is {s.get('Modality')!r}, expected 'CT'; remove it")
        if "LOCALIZER" in s.get("ImageType", []):
            raise ValueError(f"{name}: a localizer (ImageType {list(s.ImageType)}), not a slice; remove it")
        if int(s.get("NumberOfFrames", 1)) > 1:
            raise ValueError(
                f"{name}: {s.NumberOfFrames} frames in one file; enhanced multi-frame CT is not supported, "
                "convert it to NIfTI (for example with dcm2niix)"
            )
        missing = [tag for tag in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing") if not s.get(tag)]
        if missing:
            raise ValueError(f"{name}: {', '.join(missing)} missing, so the slice has no place in the patient")
    for tag in ("PatientID", "Rows", "Columns", "PixelSpacing"):
        values = {str(s.get(tag)) for s in slices}
        if len(values) > 1:
            raise ValueError(f"{where}: one series has one {tag}, got {sorted(values)}; separate the images")
    orientations = np.array([s.ImageOrientationPatient for s in slices], dtype=float)
    spread = float(np.abs(orientations - orientations[0]).max())
    if spread > _DIRECTION_TOLERANCE:
        raise ValueError(f"{where}: slices differ in ImageOrientationPatient by {spread:.3g}; separate the stacks")
    if len(slices) < MIN_SLICES:
        raise ValueError(f"{where}: a CT volume needs at least {MIN_SLICES} slices, got {len(slices)}")


def _sort(slices: list[FileDataset], where: Path) -> tuple[list[FileDataset], np.ndarray]:
    """Slices along their normal, and their LPS positions ``[Z, 3]`` in mm."""
    rows, columns = np.array(slices[0].ImageOrientationPatient, dtype=float).reshape(2, 3)
    positions = np.array([s.ImagePositionPatient for s in slices], dtype=float)
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
    """The LPS vector from one slice to the next, mm; refuses a stack that is not straight."""
    step = (positions[-1] - positions[0]) / (len(positions) - 1)
    even = positions[0] + np.arange(len(positions))[:, None] * step
    drift_mm = np.linalg.norm(positions - even, axis=1)
    worst = int(drift_mm.argmax())
    if drift_mm[worst] > max(POSITION_TOLERANCE * np.linalg.norm(step), 0.05):
        raise ValueError(
            f"{where}: slices do not lie on a straight, even stack: the one at {positions[worst].tolist()} mm is "
            f"{drift_mm[worst]:.2f} mm away from its place; separate the stacks"
        )
    return step


def _hounsfield(s: FileDataset) -> np.ndarray:
    """Decoded pixels ``[rows, columns]`` float32 with the slice's own rescale slope and intercept applied."""
    try:
        pixels = s.pixel_array
    except (RuntimeError, ValueError, AttributeError, NotImplementedError) as error:
        syntax = s.file_meta.get("TransferSyntaxUID", pydicom.uid.ImplicitVRLittleEndian).name
        raise ValueError(
            f"{str(s.filename)}: cannot decode its pixels, stored as {syntax} ({error}); export it again, uncompressed"
        ) from error
    return apply_rescale(pixels, s).astype(np.float32)


def _lps_affine(first: FileDataset, origin: np.ndarray, step: np.ndarray) -> np.ndarray:
    """Voxel (column, row, slice) to LPS mm ``[4, 4]``, DICOM PS3.3 C.7.6.2.1.1."""
    along_row, along_column = np.array(first.ImageOrientationPatient, dtype=float).reshape(2, 3)
    row_pitch_mm, column_pitch_mm = (float(x) for x in first.PixelSpacing)
    affine = np.eye(4)
    affine[:3, 0] = along_row * column_pitch_mm
    affine[:3, 1] = along_column * row_pitch_mm
    affine[:3, 2] = step
    affine[:3, 3] = origin
    return affine
