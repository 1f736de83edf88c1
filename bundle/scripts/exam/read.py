"""One file of any kind, told by its content, to the radiographs in it."""

from __future__ import annotations

from pathlib import Path

from scripts.dicom.read_radiograph import is_dicom, read_dicom_radiograph
from scripts.io.intake import read_bytes
from scripts.io.nifti import SUFFIXES
from scripts.io.nifti_radiograph import read_nifti
from scripts.io.picture import is_picture, read_picture
from scripts.io.radiograph import Radiograph


def read_radiographs(path: str | Path, frame: int | None = None) -> list[Radiograph]:
    """Read the radiographs of one file: one, or both views of a packed NIfTI file.

    A NIfTI image ``[X, Y]`` of line integrals is one radiograph; the view, hence the orientation, is for the caller to
    know (:data:`NIFTI_ORIENTATION`). ``[X, Y, 2]`` or ``[X, Y, 1, 2]`` are a frontal and a lateral one.

    Args:
        path: DICOM (DX, CR, XA), PNG, TIFF, JPEG or NIfTI.
        frame: which one of a multi-frame DICOM file, counted from 0.

    Raises:
        ValueError: another kind of file, or a damaged or unsuitable one; the message names the file, the rule, the
            value and the remedy.
    """
    path = Path(path)
    head = read_bytes(path)[:132]
    if is_picture(head):
        return [read_picture(path)]
    if is_dicom(head):
        return [read_dicom_radiograph(path, frame)]
    if path.name.lower().endswith(SUFFIXES):
        return read_nifti(path)
    raise ValueError(
        f"{path}: starts with {head[:8]!r}, so none of the kinds that are read: DICOM (DX, CR or XA), PNG, TIFF, JPEG, "
        "NIfTI (.nii or .nii.gz); export it as one of them"
    )
