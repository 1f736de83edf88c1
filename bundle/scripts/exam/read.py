"""One file of any kind, told by its content, to the radiographs in it."""

from __future__ import annotations

from pathlib import Path

from scripts.dicom.files import is_dicom, may_hold_image, stored_class
from scripts.dicom.read_radiograph import read_dicom_radiograph
from scripts.io.intake import read_bytes
from scripts.io.nifti import SUFFIXES
from scripts.io.nifti_radiograph import is_nifti, read_nifti
from scripts.io.picture import is_picture, read_picture
from scripts.io.radiograph import Radiograph

_CLAIMS = (*SUFFIXES, ".dcm", ".dicom")
"""Suffixes by which a file claims to be a radiograph: one that is not readable as such is damaged, not another file."""
_HEAD_BYTES = 2**14
"""A DICOM file says within the first few hundred bytes what it is; a hostile one may go on saying so."""


def is_radiograph(path: Path) -> bool:
    """Whether a file holds an image by its content, or claims to by its name.

    DICOM's reports, presentation states and directories hold none. A file that cannot be opened counts: reading it
    will say why. So does a link that leads nowhere, by its name.
    """
    claims = path.name.lower().endswith(_CLAIMS)
    if not path.is_file():
        return claims and path.is_symlink() and not path.exists()
    try:
        head = _head(path)
    except OSError:
        return True
    return _holds_image(head) if is_dicom(head) else is_picture(head) or is_nifti(head) or claims


def is_dicom_radiograph(path: Path) -> bool:
    """Whether :func:`is_radiograph`, but neither a picture nor NIfTI."""
    if not is_radiograph(path):
        return False
    try:
        head = _head(path)
    except OSError:
        return True
    return is_dicom(head) or not (is_picture(head) or is_nifti(head))


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_HEAD_BYTES)


def _holds_image(head: bytes) -> bool:
    try:
        sop_class = stored_class(head)
    except Exception:  # on hostile bytes pydicom raises errors of any kind; reading the file will name them
        return True
    return may_hold_image(sop_class)


def read_radiographs(path: str | Path, frame: int | None = None) -> list[Radiograph]:
    """Read the radiographs of one file: one, or both views of a packed NIfTI file.

    A NIfTI image ``[X, Y]`` of line integrals is one radiograph. The caller has to know its view, and with it the
    orientation (:data:`~scripts.io.nifti_radiograph.NIFTI_ORIENTATION`). ``[X, Y, 2]`` or ``[X, Y, 1, 2]`` are a
    frontal and a lateral one.

    Args:
        path: DICOM (DX, CR, RF or XA, also as a secondary capture), PNG, TIFF, JPEG or NIfTI.
        frame: which one of a multi-frame DICOM file, counted from 0.

    Raises:
        ValueError: another kind of file, or a damaged or unsuitable one; the message names the file, the rule, the
            value and the remedy.
    """
    path = Path(path)
    head = read_bytes(path, _HEAD_BYTES)
    if is_dicom(head):  # first: PS3.10 section 7.1 lets its preamble be the head of a TIFF
        return [read_dicom_radiograph(path, frame)]
    if is_picture(head):
        return [read_picture(path)]
    if is_nifti(head) or path.name.lower().endswith(SUFFIXES):
        return read_nifti(path)
    raise ValueError(
        f"{path}: starts with {head[:8]!r}, so none of the kinds that are read: DICOM (DX, CR, RF or XA), PNG, TIFF, "
        "JPEG, NIfTI (.nii or .nii.gz); export it as one of them"
    )
