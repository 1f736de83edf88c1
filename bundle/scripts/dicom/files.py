"""What tells a DICOM file from others, and its elements from the bytes: the content, never the name."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.dataset import Dataset, FileDataset
from pydicom.filereader import read_dataset, read_preamble
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

HEAD_BYTES = 2**14
"""A DICOM file says within the first few hundred bytes what it is; a hostile one may go on saying so."""
_LONGEST_FIRST_ELEMENT = 2**10


def is_dicom(data: bytes) -> bool:
    """Whether a file's content is DICOM, with the preamble or, as some archives store it, without.

    A preamble may be that of another kind of file, such as TIFF (PS3.10 section 7.1). Without one, the file begins with
    an element of group 2 or 8 whose value representation is two letters, or left out and followed by a short length.
    """
    if data[128:132] == b"DICM":
        return True
    starts = data[:2] in (b"\x02\x00", b"\x08\x00") and data[3:4] == b"\x00"
    letters, length = data[4:6], int.from_bytes(data[4:8], "little")
    return starts and (letters.isalpha() and letters.isupper() or length <= _LONGEST_FIRST_ELEMENT)


def stored_class(head: bytes) -> UID:
    """What the first bytes of a DICOM file say that it stores; empty if they do not."""
    return UID(read_meta(BytesIO(head)).get("MediaStorageSOPClassUID", ""))


def may_hold_image(sop_class: UID) -> bool:
    """Whether a class, empty if it is not known, can be of images: reports, presentation states, directories hold none.

    Vendors' own classes may be of anything.
    """
    return not sop_class or sop_class.is_private or "Image" in sop_class.name


def read_meta(file: BytesIO) -> Dataset:
    """The elements of group 2; leaves the file behind them."""
    read_preamble(file, force=True)
    return read_dataset(file, False, True, stop_when=lambda tag, vr, length: tag.group != 2)


def read_file(path: Path, **options: Any) -> FileDataset:
    """Read a trusted file, such as a slice of a training CT, by pydicom's ``options``.

    Raises:
        ValueError: its content is not DICOM, or is damaged.
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
    """The same data set; one without meta information is given the syntax that it was read in."""
    if "TransferSyntaxUID" not in dataset.file_meta:
        is_implicit, is_little_endian = dataset.original_encoding
        little_endian = ImplicitVRLittleEndian if is_implicit else ExplicitVRLittleEndian
        dataset.file_meta.TransferSyntaxUID = little_endian if is_little_endian else ExplicitVRBigEndian
    return dataset
