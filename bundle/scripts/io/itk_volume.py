"""Volumes in ITK's file formats, MetaImage and NRRD.

ITK fills in what a header leaves out: a missing orientation becomes the identity. A header may also refer to voxels in
any file. This module therefore reads the header first, as ITK does, and passes only complete headers to ITK.
"""

from __future__ import annotations

import re
from pathlib import Path

import itk
import numpy as np

ITK_SUFFIXES = (".mha", ".mhd", ".nrrd", ".nhdr")
_MAX_HEADER_BYTES = 2**16
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_LOCAL = "LOCAL"
_NRRD_SPACES = (
    "left-posterior-superior", "lps", "right-anterior-superior", "ras", "left-anterior-superior", "las",
)  # fmt: skip
"""Patient spaces that ITK converts."""
_CONTROL = re.compile(r"[^\t -~\ufffd]")
"""What no program writes into a line; other characters than ASCII are replaced before."""


def read_itk_volume(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Read a 3D MetaImage or NRRD file.

    Returns:
        Voxels ``[X, Y, Z]`` float32 as stored, and the RAS voxel-to-mm affine ``[4, 4]``.

    Raises:
        ValueError: the file is unreadable, does not state orientation and voxels, or the volume is not 3D with one
            value per voxel.
    """
    path = Path(path)
    _check_header(path, _header(path))
    reader = itk.ImageFileReader[itk.Image[itk.F, 3]].New()
    reader.SetImageIO(itk.MetaImageIO.New() if _is_meta_image(path) else itk.NrrdImageIO.New())
    reader.SetFileName(str(path))
    try:
        reader.Update()
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise ValueError(f"{path}: not a readable volume ({reason}); copy or export it again") from error
    image = reader.GetOutput()
    return np.ascontiguousarray(itk.array_from_image(image).T), _affine(path, image)


def voxel_file(path: Path) -> Path | None:
    """Return the file next to a header that holds its voxels; None if they are in the same file.

    Raises:
        ValueError: the header is unreadable, or names several files or a file in another folder.
    """
    header = _header(path)
    name = (
        header.get("ElementDataFile")
        if _is_meta_image(path)
        else header.get("data file", header.get("datafile", _LOCAL))
    )
    if name == _LOCAL:
        return None
    if not name or name.startswith("LIST") or "%" in name or Path(name).name != name:
        raise ValueError(
            f"{path}: its voxels are in {name!r}; a volume must be one file, or a header and one file next to it"
        )
    return path.with_name(name)


def _affine(path: Path, image: itk.Image) -> np.ndarray:
    lps = np.eye(4)
    lps[:3, :3] = itk.array_from_matrix(image.GetDirection()) @ np.diag(image.GetSpacing())
    lps[:3, 3] = image.GetOrigin()
    if not np.isfinite(lps).all() or abs(np.linalg.det(lps[:3, :3])) < 1e-9:
        raise ValueError(f"{path}: its axes are singular or not finite: {lps.tolist()}; export it again")
    return _LPS_TO_RAS @ lps


def _check_header(path: Path, header: dict[str, str]) -> None:
    """Refuse a header with gaps that ITK would fill in by itself."""
    stated = header.get("NDims", header.get("dimension"))
    channels = header.get("ElementNumberOfChannels", "1")
    if stated != "3" or channels != "1":
        raise ValueError(
            f"{path}: a CT is one 3D volume with one value per voxel, got {stated or 'no'} dimensions and {channels} "
            "values; export it as such"
        )
    if _is_meta_image(path):
        is_placed = any(key in header for key in ("TransformMatrix", "Rotation", "Orientation"))
        remedy = "state TransformMatrix"
    else:
        is_placed = header.get("space", "").lower() in _NRRD_SPACES and "space directions" in header
        remedy = f"state 'space', one of {', '.join(_NRRD_SPACES[::2])}, and 'space directions'"
    if not is_placed:
        raise ValueError(f"{path}: the header states no orientation, so left and right are unknown; {remedy}")
    data = voxel_file(path)
    if data is not None and not data.is_file():
        raise ValueError(f"{path}: its voxels are in {data.name}, which is missing; copy both files")


def _header(path: Path) -> dict[str, str]:
    """Return the fields of a header as ITK finds them: the first of each name, up to the end of the header.

    Names are exact in MetaImage and in lower case in NRRD.
    """
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_HEADER_BYTES + 1).decode("ascii", "replace")
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from error
    is_meta_image, is_cut = _is_meta_image(path), len(text) > _MAX_HEADER_BYTES
    lines = text.split("\n") if is_meta_image else re.split("\r\n|\r|\n", text)
    split, last = (_meta_image_field, "ElementDataFile") if is_meta_image else (_nrrd_field, "")
    fields: dict[str, str] = {}
    for line in lines[:-1] if is_cut else lines:
        try:
            name, value = split(line)
        except ValueError as error:
            raise ValueError(f"{path}: its header has a line {line[:60]!r} that {error}; export it again") from error
        fields.setdefault(name, value)
        if name == last:
            return fields
    if is_cut:
        raise ValueError(f"{path}: its header does not end within {_MAX_HEADER_BYTES} bytes; export it again")
    return fields


def _meta_image_field(line: str) -> tuple[str, str]:
    """Return name and value; both are empty for a blank line."""
    line = line.removesuffix("\r")
    if _CONTROL.search(line):
        raise ValueError("holds control characters")
    if not line.strip():
        return "", ""
    name, *values = re.split("[=:]", line, maxsplit=1)
    if not values:
        raise ValueError("is no 'name = value'")
    return name.strip(), values[0].strip()


def _nrrd_field(line: str) -> tuple[str, str]:
    """Return name and value; a line that is no field has itself as its name, which is empty at the header's end."""
    name, _, value = line.partition(": ")
    if line.startswith("#") or ":=" in name:
        return line, ""
    return name.lower(), value.strip()


def _is_meta_image(path: Path) -> bool:
    return path.suffix.lower() in (".mha", ".mhd")
