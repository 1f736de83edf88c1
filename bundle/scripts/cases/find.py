"""CT volumes in Hounsfield units, from NIfTI files or DICOM series, in any orientation."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from scripts.cases.ct import CtVolume, check_hu
from scripts.dicom.read_ct import Series, group_series, is_synthetic, read_series
from scripts.io.case import GEOMETRY_FILE
from scripts.io.names import safe_name
from scripts.io.nifti import SUFFIXES, read_volume


@dataclass(frozen=True)
class CtScan:
    """A CT on disk, not yet read.

    Attributes:
        name: unique and safe as a folder name.
        patient: what must never be split between training and test.
        source: where it was found, relative to the input folder.
        files: one NIfTI file or the slices of one DICOM series.
        modality: as DICOM says; NIfTI does not say and is taken for ``CT``.
    """

    name: str
    patient: str
    source: str
    files: tuple[Path, ...]
    modality: str = "CT"

    def read(self) -> CtVolume:
        """The volume; see :func:`read_ct`."""
        return read_ct(self.files)

    def sha256(self) -> str:
        """One digest over the contents of all files, in order."""
        digest = hashlib.sha256()
        for path in self.files:
            digest.update(path.read_bytes())
        return digest.hexdigest()


def read_ct(files: Sequence[Path]) -> CtVolume:
    """Read one NIfTI file or one DICOM series and check that it is a CT in HU.

    Raises:
        ValueError: unreadable, no 3D volume, synthetic, NaN, constant, or not in HU; the message names file and remedy.
    """
    is_nifti = len(files) == 1 and files[0].name.endswith(SUFFIXES)
    hu, affine = read_volume(files[0]) if is_nifti else read_series(files)
    if not is_nifti and is_synthetic(files[0]):
        raise ValueError(f"{files[0].parent}: a synthetic series (SyntheticData YES), not a scan; exclude it")
    check_hu(hu, files[0] if is_nifti else files[0].parent)
    return CtVolume(hu, affine)


def find_scans(folder: str | Path | None, exclude: Sequence[str] = ()) -> list[CtScan]:
    """Every NIfTI file and DICOM series below a folder, sorted by name.

    A NIfTI file is named after its path below the folder, and is its own patient. A DICOM series is named after its
    ``PatientID`` (its folder, if that is empty) and a digest of its ``SeriesInstanceUID``.

    Args:
        folder: searched recursively; hidden files are ignored.
        exclude: glob patterns of files to leave out, matched against the whole path below the folder (``*`` also
            matches ``/``), whatever the case.

    Raises:
        ValueError: no folder, nothing found, prepared cases among the scans, or two scans whose names collide.
    """
    if folder is None or not Path(folder).is_dir():
        raise ValueError(f"input folder: expected an existing folder of CT scans, got {folder!r}; give --input DIR")
    root = Path(folder)
    files = [p for p in sorted(root.rglob("*")) if p.is_file() and _is_wanted(p.relative_to(root), exclude)]
    niftis = [p for p in files if p.name.endswith(SUFFIXES)]
    prepared = [p for p in niftis if (p.parent / GEOMETRY_FILE).is_file()]
    if prepared:
        raise ValueError(f"{prepared[0].parent}: a prepared case, not a scan; keep the output folder out of --input")
    scans = [_nifti_scan(p, root) for p in niftis]
    scans += [_dicom_scan(series, root) for series in group_series(p for p in files if not p.name.endswith(SUFFIXES))]
    if not scans:
        raise ValueError(f"{root}: no NIfTI file (*.nii, *.nii.gz) and no DICOM series found; check --input")
    _check_unique(scans)
    return sorted(scans, key=lambda scan: scan.name)


def _is_wanted(relative: Path, exclude: Sequence[str]) -> bool:
    hidden = any(part.startswith(".") for part in relative.parts)
    return not hidden and not any(fnmatch(relative.as_posix().lower(), pattern.lower()) for pattern in exclude)


def _nifti_scan(path: Path, root: Path) -> CtScan:
    relative = path.relative_to(root).as_posix()
    stem = next(relative.removesuffix(s) for s in SUFFIXES if relative.endswith(s))
    return CtScan(safe_name(stem), stem, relative, (path,))


def _dicom_scan(series: Series, root: Path) -> CtScan:
    first = series.files[0].relative_to(root)
    folder = first.parent.as_posix()
    patient = series.patient or (folder if folder != "." else root.name)
    digest = hashlib.sha256((series.uid or first.as_posix()).encode()).hexdigest()[:8]
    return CtScan(f"{safe_name(patient)}_{digest}", patient, folder, tuple(series.files), series.modality)


def _check_unique(scans: Sequence[CtScan]) -> None:
    sources: dict[str, str] = {}
    for scan in scans:
        if scan.name in sources:
            raise ValueError(
                f"case {scan.name!r}: both {sources[scan.name]} and {scan.source} would have this name; rename one"
            )
        sources[scan.name] = scan.source
