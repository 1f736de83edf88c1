"""Projection of a DICOM radiograph: view, orientation, pitches, distances and angles, as far as stated."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import UID

from scripts.dicom.attributes import number, pitch, positive, text

MAX_ANGLE_DEG = 30.0
"""Largest deviation of both positioner angles from an axis at which a view is named after that axis."""
_POSITIONS = {
    "AP": ("frontal", "anterior"),
    "PA": ("frontal", "posterior"),
    "LL": ("lateral", "right"),
    "RL": ("lateral", "left"),
    "LAT": ("lateral", None),
}
"""View Position to view and source side: a left lateral has the patient's left side at the detector."""
_LATERAL_WORDS = {"LAT", "LATERAL"}
_LATERALS = {"LLAT": "LL", "RLAT": "RL", "LATL": "LL", "LATR": "RL"}
_SIDE_WORDS = {"L": "LL", "LEFT": "LL", "R": "RL", "RIGHT": "RL"}
_OBLIQUE_POSITIONS = {"LLO", "RLO", "LAO", "RAO", "LPO", "RPO", "OBL", "OBLIQUE"}
_RECUMBENT_POSITIONS = {"LLD", "RLD", "DECUB", "DECUBITUS"}
"""Patient positions, which can make a view along another axis be called lateral."""
_CODES = {
    "399348003": "AP",
    "R-10206": "AP",
    "272479007": "PA",
    "R-10214": "PA",
    "R-40888": "PA",
    "399173006": "LL",
    "R-10236": "LL",
    "399198007": "RL",
    "R-10232": "RL",
    "399067008": "LAT",
    "R-102CD": "LAT",
}
"""PS3.16 CID 4010 "DX View", SNOMED CT and the older SNOMED RT, to View Position."""
_AXES = {"L": 0, "R": 0, "A": 1, "P": 1, "H": 2, "F": 2}


class Projection(NamedTuple):
    """Projection stated by a header.

    Attributes:
        fields: fields of :class:`~scripts.io.radiograph.Radiograph` by name.
        warnings: statements that were not understood or had to be interpreted.
    """

    fields: dict[str, Any]
    warnings: tuple[str, ...]


def read_projection(path: Path, dataset: Dataset, frame: int) -> Projection:
    """Read the header of one frame.

    Raises:
        ValueError: the projection is oblique, or statements about the view contradict each other.
    """
    primary_deg, secondary_deg = _angles_deg(dataset, frame)
    orientation, orientation_warnings = _orientation(path, dataset)
    view, source_side = _view(path, dataset, orientation, primary_deg, secondary_deg)
    detector_mm, object_mm, spacing_warnings = _spacing(path, dataset)
    to_detector_mm, to_patient_mm = _distances_mm(dataset)
    fields = {
        "view": view,
        "source_side": source_side,
        "orientation": orientation,
        "pixel_spacing_mm": detector_mm,
        "object_spacing_mm": object_mm,
        "source_to_detector_mm": to_detector_mm,
        "source_to_patient_mm": to_patient_mm,
        "primary_angle_deg": primary_deg,
        "secondary_angle_deg": secondary_deg,
    }
    return Projection(fields, orientation_warnings + spacing_warnings)


def _angles_deg(dataset: Dataset, frame: int) -> tuple[float | None, float | None]:
    """Return the positioner angles of a C-arm (PS3.3 C.8.7.5.1.2), or None if modality or frame make them meaningless.

    At 0 the patient faces the detector, so the source is posterior. The primary angle moves the detector to the
    patient's left, the secondary angle to the head. Both apply to the first frame.
    """
    is_carm = text(dataset, "Modality") == "XA" or text(dataset, "PositionerType") == "CARM"
    if not is_carm or (frame > 0 and text(dataset, "PositionerMotion") == "DYNAMIC"):
        return None, None
    return number(dataset, "PositionerPrimaryAngle"), number(dataset, "PositionerSecondaryAngle")


def _orientation(path: Path, dataset: Dataset) -> tuple[str | None, tuple[str, ...]]:
    """Return the principal directions of rows and columns (PS3.3 C.7.6.1.1.1), and warnings."""
    value = dataset.get("PatientOrientation")
    if not value or text(dataset, "AnatomicalOrientationType") == "QUADRUPED":
        return None, ()
    names = [str(name) for name in value] if not isinstance(value, str) and len(value) == 2 else []
    if not names or not all(name and set(name) <= set(_AXES) for name in names):
        return None, (f"{path}: PatientOrientation {value} is not understood; taken as not stated",)
    letters = names[0][0] + names[1][0]
    if _AXES[letters[0]] == _AXES[letters[1]]:
        return None, (f"{path}: PatientOrientation {value} names one axis twice; taken as not stated",)
    if max(map(len, names)) > 1:
        return letters, (f"{path}: PatientOrientation {value} is oblique; read as {letters}",)
    return letters, ()


def _view(
    path: Path, dataset: Dataset, orientation: str | None, primary_deg: float | None, secondary_deg: float | None
) -> tuple[str | None, str | None]:
    """Return view and source side from all statements in the file."""
    position = text(dataset, "ViewPosition")
    codes = [item for item in dataset.get("ViewCodeSequence") or () if isinstance(item, Dataset)]
    if _OBLIQUE_POSITIONS & set(re.findall("[A-Z]+", position)) or any(
        "OBLIQUE" in text(code, "CodeMeaning") for code in codes
    ):
        raise ValueError(
            f"{path}: an oblique projection (ViewPosition {position!r}); give a frontal and a lateral one, or correct "
            "the header"
        )
    statements = {f"ViewPosition {position}": _POSITIONS.get(_standard_position(position))}
    for code in (text(code, "CodeValue") for code in codes):
        statements[f"ViewCodeSequence {code}"] = _POSITIONS.get(_CODES.get(code, ""))
    statements[f"positioner angles {primary_deg}, {secondary_deg}"] = _view_of_angles(primary_deg, secondary_deg)
    if orientation:
        across = {_AXES[letter] for letter in orientation}
        statements[f"PatientOrientation {orientation}"] = (
            {0: ("frontal", None), 1: ("lateral", None)}.get(min(across)) if 2 in across else None
        )
    known = {name: statement for name, statement in statements.items() if statement}
    views, sides = ({s[i] for s in known.values()} - {None} for i in (0, 1))
    if len(views) > 1 or len(sides) > 1:
        said = "; ".join(f"{name} says {' '.join(filter(None, s))}" for name, s in known.items())
        raise ValueError(f"{path}: the header contradicts itself about the view: {said}; correct it")
    return next(iter(views), None), next(iter(sides), None)


def _standard_position(position: str) -> str:
    """Find a standard position among the words of a View Position such as ``CHEST PA`` or ``LLAT``."""
    words = set(re.findall("[A-Z]+", position))
    if words & _RECUMBENT_POSITIONS:
        return ""
    found = words & _POSITIONS.keys() | {_LATERALS[word] for word in words & _LATERALS.keys()}
    if words & _LATERAL_WORDS:
        sides = {_SIDE_WORDS[word] for word in words & _SIDE_WORDS.keys()}
        found = found - {"LAT"} | (sides or {"LAT"})
    return found.pop() if len(found) == 1 else ""


def _view_of_angles(primary_deg: float | None, secondary_deg: float | None) -> tuple[str, str] | None:
    if primary_deg is None or abs(secondary_deg or 0) > MAX_ANGLE_DEG:
        return None
    quarter = round(primary_deg / 90)
    if abs(primary_deg - 90 * quarter) > MAX_ANGLE_DEG:
        return None
    return (("frontal", "posterior"), ("lateral", "right"), ("frontal", "anterior"), ("lateral", "left"))[quarter % 4]


def _distances_mm(dataset: Dataset) -> tuple[float | None, float | None]:
    """Return the distances source to detector and source to patient, the latter by the magnification if needed."""
    detector, patient = (positive(dataset, f"DistanceSourceTo{end}") for end in ("Detector", "Patient"))
    magnification = positive(dataset, "EstimatedRadiographicMagnificationFactor")
    if not patient and detector and magnification and magnification > 1:
        patient = detector / magnification
    return detector, patient


def _spacing(
    path: Path, dataset: Dataset
) -> tuple[tuple[float, float] | None, tuple[float, float] | None, tuple[str, ...]]:
    """Return the pitch on the detector, the pitch in a plane of the patient, and warnings (PS3.3 section 10.7.1).

    Pixel Spacing refers to the detector unless it is calibrated or differs from Imager Pixel Spacing. In a secondary
    capture, which was not acquired at a detector, it may refer to any plane.
    """
    detector_mm, pixel_mm = pitch(dataset, "ImagerPixelSpacing"), pitch(dataset, "PixelSpacing")
    calibration = text(dataset, "PixelSpacingCalibrationType")
    if pixel_mm is None or (detector_mm and np.allclose(pixel_mm, detector_mm, rtol=1e-3)):
        return detector_mm, None, ()
    if calibration in ("GEOMETRY", "FIDUCIAL"):
        return detector_mm, pixel_mm, ()
    if detector_mm is None and "SecondaryCapture" in UID(text(dataset, "SOPClassUID")).keyword:
        return None, None, (f"{path}: PixelSpacing {pixel_mm} mm of a secondary capture is not known to be anywhere's",)
    if detector_mm is None:
        return pixel_mm, None, (f"{path}: PixelSpacing {pixel_mm} mm, uncalibrated, is taken as the detector's pitch",)
    return detector_mm, pixel_mm, (f"{path}: PixelSpacing {pixel_mm} mm is calibrated in a way that is not stated",)
