"""Simulated radiographs as DICOM: Digital X-Ray images, for processing as a detector counts or for presentation.

Films are laid out for radiologists: the head is up; the patient's right is on the left of the frontal view (Patient
Orientation L, F) and the front on the left of the lateral one (P, F), whichever side the source was on.

The beam is that of an isocentric C-arm: Distance Source to Patient is the distance to the isocentre, and the Positioner
Primary Angle gives the source's side. A file of a parallel beam states neither distance, because both are infinite.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import UID, DigitalXRayImageStorageForPresentation, DigitalXRayImageStorageForProcessing
from pydicom.valuerep import DSfloat

from scripts.dicom.identity import NOTICE, begin_study, code, identity, save, uid
from scripts.geometry import VIEWS, BiplanarGeometry
from scripts.io.nifti import check_line_integrals

AIR_COUNTS = 60000
"""Stored value of the unattenuated beam."""
DISPLAY_BITS = 12
_DISPLAY_GAMMA = 0.6


class Form(NamedTuple):
    """Encoding of line integrals in a Digital X-Ray image.

    Attributes:
        sop_class: SOP class; this and the following attributes are as in DICOM.
        intent: Presentation Intent Type.
        photometric: Photometric Interpretation.
        shape: Presentation LUT Shape.
        relationship: Pixel Intensity Relationship.
        sign: whether values grow (1) or fall (-1) with the intensity of the X-rays.
        bits: stored bits.
        encode: maps line integrals ``[rows, columns]`` to stored values.
        meaning: description in words.
    """

    sop_class: UID
    intent: str
    photometric: str
    shape: str
    relationship: str
    sign: int
    bits: int
    encode: Callable[[np.ndarray], np.ndarray]
    meaning: str


def counts_of(line_integrals: np.ndarray) -> np.ndarray:
    """Return the counts of a 16-bit detector: ``AIR_COUNTS * exp(-p)`` rounded, at least 1 so that the log exists.

    Rounding changes p by at most exp(p) / (2 * AIR_COUNTS), to first order: 0.025 at p = 8. Starved pixels beyond
    p = 11 read 11; the brightest that 16 bits can hold read -0.088.
    """
    return np.rint(AIR_COUNTS * np.exp(-line_integrals)).clip(1, 2**16 - 1).astype(np.uint16)


def display_of(line_integrals: np.ndarray) -> np.ndarray:
    """Return a display image: bone bright, soft tissue lifted, scaled per image and so without physical units."""
    shown = line_integrals.clip(0) / np.percentile(line_integrals, 99.9)
    return np.rint((2**DISPLAY_BITS - 1) * shown.clip(max=1) ** _DISPLAY_GAMMA).astype(np.uint16)


FORMS = {
    "processing": Form(
        sop_class=DigitalXRayImageStorageForProcessing,
        intent="FOR PROCESSING",
        photometric="MONOCHROME1",
        shape="INVERSE",
        relationship="LIN",
        sign=1,
        bits=16,
        encode=counts_of,
        meaning=f"I = {AIR_COUNTS} exp(-line integral)",
    ),
    "presentation": Form(
        sop_class=DigitalXRayImageStorageForPresentation,
        intent="FOR PRESENTATION",
        photometric="MONOCHROME2",
        shape="IDENTITY",
        relationship="LOG",
        sign=-1,
        bits=DISPLAY_BITS,
        encode=display_of,
        meaning="line integrals with a gamma, scaled per image",
    ),
}


class _Pose(NamedTuple):
    """Attributes of the film that a source on one side makes."""

    position: str
    view_code: tuple[str, str, str]
    primary_angle_deg: int


_POSES = {
    "anterior": _Pose("AP", ("399348003", "SCT", "antero-posterior"), 180),
    "posterior": _Pose("PA", ("272479007", "SCT", "postero-anterior"), 0),
    "right": _Pose("LL", ("399173006", "SCT", "left lateral"), 90),
    "left": _Pose("RL", ("399198007", "SCT", "right lateral"), -90),
}
"""Poses by source side. A left lateral has the patient's left at the detector; see PS3.3 C.8.7.5.1.2 for angles."""
_ORIENTATION = {"frontal": ["L", "F"], "lateral": ["P", "F"]}


def simulated_header(name: str, exam: str) -> Dataset:
    """Return the header for both films of one simulated exam: today's study of a patient with ID ``name``.

    Args:
        name: 1 to 64 characters, no backslash.
        exam: text that identifies this exam; equal text gives an equal study.

    Raises:
        ValueError: DICOM cannot hold the name.
    """
    if not 0 < len(name) <= 64 or "\\" in name:
        raise ValueError(f"patient {name!r}: an ID has 1 to 64 characters, no backslash; rename the case")
    header = Dataset()
    header.SpecificCharacterSet = "ISO_IR 192"
    header.PatientName, header.PatientID = "SIMULATED^PATIENT", name
    begin_study(header, f"{name} {exam}", datetime.now().strftime("%Y%m%d"))
    header.StudyDescription = f"SIMULATED radiographs, {NOTICE}"
    return header


def write_dx(
    path: Path, line_integrals: np.ndarray, view: str, geometry: BiplanarGeometry, header: Dataset, form: Form
) -> None:
    """Write one view as a Digital X-Ray image that states that it is simulated.

    Args:
        path: output file, replaced if it exists.
        line_integrals: ``[N, N]`` with axes (u, w) or (v, w).
        view: ``"frontal"`` or ``"lateral"``.
        geometry: geometry of the exam.
        header: patient and study, from :func:`simulated_header`.
        form: one of :data:`FORMS`.

    Raises:
        ValueError: the pixels are not line integrals on this geometry's detector.
    """
    check_line_integrals(line_integrals, path)
    if line_integrals.shape != (geometry.detector_pixels,) * 2:
        raise ValueError(
            f"{path}: {line_integrals.shape} pixels, but the geometry has detector_pixels = "
            f"{geometry.detector_pixels}; resample the image or correct the geometry"
        )
    # columns run to the patient's left or back, rows to the feet: opposite to u or v, and w
    stored = form.encode(line_integrals[::-1, ::-1].T)
    content = hashlib.sha256(stored.tobytes() + geometry.to_json().encode()).hexdigest()
    dataset = identity([header], content, datetime.now(timezone.utc))
    dataset.SeriesInstanceUID = uid("series", dataset.StudyInstanceUID, view, form.intent, content)
    dataset.SOPInstanceUID = uid(dataset.SeriesInstanceUID, "1")
    dataset.InstanceNumber, dataset.SeriesNumber = 1, VIEWS.index(view) + 1
    _describe(dataset, view, form)
    _set_beam(dataset, view, geometry)
    _set_pixels(dataset, stored, form)
    save(path, dataset)


def _describe(dataset: Dataset, view: str, form: Form) -> None:
    dataset.SOPClassUID = form.sop_class
    dataset.Modality = "DX"
    dataset.PresentationIntentType = form.intent
    dataset.ImageType = ["DERIVED", "PRIMARY"]
    dataset.SyntheticData = "YES"
    dataset.ContentQualification = "RESEARCH"
    dataset.SeriesDescription = f"SIMULATED {view} radiograph, {NOTICE}"
    dataset.ImageComments = f"{NOTICE}. Simulated by projecting a CT; no such X-ray was taken."
    dataset.DerivationDescription = f"Simulated by projecting a CT; {form.meaning}"
    dataset.Manufacturer, dataset.ManufacturerModelName = "Simulation", "Cone-beam projection of a CT"
    dataset.DetectorType = None
    dataset.ImageLaterality = "U"
    dataset.AnatomicRegionSequence = []
    dataset.AcquisitionContextSequence = []
    dataset.BurnedInAnnotation = "NO"
    dataset.LossyImageCompression = "00"


def _set_beam(dataset: Dataset, view: str, geometry: BiplanarGeometry) -> None:
    pose = _POSES[geometry.frontal_source if view == "frontal" else geometry.lateral_source]
    dataset.PatientOrientation = _ORIENTATION[view]
    dataset.ViewPosition = pose.position
    dataset.ViewCodeSequence = code(*pose.view_code)
    dataset.PositionerType = "CARM"
    dataset.PositionerPrimaryAngle, dataset.PositionerSecondaryAngle = pose.primary_angle_deg, 0
    dataset.ImagerPixelSpacing = [DSfloat(geometry.detector_spacing_mm, auto_format=True)] * 2
    if not geometry.is_parallel:
        isocentre_mm, detector_mm = geometry.source_to_isocentre_mm, geometry.source_to_detector_mm
        dataset.DistanceSourceToPatient = DSfloat(isocentre_mm, auto_format=True)
        dataset.DistanceSourceToDetector = DSfloat(detector_mm, auto_format=True)
        dataset.EstimatedRadiographicMagnificationFactor = DSfloat(detector_mm / isocentre_mm, auto_format=True)


def _set_pixels(dataset: Dataset, stored: np.ndarray, form: Form) -> None:
    dataset.Rows, dataset.Columns = stored.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, form.photometric
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = (
        16,
        form.bits,
        form.bits - 1,
        0,
    )
    dataset.PixelIntensityRelationship, dataset.PixelIntensityRelationshipSign = form.relationship, form.sign
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = 0, 1, "US"
    dataset.PresentationLUTShape = form.shape
    if form.sop_class == DigitalXRayImageStorageForPresentation:
        dataset.WindowCenter, dataset.WindowWidth = 2 ** (form.bits - 1), 2**form.bits
    dataset.PixelData = stored.tobytes()
