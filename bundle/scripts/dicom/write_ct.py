"""Reconstructed volumes as DICOM: CT Image Storage, one file per slice, marked as synthetic wherever possible.

Slices are axial, columns run to the patient's left and rows to posterior, as for any CT. Positions are in a frame of
reference of its own, whose origin is the isocentre of the radiographs; the patient is taken as lying head first and
supine, which is nominal.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage
from pydicom.valuerep import DSfloat

from scripts.dicom.attributes import text
from scripts.dicom.identity import NOTICE, code, identity, plain, save, uid

BODY_PART = "CHESTABDPELVIS"
"""Body part of a series whose sources state none of the trunk; without one, the standard requires a laterality."""
_UNPAIRED_OF_THE_TRUNK = """
CHEST ABDOMEN PELVIS CHESTABDOMEN ABDOMENPELVIS CHESTABDPELVIS NECKCHEST NECKCHESTABDOMEN NECKCHESTABDPELV WHOLEBODY
SPINE CSPINE CTSPINE TSPINE TLSPINE LSPINE LSSPINE SSPINE COCCYX STERNUM
""".split()  # noqa: SIM905
"""Defined terms of PS3.16 table L-1 that need no laterality; of a paired part, the volume shows both sides."""
_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_SHEAR_TOLERANCE = 1e-4


@dataclass(frozen=True)
class CtDescription:
    """Provenance stored in a series.

    Attributes:
        exam: text that identifies the inputs, for example their digests and options. Within a study, equal text gives
            an equal frame of reference; if the inputs state no patient or study, it also determines these.
        software: name of the software that made the series.
        version: version of the software.
        weights_sha256: digest of the network's weights.
        derivation: what decides the voxels beside the weights: seed, sampling, grid, refining stage and consistency.
        series_number: number of the CT series; its uncertainty has the next one.
        is_lossy: whether a source is known to have lossy compression, even if its header does not say so.
        source: description of the radiographs that the volume was made from.
        uncertainty: what the uncertainty is: predicted, or the standard deviation of how many samples.
        created: creation time with time zone, the same for a CT and its uncertainty.
    """

    exam: str
    software: str
    version: str
    weights_sha256: str
    derivation: str = ""
    series_number: int = 9001
    is_lossy: bool = False
    source: str = "2 X-rays"
    uncertainty: str = "standard deviation"
    created: datetime = field(default_factory=lambda: datetime.now(timezone.utc))


class _Kind(NamedTuple):
    """Meaning and storage of the voxels of a series; its texts contain placeholders for ``source`` and the like."""

    title: str
    comment: str
    image_type: tuple[str, ...]
    dtype: type
    slope: float
    windows: dict[str, tuple[int, int]]
    number_offset: int

    def described(self, description: CtDescription) -> _Kind:
        """Return this kind with its texts completed."""
        known = vars(description)
        return self._replace(title=self.title.format(**known), comment=self.comment.format(**known))


_CT = _Kind(
    title=f"SYNTHETIC CT from {{source}}, {NOTICE}",
    comment=f"{NOTICE}. Synthetic CT estimated from {{source}}. Research only.",
    image_type=("DERIVED", "SECONDARY", "AXIAL"),
    dtype=np.int16,
    slope=1.0,
    windows={"SOFT TISSUE": (40, 400), "LUNG": (-600, 1500), "BONE": (400, 1800)},
    number_offset=0,
)
# CT Image Storage, because every viewer can overlay it on a CT. The unit is HU, though 0 is not water. The texts, value
# 5 of Image Type (4 is for multi-energy CT) and the Real World Value Mapping state that this is not a CT.
_UNCERTAINTY = _Kind(
    title=f"UNCERTAINTY (SD in HU), not a CT, {NOTICE}",
    comment=f"{NOTICE}. Not a CT: {{uncertainty}}, in HU, of a synthetic CT estimated from {{source}}.",
    image_type=("DERIVED", "SECONDARY", "AXIAL", "", "STD_DEVIATION"),
    dtype=np.uint16,
    slope=0.1,
    windows={"UNCERTAINTY": (150, 300)},
    number_offset=1,
)


def write_ct_series(
    folder: Path, hu: np.ndarray, affine: np.ndarray, sources: Mapping[str, Dataset], description: CtDescription
) -> list[Path]:
    """Write a volume in HU, rounded to whole numbers, as a CT series.

    Args:
        folder: existing folder for this series alone.
        hu: ``[U, V, W]``.
        affine: RAS voxel-to-mm ``[4, 4]``, without shear, in any orientation.
        sources: headers of the radiographs by view, as in :class:`~scripts.io.radiograph.Radiograph`; empty for
            files that are not DICOM.
        description: provenance of the volume.

    Returns:
        The files, from inferior to superior.

    Raises:
        ValueError: the volume holds NaN or exceeds 16 bits, the affine is sheared, or the sources are of two patients.
    """
    return _write(folder, hu, affine, sources, description, _CT)


def write_uncertainty_series(
    folder: Path, std_hu: np.ndarray, affine: np.ndarray, sources: Mapping[str, Dataset], description: CtDescription
) -> list[Path]:
    """Write the voxel-wise standard deviation in HU, to 0.1 HU, as a companion series of a CT.

    It shares the CT's description, study and frame of reference, and states that it is not a CT. Arguments, result and
    errors are those of :func:`write_ct_series`.
    """
    return _write(folder, std_hu, affine, sources, description, _UNCERTAINTY)


def _write(
    folder: Path,
    values: np.ndarray,
    affine: np.ndarray,
    sources: Mapping[str, Dataset],
    description: CtDescription,
    kind: _Kind,
) -> list[Path]:
    kind = kind.described(description)
    voxels, lps = _as_slices(folder, values, affine)
    stored = _stored(folder, voxels, kind)
    dataset = identity(sources.values(), description.exam, description.created)
    _describe(dataset, sources.values(), description, kind)
    _set_grid(dataset, stored.shape, lps, kind)
    content = hashlib.sha256(stored.tobytes() + lps.tobytes()).hexdigest()
    made_by = (description.software, description.version, description.weights_sha256, description.derivation)
    meaning = (kind.title, kind.comment)
    dataset.SeriesInstanceUID = uid("series", dataset.StudyInstanceUID, description.exam, *meaning, *made_by, content)
    paths = []
    for k, pixels in enumerate(np.moveaxis(stored, 2, 0)):
        position = lps[:3, :3] @ [0, 0, k] + lps[:3, 3]
        dataset.SOPInstanceUID = uid(dataset.SeriesInstanceUID, str(k))
        dataset.InstanceNumber = k + 1
        dataset.ImagePositionPatient = _decimals(position)
        dataset.SliceLocation = _decimals([position @ lps[:3, 2] / np.linalg.norm(lps[:3, 2])])
        dataset.PixelData = pixels.T.tobytes()
        paths.append(folder / f"{k + 1:04d}.dcm")
        save(paths[-1], dataset)
    return paths


def slices_of(folder: Path, values: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Return the pixels ``[slices, rows, columns]`` of a series of these voxels ``[U, V, W]``, inferior first.

    Raises:
        ValueError: as for :func:`write_ct_series`, of which ``folder`` is in the message.
    """
    return np.ascontiguousarray(_as_slices(folder, values, affine)[0].T)


def _as_slices(folder: Path, values: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Reorient voxels so that the axes run closest to left, posterior and superior; return them with the LPS affine."""
    if not np.isfinite(affine).all():
        raise ValueError(f"{folder}: the affine holds NaN or infinity: {affine.tolist()}; nothing is written")
    turn = nib.orientations.ornt_transform(nib.io_orientation(affine), nib.orientations.axcodes2ornt("LPS"))
    voxels = nib.orientations.apply_orientation(values, turn)
    lps = _RAS_TO_LPS @ affine @ nib.orientations.inv_ornt_aff(turn, values.shape)
    directions = lps[:3, :3] / np.linalg.norm(lps[:3, :3], axis=0)
    if np.abs(directions.T @ directions - np.eye(3)).max() > _SHEAR_TOLERANCE:
        raise ValueError(
            f"{folder}: the axes of a CT series must be at right angles, got the affine {affine.tolist()}; resample "
            "the volume to an even grid"
        )
    return voxels, lps


def _stored(folder: Path, values: np.ndarray, kind: _Kind) -> np.ndarray:
    limits = np.iinfo(kind.dtype)
    if not np.isfinite(values).all():
        raise ValueError(
            f"{folder}: {int((~np.isfinite(values)).sum())} voxels are NaN or infinite; nothing is written"
        )
    stored = np.rint(values / kind.slope)
    if stored.min() < limits.min or stored.max() > limits.max:
        raise ValueError(
            f"{folder}: {kind.title!r} holds values within [{limits.min * kind.slope:g}, {limits.max * kind.slope:g}] "
            f"HU, got [{values.min():g}, {values.max():g}]; clip what no tissue can have"
        )
    return stored.astype(kind.dtype)


def _describe(dataset: Dataset, sources: Iterable[Dataset], description: CtDescription, kind: _Kind) -> None:
    """Set everything that is neither identity nor pixels."""
    dataset.SOPClassUID = CTImageStorage
    dataset.Modality = "CT"
    dataset.ImageType = list(kind.image_type)
    dataset.SyntheticData = "YES"
    dataset.ContentQualification = "RESEARCH"
    dataset.SeriesDescription = kind.title
    dataset.SeriesNumber = description.series_number + kind.number_offset
    dataset.ImageComments = kind.comment
    dataset.DerivationDescription = plain(
        f"{kind.comment} Made by {description.software} {description.version}, weights sha256 "
        f"{description.weights_sha256}. {description.derivation}",
        1024,
    )
    dataset.PatientPosition = "HFS"
    dataset.FrameOfReferenceUID = uid("frame", dataset.StudyInstanceUID, description.exam)
    dataset.PositionReferenceIndicator = None
    dataset.BurnedInAnnotation = "NO"
    dataset.KVP = None
    dataset.AcquisitionNumber = None
    set_equipment(dataset, description)
    set_sources(dataset, list(sources), description.is_lossy)


def set_equipment(dataset: Dataset, description: CtDescription) -> None:
    """Name this software, in the data set and as an item that repeats its derivation."""
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = code("109102", "DCM", "Processing Equipment")
    item.ContributionDateTime = description.created.strftime("%Y%m%d%H%M%S%z")
    item.ContributionDescription = dataset.DerivationDescription
    dataset.ContributingEquipmentSequence = [item]
    for equipment in (dataset, item):
        equipment.Manufacturer = plain(description.software, 64)
        equipment.ManufacturerModelName = plain(description.software, 64)
        equipment.SoftwareVersions = plain(description.version, 64)


def set_sources(dataset: Dataset, sources: list[Dataset], is_lossy: bool) -> None:
    """Reference the radiographs, and copy their body part, if it is the trunk, and lossy compression."""
    references = [_reference(s) for s in sources if s.get("SOPClassUID") and s.get("SOPInstanceUID")]
    if references:
        dataset.SourceImageSequence = references
    parts = [text(source, "BodyPartExamined") for source in sources]
    dataset.BodyPartExamined = next((part for part in parts if part in _UNPAIRED_OF_THE_TRUNK), BODY_PART)
    lossy = [s for s in sources if s.get("LossyImageCompression") == "01"]
    dataset.LossyImageCompression = "01" if lossy or is_lossy else "00"
    rated = [s for s in lossy if s.get("LossyImageCompressionRatio") and s.get("LossyImageCompressionMethod")]
    if rated:
        worst = max(rated, key=lambda s: np.prod(s.LossyImageCompressionRatio))
        for keyword in ("LossyImageCompressionRatio", "LossyImageCompressionMethod"):
            dataset[keyword] = worst[keyword]


def _reference(source: Dataset) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = source.SOPClassUID, source.SOPInstanceUID
    item.PurposeOfReferenceCodeSequence = code("121322", "DCM", "Source image for image processing operation")
    return item


def _set_grid(dataset: Dataset, shape: tuple[int, ...], lps: np.ndarray, kind: _Kind) -> None:
    """Set the attributes shared by the pixels of all slices: their position and the meaning of their values."""
    column_mm, row_mm, slice_mm = np.linalg.norm(lps[:3, :3], axis=0)
    dataset.ImageOrientationPatient = _decimals((lps[:3, :2] / [column_mm, row_mm]).T.ravel())
    dataset.PixelSpacing = _decimals([row_mm, column_mm])
    dataset.SliceThickness = dataset.SpacingBetweenSlices = _decimals([slice_mm])
    dataset.Columns, dataset.Rows = shape[:2]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    dataset.PixelRepresentation = int(np.iinfo(kind.dtype).min < 0)
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = 0, kind.slope, "HU"
    dataset.WindowCenter = [centre for centre, _ in kind.windows.values()]
    dataset.WindowWidth = [width for _, width in kind.windows.values()]
    dataset.WindowCenterWidthExplanation = list(kind.windows)
    if kind.image_type == _UNCERTAINTY.image_type:
        dataset.RealWorldValueMappingSequence = [_mapping(kind)]


def _mapping(kind: _Kind) -> Dataset:
    """State that the values are a standard deviation in HU, PS3.3 C.7.6.16.2.11."""
    quantity = Dataset()
    quantity.ValueType = "CODE"
    quantity.ConceptNameCodeSequence = code("246205007", "SCT", "Quantity")
    quantity.ConceptCodeSequence = code("386136009", "SCT", "Standard Deviation")
    item = Dataset()
    item.RealWorldValueFirstValueMapped, item.RealWorldValueLastValueMapped = 0, int(np.iinfo(kind.dtype).max)
    item.RealWorldValueIntercept, item.RealWorldValueSlope = 0.0, kind.slope
    item.LUTExplanation, item.LUTLabel = "Standard deviation in HU", "SD"
    item.MeasurementUnitsCodeSequence = code("[hnsf'U]", "UCUM", "Hounsfield unit")
    item.QuantityDefinitionSequence = [quantity]
    return item


def _decimals(values: Iterable[float]) -> list[DSfloat]:
    """Format numbers as decimal strings of at most 16 characters."""
    return [DSfloat(float(x) + 0.0, auto_format=True) for x in values]
