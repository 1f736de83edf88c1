"""Acquisition of a radiograph: determined by its file, the options, and a few documented assumptions.

The *isocentre* of an exam is the centre of the volume in the patient, where both central rays meet. The *axis* of the
frontal view runs along v, that of the lateral view along u (see :mod:`scripts.geometry`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from scripts.geometry import VIEWS, BiplanarGeometry, isocentre_magnification
from scripts.io.radiograph import Radiograph

DIRECTIONS = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "H": (2, 1), "F": (2, -1)}
"""Letters of Patient Orientation as (volume axis, sign along it)."""
SIDES = {"frontal": ("anterior", "posterior"), "lateral": ("right", "left")}
"""Possible sides of the source of each view."""
HALF_BODY_MM = {"frontal": 120.0, "lateral": 170.0}
"""Half the trunk along each view's axis: medians of 16 adult CTs, with ranges of 104 to 141 and 134 to 196."""
RELATIVE_TOLERANCE = 0.01
"""Lengths of option and file that differ by more contradict each other."""
ANGLE_TOLERANCE_DEG = 1.0
"""Angles of option and file that differ by more contradict each other."""
NEAREST_MM = 250.0
"""Shortest plausible distance from tube to patient or detector; the smallest C-arms have 300 mm or more."""
_UNITS = {"centimetres": ("cm", 10), "metres": ("m", 1000)}
_FARTHEST_MM = 5000.0
_ISOCENTRIC = ("XA", "RF")
"""Modalities whose Distance Source to Patient ends at the isocentre (DICOM PS3.3 C.8.7.5, C.8.7.6)."""


def _number(value: Any, low: float = -math.inf, high: float = math.inf) -> float:
    number = float(value)  # also converts strings, as Fire leaves `inf` a string
    if isinstance(value, bool) or not low <= number <= high:
        raise ValueError
    return number


def _length(value: Any) -> float:
    return _number(value, low=math.ulp(0.0))


def _pitch(value: Any) -> tuple[float, float]:
    pair = value if isinstance(value, Iterable) and not isinstance(value, str) else (value, value)
    row_pitch, column_pitch = (_number(x, math.ulp(0.0), 1e3) for x in pair)
    return (row_pitch, column_pitch)


def _point(value: Any) -> tuple[float, float]:
    if isinstance(value, str):  # two digits would unpack as two numbers
        raise ValueError
    row, column = (_number(x, -1e6, 1e6) for x in value)
    return (row, column)


def _turn(value: Any) -> float:
    return _number(value, -180.0, 180.0)


def _deviation(value: Any) -> float:
    return _number(value, -90.0, 90.0)


def _orientation(value: Any) -> str:
    along_row, along_column = value.upper()
    if DIRECTIONS[along_row][0] == DIRECTIONS[along_column][0]:
        raise ValueError
    return along_row + along_column


def _side(value: Any) -> str:
    if value.lower() not in sum(SIDES.values(), ()):
        raise ValueError
    return value.lower()


class _Rule(NamedTuple):
    parse: Callable[[Any], Any]
    words: str
    example: str


_RULES = {
    "source_to_isocentre_mm": _Rule(
        _length, "a positive distance in mm from the source to the middle of the patient, or inf", "1650"
    ),
    "source_to_detector_mm": _Rule(
        _length, "a positive distance in mm from the source to the detector, or inf", "1800"
    ),
    "pixel_spacing_mm": _Rule(_pitch, "a positive pitch in mm on the detector, of rows and columns", "'[0.15,0.15]'"),
    "orientation": _Rule(
        _orientation,
        "the two patient directions, of L, R, A, P, H and F, towards which columns and rows are numbered",
        "\"{'frontal': 'LF', 'lateral': 'PF'}\"",
    ),
    "source_side": _Rule(
        _side,
        "where the source stood: anterior or posterior, right or left",
        "\"{'frontal': 'posterior', 'lateral': 'right'}\"",
    ),
    "centre": _Rule(_point, "the row and column, from 0, where the central ray meets the image", "'[1023.5,1023.5]'"),
    "rotation_deg": _Rule(_turn, "the degrees, of -180 to 180, by which the patient is turned in the image", "2"),
    "angle_deg": _Rule(_deviation, "the degrees, of -90 to 90, between view and axis about the long axis", "2"),
    "tilt_deg": _Rule(_deviation, "the degrees, of -90 to 90, between view and axis towards the head", "2"),
}


def _parse(name: str, value: Any, where: str) -> Any:
    try:
        return _RULES[name].parse(value)
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError):
        raise ValueError(f"{where}{name} is {_RULES[name].words}, like {_RULES[name].example}; got {value!r}") from None


@dataclass(frozen=True)
class Acquisition:
    """Position of one radiograph in its exam.

    Attributes:
        source_to_isocentre_mm: distance from the source to the isocentre.
        source_to_detector_mm: distance from the source to the detector; both are inf for a parallel beam.
        pixel_spacing_mm: pitch on the detector between rows and between columns.
        orientation: as in :class:`~scripts.io.radiograph.Radiograph`: the patient direction in which columns are
            numbered, then that of the rows.
        source_side: ``"anterior"`` or ``"posterior"``, ``"right"`` or ``"left"``.
        centre: row and column, from 0 at the first pixel's centre, where the ray through the isocentre meets the image.
        rotation_deg: clockwise rotation of the patient in the image, with rows running downwards.
        angle_deg: angle between the central ray and the view's axis, about w; positive if the ray's anterior end is
            turned to the left (frontal), or its left end to posterior (lateral).
        tilt_deg: angle between the central ray and the axial plane; positive if the anterior (frontal) or left
            (lateral) end is raised towards the head.
        warnings: assumptions and overruled statements.

    Raises:
        ValueError: a value is impossible for a radiograph.
    """

    source_to_isocentre_mm: float
    source_to_detector_mm: float
    pixel_spacing_mm: tuple[float, float]
    orientation: str
    source_side: str
    centre: tuple[float, float]
    rotation_deg: float = 0.0
    angle_deg: float = 0.0
    tilt_deg: float = 0.0
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in _RULES:
            object.__setattr__(self, name, _parse(name, getattr(self, name), "acquisition: "))
        isocentre, detector = self.source_to_isocentre_mm, self.source_to_detector_mm
        if detector < isocentre or math.isinf(detector) != math.isinf(isocentre):
            raise ValueError(
                "acquisition: the detector must be behind the isocentre, or both at infinity, but "
                f"source_to_detector_mm = {detector:.5g} and source_to_isocentre_mm = {isocentre:.5g}; correct one of "
                "these options"
            )

    @property
    def magnification(self) -> float:
        """Magnification of the isocentre plane on the detector."""
        return isocentre_magnification(self.source_to_isocentre_mm, self.source_to_detector_mm)


def acquisitions_of(geometry: BiplanarGeometry) -> dict[str, Acquisition]:
    """Return the views of an exam as stored in a case folder: rows numbered along u or v, columns along w."""
    middle = (geometry.detector_pixels - 1) / 2
    shared = Acquisition(
        source_to_isocentre_mm=geometry.source_to_isocentre_mm,
        source_to_detector_mm=geometry.source_to_detector_mm,
        pixel_spacing_mm=(geometry.detector_spacing_mm, geometry.detector_spacing_mm),
        orientation="HR",
        source_side=geometry.frontal_source,
        centre=(middle, middle),
    )
    return {"frontal": shared, "lateral": replace(shared, orientation="HA", source_side=geometry.lateral_source)}


def overridden(told: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is told of an exam, overridden by options: view by view, if an option is a mapping by view.

    Args:
        told: values by name, each for all views or a mapping by view.
        options: likewise; None, also of a view, if not given.
    """
    result = dict(told)
    for name, value in options.items():
        if isinstance(value, Mapping):
            before = told.get(name, {})
            by_view = before if isinstance(before, Mapping) else dict.fromkeys(VIEWS, before)
            result[name] = {**by_view, **{view: given for view, given in value.items() if given is not None}}
        elif value is not None:
            result[name] = value
    return result


def acquire_exam(radiographs: Mapping[str, Radiograph], overrides: Mapping[str, Any]) -> dict[str, Acquisition]:
    """Determine how each view of an exam was taken; options override files, and one error lists everything missing.

    Some values are assumed, each with a warning that gives the number: the image's centre as ``centre``; no rotation
    and no deviation from the axis; except for XA and RF, the end point of Distance Source to Patient; the isocentre
    plane as the plane to which a spacing in the patient is calibrated.

    Args:
        radiographs: radiographs by view.
        overrides: options named after the fields of :class:`Acquisition`, each a value for all views or a mapping by
            view; None if not given.

    Raises:
        ValueError: an option is unknown or impossible, does not fit the view, cannot be in mm, or is missing.
    """
    unknown = sorted(set(overrides) - set(_RULES))
    if unknown:
        raise ValueError(f"acquisition: no such option: {', '.join(unknown)}; choose from {', '.join(_RULES)}")
    told = {view: _told(view, overrides) for view in radiographs}
    stated = {view: _stated(film, view) for view, film in radiographs.items()}
    known = {view: {**stated[view], **told[view]} for view in radiographs}
    assumed = {view: _assumed(film, view, known[view]) for view, film in radiographs.items()}
    values = {view: {**{name: a.value for name, a in assumed[view].items()}, **known[view]} for view in radiographs}
    _require_complete(radiographs, values)
    for view, film in radiographs.items():
        _require_far(film.path, values[view], told[view])
    return {
        view: _acquisition(
            film.path,
            values[view],
            _overruled(film, view, told[view], stated[view]) + _explained(film, view, assumed[view]),
        )
        for view, film in radiographs.items()
    }


def _acquisition(path: str, values: Mapping[str, Any], warnings: list[str]) -> Acquisition:
    try:
        return Acquisition(**values, warnings=tuple(warnings))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


class _Assumption(NamedTuple):
    value: Any
    reason: str


def _told(view: str, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options for a view."""
    told = {}
    for name, given in overrides.items():
        if isinstance(given, Mapping) and set(given) - set(VIEWS):
            raise ValueError(f"--{name}: a mapping by view needs the keys {' and '.join(VIEWS)}, got {dict(given)!r}")
        value = given.get(view) if isinstance(given, Mapping) else given
        if value is not None:
            told[name] = _parse(name, value, f"--{name}, {view} view: ")
            _require_fit(name, told[name], view, f"--{name}")
    return told


def _stated(film: Radiograph, view: str) -> dict[str, Any]:
    """Return the values stated in the file."""
    angle_deg, tilt_deg = _line_angles(film, view)
    values = {
        "source_to_isocentre_mm": film.source_to_patient_mm if film.modality in _ISOCENTRIC else None,
        "source_to_detector_mm": film.source_to_detector_mm,
        "pixel_spacing_mm": film.pixel_spacing_mm,
        "orientation": film.orientation,
        "source_side": film.source_side,
        "angle_deg": angle_deg,
        "tilt_deg": tilt_deg,
    }
    stated = {name: _parse(name, value, f"{film.path}: ") for name, value in values.items() if value is not None}
    for name, value in stated.items():
        _require_fit(name, value, view, film.path)
    return stated


def _line_angles(film: Radiograph, view: str) -> tuple[float | None, float | None]:
    """Return ``angle_deg`` and ``tilt_deg`` of the central ray's line, whichever end the source is at."""
    if film.primary_angle_deg is None:
        return None, film.secondary_angle_deg
    turn = film.primary_angle_deg - (0 if view == "frontal" else 90)
    half_turns = round(turn / 180)
    tilt = film.secondary_angle_deg
    return turn - 180 * half_turns, None if tilt is None else tilt * (-1) ** half_turns


def _assumed(film: Radiograph, view: str, known: Mapping[str, Any]) -> dict[str, _Assumption]:
    """Return values for the fields that are not ``known``, with the reason for each."""
    rows, columns = film.pixels.shape
    assumed = {
        "centre": _Assumption(((rows - 1) / 2, (columns - 1) / 2), "the middle of the image"),
        "rotation_deg": _Assumption(0.0, "the patient upright in it"),
        "angle_deg": _Assumption(0.0, f"an exactly {view} view"),
        "tilt_deg": _Assumption(0.0, f"an exactly {view} view"),
    }
    detector_mm = known.get("source_to_detector_mm")
    patient_mm = film.source_to_patient_mm
    if patient_mm is not None and detector_mm is not None and patient_mm <= detector_mm:
        assumed["source_to_isocentre_mm"] = _isocentre(patient_mm, detector_mm, HALF_BODY_MM[view])
    isocentre_mm = known.get("source_to_isocentre_mm", assumed.get("source_to_isocentre_mm", (None,))[0])
    if film.object_spacing_mm is not None and detector_mm is not None and isocentre_mm is not None:
        factor = isocentre_magnification(isocentre_mm, detector_mm)
        assumed["pixel_spacing_mm"] = _Assumption(
            tuple(factor * pitch for pitch in film.object_spacing_mm),
            f"{film.object_spacing_mm} mm in the patient, magnified {factor:.4g} times as at the isocentre",
        )
    return {name: assumption for name, assumption in assumed.items() if name not in known}


def _isocentre(patient_mm: float, detector_mm: float, half_mm: float) -> _Assumption:
    """Return the distance of the isocentre from a Distance Source to Patient with unspecified end point.

    By DICOM PS3.3 C.8.11.5 it ends at the table or bucky. Some files give the isocentre instead; this is assumed if
    half a body fits between it and the detector.
    """
    stated = f"Distance Source to Patient is {patient_mm:.5g} mm"
    if detector_mm - patient_mm >= half_mm or patient_mm <= half_mm:
        return _Assumption(patient_mm, f"{stated} and taken as the distance to the middle of the patient")
    return _Assumption(
        patient_mm - half_mm,
        f"{stated}, too near the detector for the middle of the patient: taken as the distance to its cover, "
        f"and half a body as {half_mm:.4g} mm",
    )


def _require_fit(name: str, value: Any, view: str, where: str) -> None:
    """Raise ValueError if a view cannot have this orientation or source side."""
    if name == "orientation":
        across = VIEWS.index(view)  # u is across a frontal view, v across a lateral one
        fits = {DIRECTIONS[letter][0] for letter in value} == {across, 2}
    else:
        fits = name != "source_side" or value in SIDES[view]
    if not fits:
        letters = "L or R" if view == "frontal" else "A or P"
        raise ValueError(
            f"{where}: {name} {value!r} cannot be of a {view} view, which has {letters} with H or F and its source "
            f"{' or '.join(SIDES[view])}; give --{name} by view, like {_RULES[name].example}, or exchange the views"
        )


def _require_complete(films: Mapping[str, Radiograph], values: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise ValueError that names all missing fields of all views."""
    wanted = []
    for name, rule in _RULES.items():
        views = [view for view in films if name not in values[view]]
        if name == "pixel_spacing_mm":  # a spacing in the patient suffices once the distances are known
            views = [view for view in views if films[view].object_spacing_mm is None]
        if views:
            wanted.append(f"--{name} ({' and '.join(views)}): {rule.words}, like {rule.example}")
    if wanted:
        files = ", ".join(film.path for film in films.values())
        raise ValueError(f"{files}: geometry is missing, and it is never guessed. Give {'; '.join(wanted)}")


def _require_far(path: str, values: Mapping[str, Any], told: Mapping[str, Any]) -> None:
    """Raise ValueError for a distance that cannot be in mm."""
    for name in ("source_to_detector_mm", "source_to_isocentre_mm"):
        if values[name] < NEAREST_MM:
            where = f"{path}: --{name}" if name in told else f"{path}: {name}, by its header,"
            raise ValueError(
                f"{where} is {values[name]:g} mm, nearer than any tube ({NEAREST_MM:g} mm){_unit_meant(values[name])}; "
                f"give --{name} in mm"
            )


def _unit_meant(value: float) -> str:
    for unit, (short, factor) in _UNITS.items():
        if NEAREST_MM <= value * factor <= _FARTHEST_MM:
            return f": is that {unit}? {value:g} {short} is {value * factor:g} mm"
    return ""


def _overruled(film: Radiograph, view: str, told: Mapping[str, Any], stated: Mapping[str, Any]) -> list[str]:
    return [
        f"{film.path}: {name} of the {view} view is {told[name]} by --{name}, against {stated[name]} in the file"
        for name in told
        if name in stated and _differ(name, told[name], stated[name])
    ]


def _differ(name: str, first: Any, second: Any) -> bool:
    if name.endswith("_mm"):
        return not np.allclose(first, second, rtol=RELATIVE_TOLERANCE, atol=0)
    if name.endswith("_deg"):
        return abs(first - second) > ANGLE_TOLERANCE_DEG
    return first != second


def _explained(film: Radiograph, view: str, assumed: Mapping[str, _Assumption]) -> list[str]:
    if not assumed:
        return []
    items = "; ".join(f"{name} = {_rounded(a.value)} ({a.reason})" for name, a in assumed.items())
    return [f"{film.path}: assumed of the {view} view: {items}; correct what is wrong by the options of these names"]


def _rounded(value: Any) -> Any:
    return tuple(round(x, 4) for x in value) if isinstance(value, tuple) else round(value, 4)
