"""Radiographs stored as DICOM: DX, CR, single frames of XA and RF, and any of them as a secondary capture."""

from __future__ import annotations

import hashlib
from io import BytesIO
from pathlib import Path

from pydicom import dcmread
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset, FileDataset
from pydicom.pixels import pixel_array
from pydicom.tag import Tag
from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    DeflatedExplicitVRLittleEndian,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLSNearLossless,
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    SecondaryCaptureImageStorage,
    XRayAngiographicImageStorage,
    XRayRadiofluoroscopicImageStorage,
)

from scripts.dicom.attributes import integer, text
from scripts.dicom.codec import decode
from scripts.dicom.files import is_dicom, read_meta, with_transfer_syntax
from scripts.dicom.film_scale import scaled
from scripts.dicom.pixels import (
    OVERLAY_BITS,
    PixelFormat,
    StoredPixels,
    check_decodable,
    pixel_format,
    stored_pixels,
    trim,
)
from scripts.dicom.projection import read_projection
from scripts.dicom.shutter import KEYWORDS, shown_area
from scripts.io.intake import check_pixels, check_shape, read_bytes
from scripts.io.radiograph import Radiograph

_SOP_CLASSES = (
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    ComputedRadiographyImageStorage,
    XRayAngiographicImageStorage,
    XRayRadiofluoroscopicImageStorage,
    SecondaryCaptureImageStorage,
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
)
_MODALITIES = ("CR", "DX", "RF", "RG", "XA")
"""Modalities accepted in any class: flat panels are stored as CR, C-arm films as DX, and exports as captures."""
_LOSSY = (JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless)
_PIXEL_DATA = Tag("PixelData")
_MAX_READS = 100_000
"""Limit on read calls in the header: an item takes a few, and a radiograph has a few hundred items."""
_MAX_ELEMENT_BYTES = 2**20
"""Largest element except for the pixels; the largest regular one is a look-up table of 128 KiB."""
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
PixelRepresentation PixelPaddingValue PixelPaddingRangeLimit
ModalityLUTSequence RescaleIntercept RescaleSlope VOILUTSequence PixelData
""".split()  # noqa: SIM905


def read_dicom_radiograph(path: str | Path, frame: int | None = None, intensity: str | None = None) -> Radiograph:
    """Read one radiograph.

    Args:
        path: DICOM file; nothing in it is ever used as a path.
        frame: index from 0 in a multi-frame file.
        intensity: scale of the pixels by the user's account, which overrides the file's.

    Raises:
        ValueError: the file is of another kind, damaged or contradictory, or holds no usable image; the message names
            the file, the rule, the value and the remedy.
    """
    path = Path(path)
    data = read_bytes(path)
    dataset = _parse(path, data)
    modality = _modality(path, dataset)
    form = _pixel_format(path, dataset)
    frame = _chosen(path, form.frames, frame)
    stored, excess = _stored(path, data, dataset, form, frame)
    film = scaled(path, dataset, form, stored.values, intensity)
    trailing = (f"{path}: {excess} bytes follow its pixels and are passed over",) if excess else ()
    projection = read_projection(path, dataset, frame)
    syntax = dataset.file_meta.TransferSyntaxUID
    return Radiograph(
        path=str(path),
        sha256=hashlib.sha256(data).hexdigest(),
        pixels=film.pixels,
        scale=film.scale,
        shown=shown_area(dataset, stored.is_padding),
        modality=modality,
        is_lossy=text(dataset, "LossyImageCompression") == "01" or syntax in _LOSSY,
        header=_header(dataset),
        warnings=(*film.warnings, *trailing, *check_pixels(path, film.pixels), *projection.warnings),
        **projection.fields,
    )


class _Budgeted(BytesIO):
    """Stream that refuses a header of a million items, which would take a hundred times its bytes in memory."""

    reads = 0

    def read(self, size: int | None = -1) -> bytes:
        self.reads += 1
        if self.reads > _MAX_READS:
            raise ValueError("its header has too many elements")
        return super().read(size)


def _parse(path: Path, data: bytes) -> FileDataset:
    """Read the elements that this module needs, all decoded except the pixels."""
    if not is_dicom(data):
        raise ValueError(
            f"{path}: not a DICOM file; give a DX, CR, RF or XA file, or a picture or NIfTI by its own suffix"
        )
    try:
        dataset = _read_elements(data)
    except Exception as error:  # on hostile bytes pydicom raises errors of any kind
        raise ValueError(f"{path}: not a readable DICOM file ({error}); copy or export it again") from error
    return with_transfer_syntax(dataset)


def _read_elements(data: bytes) -> FileDataset:
    file = _Budgeted(data)
    if read_meta(file).get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
        raise ValueError("it is deflated as a whole, which is not supported")
    file.seek(0)
    dataset = dcmread(file, force=True, specific_tags=[*map(Tag, [*_HEADER, *_IMAGE, *KEYWORDS]), *OVERLAY_BITS])
    for raw in dataset.values():
        if isinstance(raw, RawDataElement) and raw.tag != _PIXEL_DATA and raw.length > _MAX_ELEMENT_BYTES:
            raise ValueError(f"element {raw.tag} has {raw.length} bytes")
    for _ in dataset.iterall():
        pass
    return dataset


def _modality(path: Path, dataset: Dataset) -> str:
    sop_class, modality = UID(text(dataset, "SOPClassUID")), text(dataset, "Modality")
    if modality not in _MODALITIES or sop_class not in _SOP_CLASSES:
        raise ValueError(
            f"{path}: Modality {modality!r} stored as {sop_class.name or 'no SOP class'!r} is not a radiograph that is "
            "read: only DX, CR, RF, RG and XA are, also as a secondary capture (a CT localizer has another geometry); "
            "leave it out, or export the X-ray image itself"
        )
    return modality


def _pixel_format(path: Path, dataset: Dataset) -> PixelFormat:
    samples, photometric = (
        integer(path, dataset, "SamplesPerPixel", default=1),
        text(dataset, "PhotometricInterpretation"),
    )
    if samples != 1 or photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise ValueError(
            f"{path}: {samples} samples per pixel, {photometric or 'no PhotometricInterpretation'}; a radiograph is "
            "one sample of MONOCHROME1 or MONOCHROME2: export the original instead of a colour copy"
        )
    form = pixel_format(path, dataset)
    check_shape(path, form.rows, form.columns)
    return form


def _chosen(path: Path, frames: int, frame: int | None) -> int:
    if frame is None and frames == 1:
        return 0
    if frame is None or not 0 <= frame < frames:
        raise ValueError(f"{path}: {frames} frames, got frame {frame}; choose one, counted from 0, by --frame")
    return frame


def _stored(path: Path, data: bytes, dataset: FileDataset, form: PixelFormat, frame: int) -> tuple[StoredPixels, int]:
    """Return the stored pixels of one frame and the number of bytes that follow the pixels."""
    if not dataset.get("PixelData"):
        raise ValueError(f"{path}: no pixel data: the file is truncated or holds no image; copy or export it again")
    syntax = UID(dataset.file_meta.TransferSyntaxUID)
    check_decodable(path, syntax)
    excess = 0
    try:
        if syntax.is_encapsulated:
            raw = decode(data, frame)
        else:
            excess = trim(dataset, form)
            raw = pixel_array(dataset, index=frame, raw=True, correct_unused_bits=False)
        if raw.shape != (form.rows, form.columns):
            raise ValueError(f"{raw.shape[0]} x {raw.shape[1]} pixels found")
    except Exception as error:  # on hostile bytes pydicom raises errors of any kind
        raise ValueError(
            f"{path}: its pixels, {form.rows} x {form.columns} stored as {syntax.name}, cannot be decoded ({error}); "
            "export it again, uncompressed"
        ) from error
    return stored_pixels(path, dataset, form, raw), excess


def _header(dataset: Dataset) -> Dataset:
    """Return the identity of patient, study and image without malformed elements."""
    header = Dataset()
    for keyword in _HEADER:
        if keyword in dataset and dictionary_VR(keyword) == dataset[keyword].VR and _is_json(dataset[keyword]):
            header[keyword] = dataset[keyword]
    return header


def _is_json(element: DataElement) -> bool:
    try:
        element.to_json_dict(None, 0)
    except Exception:  # of any kind, since a number may be any text
        return False
    return True
