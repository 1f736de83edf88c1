"""Pictures of a reconstructed volume as DICOM secondary captures, for archives and viewers without 3D."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import SecondaryCaptureImageStorage
from pydicom.valuerep import DSfloat

from scripts.dicom.identity import NOTICE, identity, plain, save, uid
from scripts.dicom.write_ct import CtDescription, set_equipment, set_sources
from scripts.geometry import VIEWS

ORIENTATIONS = {"frontal": ["L", "F"], "lateral": ["P", "F"]}
"""Patient directions in which columns and rows are numbered."""
_TITLE = f"SYNTHETIC CT, SKELETON, {NOTICE}"
_NUMBER_OFFSET = 2
"""Number of the series after that of the CT; the uncertainty is in between."""


def write_captures(
    folder: Path,
    pictures: Mapping[str, np.ndarray],
    spacing_mm: float,
    sources: Mapping[str, Dataset],
    description: CtDescription,
) -> list[Path]:
    """Write projections of a volume as one series of Secondary Capture Image Storage, in the study of its CT.

    Args:
        folder: existing folder for this series alone.
        pictures: grey bytes ``[rows, columns]`` by view: superior is up, the patient's right or front on the left.
        spacing_mm: pitch of the pixels in the patient; the projection is parallel.
        sources: headers of the radiographs by view; empty for files that are not DICOM.
        description: provenance of the volume.

    Returns:
        The files, frontal first.

    Raises:
        ValueError: the sources are of two patients.
    """
    shown = {view: np.ascontiguousarray(pictures[view], dtype=np.uint8) for view in VIEWS if view in pictures}
    dataset = identity(sources.values(), description.exam, description.created)
    _describe(dataset, sources, description, _content(shown, spacing_mm))
    paths = []
    for number, (view, pixels) in enumerate(shown.items(), 1):
        _set_pixels(dataset, pixels, spacing_mm)
        dataset.SOPInstanceUID = uid(dataset.SeriesInstanceUID, view)
        dataset.InstanceNumber, dataset.PatientOrientation = number, ORIENTATIONS[view]
        dataset.ImageComments = f"{NOTICE}. Maximum-intensity projection of the bone of a synthetic CT, {view} view."
        paths.append(folder / f"{number:04d}.dcm")
        save(paths[-1], dataset)
    return paths


def _content(pictures: Mapping[str, np.ndarray], spacing_mm: float) -> str:
    """Return a digest of all pictures and of their scale."""
    digest = hashlib.sha256(repr(spacing_mm).encode())
    for view, pixels in pictures.items():
        digest.update(f"{view} {pixels.shape}".encode() + pixels.tobytes())
    return digest.hexdigest()


def _describe(dataset: Dataset, sources: Mapping[str, Dataset], description: CtDescription, content: str) -> None:
    """Set everything that is neither identity nor pixels."""
    made_by = (description.software, description.version, description.weights_sha256, description.derivation)
    dataset.SOPClassUID = SecondaryCaptureImageStorage
    dataset.SeriesInstanceUID = uid("series", dataset.StudyInstanceUID, description.exam, _TITLE, *made_by, content)
    dataset.SeriesNumber, dataset.SeriesDescription = description.series_number + _NUMBER_OFFSET, _TITLE
    dataset.Modality, dataset.ConversionType = "OT", "WSD"
    dataset.ImageType = ["DERIVED", "SECONDARY", "PROJECTION IMAGE"]
    dataset.SyntheticData, dataset.ContentQualification = "YES", "RESEARCH"
    dataset.BurnedInAnnotation = "NO"
    dataset.DerivationDescription = plain(
        f"Maximum-intensity projection of a synthetic CT estimated from {description.source}. Made by "
        f"{description.software} {description.version}, weights sha256 {description.weights_sha256}. "
        f"{description.derivation}",
        1024,
    )
    set_equipment(dataset, description)
    set_sources(dataset, list(sources.values()), description.is_lossy)


def _set_pixels(dataset: Dataset, pixels: np.ndarray, spacing_mm: float) -> None:
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.PixelSpacing = [DSfloat(spacing_mm, auto_format=True)] * 2
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 8, 8, 7, 0
    dataset.WindowCenter, dataset.WindowWidth = 128, 256
    dataset.PixelData = pixels.tobytes() + bytes(pixels.size % 2)
