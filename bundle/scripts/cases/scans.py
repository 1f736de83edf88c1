"""CT volumes in Hounsfield units, from volume files or DICOM series, in any orientation."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from scripts.cases.ct import CtVolume, check_grid, check_hu
from scripts.dicom.read_ct import Series, group_series, is_synthetic, read_series
from scripts.io.case import GEOMETRY_FILE
from scripts.io.folders import visible_files
from scripts.io.itk_volume import ITK_SUFFIXES, read_itk_volume, voxel_file
from scripts.io.names import safe_name
from scripts.io.nifti import SUFFIXES, read_volume

logger = logging.getLogger(__name__)
_SUFFIXES = (*SUFFIXES, *ITK_SUFFIXES)
_NAMED = 6


@dataclass(frozen=True)
class CtScan:
    """A CT on disk, not yet read.

    Attributes:
        name: unique name, safe for a folder.
        patient: patient, who must never be split between training and test.
        source: path relative to the input folder.
        files: one volume, with the file of its voxels if separate, or the slices of one DICOM series.
        modality: DICOM modality; a volume states none and is taken for ``CT``.
    """

    name: str
    patient: str
    source: str
    files: tuple[Path, ...]
    modality: str = "CT"

    def read(self) -> CtVolume:
        """Read the volume; see :func:`read_ct`."""
        return read_ct(self.files)

    def sha256(self) -> str:
        """Return one digest over the contents of all files, in order."""
        digest = hashlib.sha256()
        for path in self.files:
            digest.update(path.read_bytes())
        return digest.hexdigest()


def read_ct(files: Sequence[Path]) -> CtVolume:
    """Read one volume or one DICOM series and check that it is a CT in HU.

    Args:
        files: a NIfTI, MetaImage or NRRD file, with the file of its voxels if separate, or DICOM slices.

    Raises:
        ValueError: the CT is unreadable, not 3D, synthetic, NaN, constant, not in HU, or of implausible size; the
            message names file and remedy.
    """
    first = files[0]
    if _suffix(first) is None:
        hu, affine = read_series(files)
        if is_synthetic(first):
            raise ValueError(f"{first.parent}: a synthetic series (SyntheticData YES), not a scan; exclude it")
        check_grid(affine, hu.shape, first.parent)
        check_hu(hu, first.parent)
        return CtVolume(hu, affine)
    hu, affine = read_itk_volume(first) if _suffix(first) in ITK_SUFFIXES else read_volume(first)
    check_grid(affine, hu.shape, first)
    check_hu(hu, first)
    return CtVolume(hu, affine)


def find_scans(folder: str | Path | None, exclude: Sequence[str] = ()) -> list[CtScan]:
    """Find all volumes (NIfTI, MetaImage, NRRD) and DICOM series below a folder, sorted by name.

    A volume is named after its path below the folder, and is its own patient. A DICOM series is named after its
    ``PatientID`` (its folder, if that is empty) and a digest of its ``SeriesInstanceUID``. Other files are skipped; the
    log says how many and which.

    Args:
        folder: searched recursively; hidden files are ignored.
        exclude: glob patterns of files to leave out, matched against the whole path below the folder (``*`` also
            matches ``/``), ignoring case.

    Raises:
        ValueError: the folder does not exist, holds no CT or prepared cases, or the names of two scans collide.
    """
    if folder is None or not Path(folder).is_dir():
        raise ValueError(f"input folder: expected an existing folder of CT scans, got {folder!r}; give --input DIR")
    root = Path(folder)
    files = [path for path in visible_files(root) if not _is_excluded(path.relative_to(root), exclude)]
    volumes = [path for path in files if _suffix(path) is not None]
    prepared = [path for path in volumes if (path.parent / GEOMETRY_FILE).is_file()]
    if prepared:
        raise ValueError(f"{prepared[0].parent}: a prepared case, not a scan; keep the output folder out of --input")
    scans = [_volume_scan(path, root) for path in volumes]
    others = _left(files, scans)
    scans += [_dicom_scan(series, root) for series in group_series(others)]
    if not scans:
        raise ValueError(f"{root}: no CT found, neither DICOM slices nor {', '.join(_SUFFIXES)} files; check --input")
    _report_passed_over(root, _left(others, scans))
    _check_unique(scans)
    return sorted(scans, key=lambda scan: scan.name)


def _is_excluded(relative: Path, exclude: Sequence[str]) -> bool:
    return any(fnmatch(relative.as_posix().lower(), pattern.lower()) for pattern in exclude)


def _suffix(path: Path) -> str | None:
    """Return the volume suffix of a file's name in lower case; None for any other file."""
    return next((suffix for suffix in _SUFFIXES if path.name.lower().endswith(suffix)), None)


def _left(files: Sequence[Path], scans: Sequence[CtScan]) -> list[Path]:
    """Return the files that belong to no scan."""
    taken = {path for scan in scans for path in scan.files}
    return [path for path in files if path not in taken]


def _report_passed_over(root: Path, files: Sequence[Path]) -> None:
    if files:
        names = ", ".join(str(path.relative_to(root)) for path in files[:_NAMED]) + ", ..." * (len(files) > _NAMED)
        logger.warning("%s: %d files are no CT and were passed over: %s", root, len(files), names)


def _volume_scan(path: Path, root: Path) -> CtScan:
    relative = path.relative_to(root).as_posix()
    suffix = _suffix(path) or ""
    stem = relative[: -len(suffix)]
    return CtScan(safe_name(stem), stem, relative, (path, *_voxel_files(path, suffix)))


def _voxel_files(path: Path, suffix: str) -> list[Path]:
    """Return the separate file with the voxels of a header, if the format allows one."""
    try:
        beside = voxel_file(path) if suffix in ITK_SUFFIXES else None
    except ValueError:  # reading the volume will say why
        return []
    return [beside] if beside is not None and beside.is_file() else []


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
