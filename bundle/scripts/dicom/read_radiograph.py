"""Radiographs stored as DICOM: DX, CR and single frames of XA."""

from __future__ import annotations

import hashlib
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydicom import dcmread
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileDataset
from pydicom.filereader import read_dataset, read_preamble
from pydicom.pixels import apply_modality_lut, pixel_array
from pydicom.tag import Tag
from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    DeflatedExplicitVRLittleEndian,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLSNearLossless,
    XRayAngiographicImageStorage,
)

from scripts.dicom.codec import decode
from scripts.dicom.projection import read_projection, text
from scripts.dicom.shutter import KEYWORDS, shown_area
from scripts.io.intake import check_pixels, check_shape, read_bytes
from scripts.io.radiograph import Radiograph

_SOP_CLASSES = {
    DigitalXRayImageStorageForPresentation: ("DX", "CR"),
    DigitalXRayImageStorageForProcessing: ("DX", "CR"),
    ComputedRadiographyImageStorage: ("CR", "DX"),
    XRayAngiographicImageStorage: ("XA",),
}
"""SOP classes that are read, and the modalities they come with: flat panels have long been stored as CR."""
_LOSSY = (JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless)
_PIXEL_DATA = Tag("PixelData")
_MAX_READS = 100_000
"""Reading an item of the header takes a few; a radiograph has a few hundred items."""
_MAX_ELEMENT_BYTES = 2**20
"""Of one element but the pixels; the largest regular one is a look-up table of 128 KiB."""
_HEADER = """
SpecificCharacterSet TimezoneOffsetFromUTC SOPClassUID SOPInstanceUID SeriesInstanceUID FrameOfReferenceUID
StudyInstanceUID StudyID StudyDate StudyTime StudyDescription AccessionNumber ReferringPhysicianName
PatientName PatientID IssuerOfPatientID PatientBirthDate PatientSex PatientAge PatientSize PatientWeight
PatientIdentityRemoved DeidentificationMethod BodyPartExamined Laterality ImageLaterality
Modality Manufacturer ManufacturerModelName InstitutionName StationName
SeriesDescription SeriesNumber InstanceNumber AcquisitionDate AcquisitionTime ContentDate ContentTime KVP
LossyImageCompression LossyImageCompressionRatio LossyImageCompressionMethod
""".split()  # noqa: SIM905
_IMAGE = """
ViewPosition ViewCodeSequence PatientOrientation AnatomicalOrientationType
PositionerType PositionerMotion PositionerPrimaryAngle PositionerSecondaryAngle
DistanceSourceToDetector DistanceSourceToPatient EstimatedRadiographicMagnificationFactor
ImagerPixelSpacing PixelSpacing PixelSpacingCalibrationType
PresentationIntentType PixelIntensityRelationship PixelIntensityRelationshipSign
SamplesPerPixel PhotometricInterpretation NumberOfFrames Rows Columns BitsAllocated BitsStored HighBit
PixelRepresentation ModalityLUTSequence RescaleIntercept RescaleSlope PixelData
""".split()  # noqa: SIM905


def is_dicom(data: bytes) -> bool:
    """Whether a file's content is DICOM, with the preamble or, as some archives store it, without."""
    return data[128:132] == b"DICM" or (data[:2] in (b"\x02\x00", b"\x08\x00") and data[3:4] == b"\x00")


def stored_class(head: bytes) -> UID:
    """What the first bytes of a DICOM file say that it stores; empty if they do not."""
    return UID(_read_meta(BytesIO(head)).get("MediaStorageSOPClassUID", ""))


def read_dicom_radiograph(path: str | Path, frame: int | None = None) -> Radiograph:
    """Read one radiograph.

    Args:
        path: a DX, CR or XA file; nothing in it is ever used as a path.
        frame: which one of a multi-frame file, counted from 0.

    Raises:
        ValueError: not such a file, or one that is damaged, contradicts itself or holds no usable image; the message
            names the file, the rule, the value and the remedy.
    """
    path = Path(path)
    data = read_bytes(path)
    dataset = _parse(path, data)
    modality = _modality(path, dataset)
    form = _pixel_format(path, dataset)
    frame = _chosen(path, form.frames, frame)
    stored = _stored(path, data, dataset, form, frame)
    scale, pixels, pixel_warnings = _values(path, dataset, form, stored)
    projection = read_projection(path, dataset, frame)
    syntax = dataset.file_meta.TransferSyntaxUID
    return Radiograph(
        path=str(path),
        sha256=hashlib.sha256(data).hexdigest(),
        pixels=pixels,
        scale=scale,
        shown=shown_area(dataset, stored),
        modality=modality,
        is_lossy=text(dataset, "LossyImageCompression") == "01" or syntax in _LOSSY,
        header=_header(dataset),
        warnings=(*pixel_warnings, *check_pixels(path, pixels), *projection.warnings),
        **projection.fields,
    )


class _Format(NamedTuple):
    """How a pixel is stored."""

    rows: int
    columns: int
    frames: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    is_signed: bool

    @property
    def extremes(self) -> np.ndarray:
        """The lowest and the highest value that can be stored."""
        low = -(1 << self.bits_stored - 1) if self.is_signed else 0
        return np.array([low, low + (1 << self.bits_stored) - 1], dtype=np.int32)


class _Budgeted(BytesIO):
    """Refuses a header of a million items, which would take a hundred times its bytes in memory."""

    reads = 0

    def read(self, size: int | None = -1) -> bytes:
        self.reads += 1
        if self.reads > _MAX_READS:
            raise ValueError("its header has too many elements")
        return super().read(size)


def _parse(path: Path, data: bytes) -> FileDataset:
    """The elements this module reads, all of them decoded but the pixels."""
    if not is_dicom(data):
        raise ValueError(f"{path}: not a DICOM file; give a DX, CR or XA file, or a picture or NIfTI by its own suffix")
    try:
        dataset = _read_elements(data)
    except Exception as error:  # on hostile bytes pydicom raises errors of any kind
        raise ValueError(f"{path}: not a readable DICOM file ({error}); copy or export it again") from error
    if "TransferSyntaxUID" not in dataset.file_meta:
        is_implicit, is_little_endian = dataset.original_encoding
        little_endian = ImplicitVRLittleEndian if is_implicit else ExplicitVRLittleEndian
        dataset.file_meta.TransferSyntaxUID = little_endian if is_little_endian else ExplicitVRBigEndian
    return dataset


def _read_elements(data: bytes) -> FileDataset:
    file = _Budgeted(data)
    if _read_meta(file).get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
        raise ValueError("it is deflated as a whole, which is not supported")
    file.seek(0)
    dataset = dcmread(file, force=True, specific_tags=[*_HEADER, *_IMAGE, *KEYWORDS])
    for raw in dataset.values():
        if isinstance(raw, RawDataElement) and raw.tag != _PIXEL_DATA and raw.length > _MAX_ELEMENT_BYTES:
            raise ValueError(f"element {raw.tag} has {raw.length} bytes")
    for _ in dataset.iterall():
        pass
    return dataset


def _read_meta(file: BytesIO) -> Dataset:
    read_preamble(file, force=True)
    return read_dataset(file, False, True, stop_when=lambda tag, vr, length: tag.group != 2)


def _modality(path: Path, dataset: Dataset) -> str:
    sop_class, modality = UID(text(dataset, "SOPClassUID")), text(dataset, "Modality")
    if modality not in _SOP_CLASSES.get(sop_class, ()):
        raise ValueError(
            f"{path}: Modality {modality!r} stored as {sop_class.name or 'no SOP class'!r} is not a radiograph that is "
            "read: only DX, CR and XA are (a CT localizer has another geometry); leave it out, or export the X-ray "
            "image itself"
        )
    return modality


def _pixel_format(path: Path, dataset: Dataset) -> _Format:
    samples, photometric = _integer(path, dataset, "SamplesPerPixel"), text(dataset, "PhotometricInterpretation")
    if samples != 1 or photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise ValueError(
            f"{path}: {samples} samples per pixel, {photometric or 'no PhotometricInterpretation'}; a radiograph is "
            "one sample of MONOCHROME1 or MONOCHROME2: export the original instead of a colour copy"
        )
    form = _Format(
        rows=_integer(path, dataset, "Rows"),
        columns=_integer(path, dataset, "Columns"),
        frames=_integer(path, dataset, "NumberOfFrames", default=1),
        bits_allocated=_integer(path, dataset, "BitsAllocated"),
        bits_stored=_integer(path, dataset, "BitsStored"),
        high_bit=_integer(path, dataset, "HighBit"),
        is_signed=_integer(path, dataset, "PixelRepresentation") == 1,
    )
    check_shape(path, form.rows, form.columns)
    allocated, stored, high = form.bits_allocated, form.bits_stored, form.high_bit
    if allocated not in (8, 16) or not 8 <= stored <= high + 1 <= allocated:
        raise ValueError(
            f"{path}: BitsAllocated {allocated}, BitsStored {stored}, HighBit {high}; 8 to 16 bits are read, stored "
            "within 8 or 16: export it again"
        )
    return form


def _chosen(path: Path, frames: int, frame: int | None) -> int:
    if frame is None and frames == 1:
        return 0
    if frame is None or not 0 <= frame < frames:
        raise ValueError(f"{path}: {frames} frames, got frame {frame}; choose one, counted from 0, by --frame")
    return frame


def _stored(path: Path, data: bytes, dataset: FileDataset, form: _Format, frame: int) -> np.ndarray:
    """Stored values ``[rows, columns]`` of one frame, PS3.5 section 8.1.1: the bits up to HighBit, sign extended."""
    if not dataset.get("PixelData"):
        raise ValueError(f"{path}: no pixel data: the file is truncated or holds no image; copy or export it again")
    syntax = UID(dataset.file_meta.TransferSyntaxUID)
    try:
        if syntax.is_encapsulated:
            raw = decode(data, frame)
        else:
            _check_length(dataset, form)
            raw = pixel_array(dataset, index=frame, raw=True, correct_unused_bits=False)
        if raw.shape != (form.rows, form.columns):
            raise ValueError(f"{raw.shape[0]} x {raw.shape[1]} pixels found")
    except Exception as error:  # on hostile bytes pydicom raises errors of any kind
        raise ValueError(
            f"{path}: its pixels, {form.rows} x {form.columns} stored as {syntax.name}, cannot be decoded ({error}); "
            "export it again, uncompressed"
        ) from error
    unused = form.bits_allocated - 1 - form.high_bit
    return np.right_shift(np.left_shift(raw, unused), form.bits_allocated - form.bits_stored)


def _check_length(dataset: Dataset, form: _Format) -> None:
    if dataset["PixelData"].is_undefined_length:
        raise ValueError("they are compressed, against the transfer syntax")
    declared = form.rows * form.columns * form.frames * form.bits_allocated // 8
    if not declared <= len(dataset.PixelData) <= declared + declared % 2:
        raise ValueError(f"{len(dataset.PixelData)} bytes present, {declared} declared")


def _values(path: Path, dataset: Dataset, form: _Format, stored: np.ndarray) -> tuple[str, np.ndarray, tuple[str, ...]]:
    """Scale, pixels ``[rows, columns]`` float32 of that scale, and warnings.

    A relationship with the opposite sign, and MONOCHROME1, are undone after the modality LUT, on which both act
    (PS3.4 N.2), by exchanging the lowest and the highest value that the declared bits can give there.
    """
    try:
        values = apply_modality_lut(stored, dataset)
        if dataset.get("ModalityLUTSequence"):
            extremes = np.array([0, (1 << dataset.ModalityLUTSequence[0].LUTDescriptor[2]) - 1])
        else:
            extremes = apply_modality_lut(form.extremes, dataset)
    except Exception as error:  # on hostile bytes pydicom raises errors of any kind
        raise ValueError(f"{path}: its modality LUT cannot be applied ({error}); export it again") from error
    is_plain = not form.is_signed and np.array_equal(extremes, form.extremes) and not dataset.get("ModalityLUTSequence")
    scale, is_inverted, warnings = _scale(path, dataset, is_plain)
    pixels = extremes.sum() - values if is_inverted else values
    return scale, pixels.astype(np.float32), warnings


def _scale(path: Path, dataset: Dataset, is_plain: bool) -> tuple[str, bool, tuple[str, ...]]:
    """What the values mean, whether they run the other way, and warnings.

    PS3.3 C.8.11.3.1.2: with PixelIntensityRelationshipSign 1 stored values grow with the X-ray intensity, with -1 they
    fall. It says so of stored values, hence only without a modality LUT, which DX has none of.

    XA has no sign and is always MONOCHROME2: by C.8.7.1.1.2 LIN and LOG are of the intensity, so bone is dark, and DISP
    is stored as angiograms are shown, which is so too. Elsewhere PhotometricInterpretation says what is shown bright,
    and bone is.
    """
    is_raw = (
        text(dataset, "SOPClassUID") == DigitalXRayImageStorageForProcessing
        and text(dataset, "PresentationIntentType") == "FOR PROCESSING"
    )
    relationship, sign = text(dataset, "PixelIntensityRelationship"), dataset.get("PixelIntensityRelationshipSign")
    stated = f"PixelIntensityRelationship {relationship or 'not stated'}, sign {sign or 'not stated'}"
    if is_raw and is_plain and relationship in ("LIN", "LOG") and sign in (1, -1):
        return ("counts", sign == -1, ()) if relationship == "LIN" else ("log", sign == 1, ())
    if text(dataset, "Modality") == "XA":
        shade = "bright" if sign == -1 else "dark"
        return "display", sign != -1, (f"{path}: XA does not state how it was processed; bone taken as {shade} in it",)
    is_inverted = text(dataset, "PhotometricInterpretation") == "MONOCHROME1"
    reason = f"for processing, but {stated} or a modality LUT" if is_raw else "post-processed for display"
    warnings = [f"{path}: {reason}: its values tell attenuation only by their order"]
    if sign == (-1 if is_inverted else 1):
        shown = text(dataset, "PhotometricInterpretation")
        warnings.append(f"{path}: {stated} contradicts {shown}, by which bone is bright; the latter is followed")
    return "display", is_inverted, tuple(warnings)


def _header(dataset: Dataset) -> Dataset:
    """Identity of patient, study and image; elements of another type than the standard's are left out."""
    header = Dataset()
    for keyword in _HEADER:
        if keyword in dataset and dictionary_VR(keyword) == dataset[keyword].VR:
            header[keyword] = dataset[keyword]
    return header


def _integer(path: Path, dataset: Dataset, keyword: str, default: int | None = None) -> int:
    value = dataset.get(keyword)
    value = default if value in (None, "") else value
    if not isinstance(value, int):
        raise ValueError(f"{path}: {keyword} is {value!r}, expected a whole number; export it again")
    return int(value)
