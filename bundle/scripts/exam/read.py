"""Reading of the radiographs in one file of any type, recognised by its content."""

from __future__ import annotations

from pathlib import Path

from scripts.dicom.files import is_dicom, may_hold_image, stored_class
from scripts.dicom.read_radiograph import read_dicom_radiograph
from scripts.io.intake import read_bytes
from scripts.io.nifti import SUFFIXES
from scripts.io.nifti_radiograph import is_nifti, is_packed, read_nifti
from scripts.io.picture import is_picture, read_picture
from scripts.io.radiograph import Radiograph

_PICTURES = (".png", ".tif", ".tiff", ".jpg", ".jpeg")
CLAIMS = (*SUFFIXES, ".dcm", ".dicom", *_PICTURES)
"""Suffixes of radiographs: an unreadable file with one of them is a damaged radiograph, not some other file."""
_HEAD_BYTES = 2**14
"""Bytes read to recognise a file: genuine DICOM needs a few hundred, and a hostile file may have any number."""


def is_radiograph(path: Path) -> bool:
    """Return whether a file is an image by its content, or claims to be one by its name.

    DICOM reports, presentation states and directories are not images. A file that cannot be opened, or a broken link
    with the name of an image, counts as one: reading it will say what is wrong.
    """
    claims = path.name.lower().endswith(CLAIMS)
    if not path.is_file():
        return claims and path.is_symlink() and not path.exists()
    try:
        head = _head(path)
    except OSError:
        return True
    return _holds_image(head) if is_dicom(head) else is_picture(head) or is_nifti(head) or claims


def is_lost(path: Path) -> bool:
    """Return whether a file is empty and has a name as on DICOM media or of a UID: numbered, without a known suffix."""
    is_numbered = path.name[-1].isdecimal() and (not path.suffix or path.suffix[1:].isdecimal())
    return is_numbered and path.is_file() and path.stat().st_size == 0


def is_dicom_radiograph(path: Path) -> bool:
    """Return whether a file meets :func:`is_radiograph`, but is neither a picture nor NIfTI, not even by its name."""
    if not is_radiograph(path):
        return False
    try:
        head = _head(path)
    except OSError:
        return True
    is_other = is_picture(head) or is_nifti(head) or path.name.lower().endswith(_PICTURES)
    return is_dicom(head) or not is_other


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_HEAD_BYTES)


def _holds_image(head: bytes) -> bool:
    try:
        sop_class = stored_class(head)
    except Exception:  # on hostile bytes pydicom raises errors of any kind; reading the file will name them
        return True
    return may_hold_image(sop_class)


def holds_both_views(path: Path) -> bool:
    """Return whether a file is a packed NIfTI file, by its header."""
    head = _head(path)
    return not (is_dicom(head) or is_picture(head)) and is_packed(head)


def read_radiographs(path: str | Path, frame: int | None = None, intensity: str | None = None) -> list[Radiograph]:
    """Read the radiographs of one file: one, or both views of a packed NIfTI file.

    A NIfTI image ``[X, Y]`` of line integrals is one radiograph. The caller must know its view, which determines the
    orientation (:data:`~scripts.io.nifti_radiograph.NIFTI_ORIENTATION`). ``[X, Y, 2]`` or ``[X, Y, 1, 2]`` are a
    frontal and a lateral one.

    Args:
        path: DICOM (DX, CR, RF or XA, also as a secondary capture), PNG, TIFF, JPEG or NIfTI.
        frame: index from 0 in a multi-frame DICOM file.
        intensity: scale of a DICOM file's pixels by the user's account, which decides their direction.

    Raises:
        ValueError: the file is of another type, damaged or unsuitable; the message names the file, the rule, the value
            and the remedy.
    """
    path = Path(path)
    head = read_bytes(path, _HEAD_BYTES)
    if is_dicom(head):  # first, because PS3.10 section 7.1 lets the preamble be the head of a TIFF
        return [read_dicom_radiograph(path, frame, intensity)]
    if is_picture(head):
        return [read_picture(path)]
    if is_nifti(head) or path.name.lower().endswith(SUFFIXES):
        return read_nifti(path)
    raise ValueError(
        f"{path}: starts with {head[:8]!r}, so it is not DICOM (DX, CR, RF or XA), PNG, TIFF, JPEG or NIfTI (.nii or "
        ".nii.gz); export it as one of them"
    )
