"""Recognition of DICOM files and their elements by content, never by name."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.dataset import Dataset, FileDataset
from pydicom.filereader import read_dataset, read_preamble
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

HEAD_BYTES = 2**14
"""Bytes read to recognise a file: genuine DICOM needs a few hundred, and a hostile file may have any number."""
_LONGEST_FIRST_ELEMENT = 2**10


def is_dicom(data: bytes) -> bool:
    """Return whether a file's content is DICOM, with the preamble or, as some archives store it, without.

    The preamble may imitate another file type, such as TIFF (PS3.10 section 7.1). Without one, the file begins with an
    element of group 2 or 8, followed by a two-letter value representation or, if that is implicit, by a short length.
    """
    if data[128:132] == b"DICM":
        return True
    starts = data[:2] in (b"\x02\x00", b"\x08\x00") and data[3:4] == b"\x00"
    letters, length = data[4:6], int.from_bytes(data[4:8], "little")
    return starts and (letters.isalpha() and letters.isupper() or length <= _LONGEST_FIRST_ELEMENT)


def stored_class(head: bytes) -> UID:
    """Return the SOP class stated in the first bytes of a DICOM file; empty if there is none."""
    return UID(read_meta(BytesIO(head)).get("MediaStorageSOPClassUID", ""))


def may_hold_image(sop_class: UID) -> bool:
    """Return whether a SOP class, empty if unknown, can hold images, unlike reports, presentation states, directories.

    Private classes of vendors may hold anything.
    """
    return not sop_class or sop_class.is_private or "Image" in sop_class.name


def read_meta(file: BytesIO) -> Dataset:
    """Read the elements of group 2 and leave the file positioned after them."""
    read_preamble(file, force=True)
    return read_dataset(file, False, True, stop_when=lambda tag, vr, length: tag.group != 2)


def read_file(path: Path, **options: Any) -> FileDataset:
    """Read a trusted file, such as a slice of a training CT, with pydicom's ``options``.

    Raises:
        ValueError: the content is not DICOM, or is damaged.
    """
    try:
        with path.open("rb") as file:
            has_proof = is_dicom(file.read(HEAD_BYTES))
        if not has_proof:
            raise ValueError("it does not begin as one")
        return with_transfer_syntax(dcmread(path, force=True, **options))
    except Exception as error:  # on damaged bytes pydicom raises errors of any kind
        raise ValueError(f"{path}: not a readable DICOM file ({error}); copy or export it again") from error


def with_transfer_syntax(dataset: FileDataset) -> FileDataset:
    """Return the data set; if it lacks meta information, set the transfer syntax that it was read with."""
    if "TransferSyntaxUID" not in dataset.file_meta:
        is_implicit, is_little_endian = dataset.original_encoding
        little_endian = ImplicitVRLittleEndian if is_implicit else ExplicitVRLittleEndian
        dataset.file_meta.TransferSyntaxUID = little_endian if is_little_endian else ExplicitVRBigEndian
    return dataset
