"""What a radiograph's geometry is made of: its file, the options, and assumptions that are stated."""

import math
from dataclasses import replace

import numpy as np
import pytest
from tests.refusal import refused

from scripts.exam.acquisition import HALF_BODY_MM, Acquisition, acquire_exam, acquisitions_of, overridden
from scripts.geometry import preset
from scripts.io.radiograph import Radiograph

TOLD = {
    "source_to_isocentre_mm": 1650,
    "source_to_detector_mm": 1800,
    "pixel_spacing_mm": 0.15,
    "orientation": {"frontal": "LF", "lateral": "PF"},
    "source_side": {"frontal": "posterior", "lateral": "right"},
}


def film(**stated):
    return Radiograph("film.dcm", "", np.zeros((100, 81), np.float32), "log", **stated)


def acquire(radiograph, view, overrides):
    """How one view alone was taken."""
    return acquire_exam({view: radiograph}, overrides)[view]


def stated_film(**changes):
    """A film whose file states everything."""
    values = {
        "modality": "XA",
        "orientation": "LF",
        "source_side": "posterior",
        "source_to_detector_mm": 1200.0,
        "source_to_patient_mm": 800.0,
        "pixel_spacing_mm": (0.2, 0.3),
        "primary_angle_deg": 0.0,
        "secondary_angle_deg": 0.0,
    }
    return film(**{**values, **changes})


def test_options_alone_are_enough_and_concern_both_views_unless_given_by_view():
    exam = acquire_exam({"frontal": film(), "lateral": film()}, TOLD)
    frontal, lateral = exam["frontal"], exam["lateral"]
    assert (frontal.source_to_isocentre_mm, lateral.source_to_isocentre_mm) == (1650.0, 1650.0)
    assert (frontal.orientation, lateral.orientation) == ("LF", "PF")
    assert (frontal.source_side, lateral.source_side) == ("posterior", "right")
    assert frontal.pixel_spacing_mm == (0.15, 0.15)
    assert frontal == replace(acquire(film(), "frontal", TOLD))


@pytest.mark.parametrize(
    ("told", "option", "expected"),
    [
        ({"frontal": 1, "lateral": 2}, {"frontal": 3}, {"frontal": 3, "lateral": 2}),
        ({"lateral": 2}, {"frontal": 3}, {"frontal": 3, "lateral": 2}),
        ({"frontal": 1, "lateral": 2}, {"frontal": 3, "lateral": None}, {"frontal": 3, "lateral": 2}),
        ([1, 2], {"lateral": 3}, {"frontal": [1, 2], "lateral": 3}),
        ({"frontal": 1, "lateral": 2}, 3, 3),
        ({"frontal": 1, "lateral": 2}, None, {"frontal": 1, "lateral": 2}),
        (1, None, 1),
        (1, {}, {"frontal": 1, "lateral": 1}),
    ],
)
def test_an_option_of_one_view_leaves_what_is_told_of_the_other(told, option, expected):
    before = {"centre": told, "tilt_deg": 4}
    assert overridden(before, {"centre": option}) == {"centre": expected, "tilt_deg": 4}
    assert before == {"centre": told, "tilt_deg": 4}


@pytest.mark.parametrize("option", [3, {"frontal": 3}, [3, 4]])
def test_an_option_where_nothing_is_told_stays_as_it_is(option):
    assert overridden({}, {"centre": option, "tilt_deg": None}) == {"centre": option}


def test_a_file_that_states_everything_needs_no_option():
    taken = acquire(stated_film(), "frontal", {"source_to_detector_mm": None, "orientation": {"lateral": "PF"}})
    assert (taken.source_to_isocentre_mm, taken.source_to_detector_mm, taken.magnification) == (800.0, 1200.0, 1.5)
    assert (taken.pixel_spacing_mm, taken.orientation, taken.source_side) == ((0.2, 0.3), "LF", "posterior")


def test_everything_missing_is_asked_for_at_once_and_by_option():
    with pytest.raises(ValueError) as refusal:
        acquire_exam({"frontal": film(orientation="LF"), "lateral": film()}, {"source_to_detector_mm": 1800})
    message = str(refusal.value)
    assert "film.dcm" in message and "never guessed" in message and "--source_to_detector_mm" not in message
    for words in ("--source_to_isocentre_mm (frontal and lateral)", "--pixel_spacing_mm (", "--source_side ("):
        assert words in message
    assert "--orientation (lateral): " in message and "{'frontal': 'LF', 'lateral': 'PF'}" in message
    assert "centre (" not in message


def test_what_is_assumed_is_said_with_its_number():
    taken = acquire(film(), "frontal", TOLD)
    assert taken.centre == (49.5, 40.0) and taken.rotation_deg == taken.angle_deg == taken.tilt_deg == 0.0
    (warning,) = taken.warnings
    assert "film.dcm" in warning and "centre = (49.5, 40.0) (the middle of the image)" in warning
    for name in ("rotation_deg = 0.0", "angle_deg = 0.0", "tilt_deg = 0.0"):
        assert name in warning
    everything = {**TOLD, "centre": [50, 40], "rotation_deg": 1, "angle_deg": 2, "tilt_deg": 3}
    assert acquire(film(), "frontal", everything).warnings == ()


def test_the_distance_to_the_patient_ends_at_the_isocentre_for_xa():
    assert acquire(stated_film(), "frontal", {"centre": [0, 0], "rotation_deg": 0}).warnings == ()


@pytest.mark.parametrize("view", ["frontal", "lateral"])
def test_a_distance_that_ends_at_the_detectors_cover_is_half_a_body_too_long(view):
    chest = film(modality="DX", source_to_detector_mm=1800.0, source_to_patient_mm=1740.0)
    taken = acquire(chest, view, {**TOLD, "source_to_isocentre_mm": None})
    assert taken.source_to_isocentre_mm == 1740 - HALF_BODY_MM[view]
    assert any("1740 mm" in w and f"half a body as {HALF_BODY_MM[view]:.4g} mm" in w for w in taken.warnings)


def test_a_distance_with_room_for_half_a_body_behind_it_is_the_isocentres_with_a_warning_unless_xa():
    carm = {"source_to_detector_mm": 1200.0, "source_to_patient_mm": 785.0}
    told = {**TOLD, "source_to_isocentre_mm": None, "source_to_detector_mm": None}
    dx, xa = (acquire(film(modality=m, **carm), "frontal", told) for m in ("DX", "XA"))
    assert dx.source_to_isocentre_mm == xa.source_to_isocentre_mm == 785.0
    assert "785 mm" in dx.warnings[0] and "785" not in xa.warnings[0]


def test_a_spacing_in_the_patient_is_magnified_once_and_one_on_the_detector_never():
    in_patient = stated_film(pixel_spacing_mm=None, object_spacing_mm=(0.2, 0.3))
    taken = acquire(in_patient, "frontal", {})
    assert taken.pixel_spacing_mm == pytest.approx((0.3, 0.45))
    assert "magnified 1.5 times" in taken.warnings[0]
    both = acquire(stated_film(object_spacing_mm=(0.13, 0.2)), "frontal", {})
    assert both.pixel_spacing_mm == (0.2, 0.3)
    assert acquire(in_patient, "frontal", {"pixel_spacing_mm": 0.5}).pixel_spacing_mm == (0.5, 0.5)


def test_a_spacing_in_the_patient_follows_the_distances_that_options_give():
    given = {**TOLD, "pixel_spacing_mm": None}
    taken = acquire(film(object_spacing_mm=(0.11, 0.11)), "frontal", given)
    assert taken.pixel_spacing_mm == pytest.approx((0.12, 0.12))
    with pytest.raises(ValueError) as refusal:
        acquire(film(object_spacing_mm=(0.11, 0.11)), "frontal", {})
    assert "--pixel_spacing_mm" not in str(refusal.value) and "--source_to_detector_mm" in str(refusal.value)


@pytest.mark.parametrize("word", [math.inf, "inf"])
def test_a_parallel_beam_magnifies_nothing(word):
    told = {**TOLD, "source_to_isocentre_mm": word, "source_to_detector_mm": word, "pixel_spacing_mm": None}
    taken = acquire(film(object_spacing_mm=(0.2, 0.2)), "frontal", told)
    assert taken.magnification == 1.0 and taken.pixel_spacing_mm == (0.2, 0.2)


@pytest.mark.parametrize(
    ("option", "value", "contradicts"),
    [
        ("source_to_detector_mm", 1211, False),
        ("source_to_detector_mm", 1213, True),
        ("source_to_isocentre_mm", 700, True),
        ("pixel_spacing_mm", [0.2, 0.3], False),
        ("pixel_spacing_mm", 0.2, True),
        ("orientation", "RF", True),
        ("orientation", "lf", False),
        ("source_side", "anterior", True),
        ("angle_deg", 0.9, False),
        ("angle_deg", "2", True),
    ],
)
def test_an_option_wins_and_says_so_where_it_contradicts_the_file(option, value, contradicts):
    taken = acquire(stated_film(), "frontal", {option: value})
    plain = acquire(stated_film(), "frontal", {})
    assert any(f"by --{option}" in warning for warning in taken.warnings) == contradicts
    if contradicts:
        assert getattr(taken, option) != getattr(plain, option)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("source_to_isocentre_mm", -1),
        ("source_to_isocentre_mm", 0),
        ("source_to_detector_mm", math.nan),
        ("source_to_detector_mm", True),
        ("source_to_detector_mm", "far"),
        ("source_to_detector_mm", [1800]),
        ("pixel_spacing_mm", 0),
        ("pixel_spacing_mm", [0.1, -0.1]),
        ("pixel_spacing_mm", [0.1, 0.1, 0.1]),
        ("pixel_spacing_mm", math.inf),
        ("orientation", "LFP"),
        ("orientation", "LR"),
        ("orientation", "XF"),
        ("orientation", 12),
        ("source_side", "above"),
        ("source_side", 1),
        ("centre", 1000),
        ("centre", [math.nan, 0]),
        ("rotation_deg", 400),
        ("angle_deg", "90.5"),
        ("tilt_deg", math.inf),
    ],
)
def test_an_impossible_option_is_refused_by_name_and_value(option, value):
    for given in (value, {"frontal": value}):
        with pytest.raises(ValueError) as refusal:
            acquire(stated_film(), "frontal", {option: given})
        assert f"--{option}" in str(refusal.value) and repr(value) in str(refusal.value)


def test_unknown_options_and_views_are_refused_by_name():
    with refused(ValueError, "no such option", "sid", "source_to_isocentre_mm, "):
        acquire(stated_film(), "frontal", {"sid": 1800})
    with refused(ValueError, "--centre", "frontal and lateral", "{'front"):
        acquire(stated_film(), "frontal", {"centre": {"front": [0, 0]}})


@pytest.mark.parametrize(
    ("view", "changes", "told", "where"),
    [
        (
            "lateral",
            {"orientation": None, "source_side": None, "primary_angle_deg": 90.0},
            {"orientation": "LF"},
            "--or",
        ),
        ("frontal", {"orientation": "PF"}, {}, "film.dcm"),
        ("frontal", {"source_side": "right"}, {}, "film.dcm"),
        ("frontal", {}, {"source_side": "left"}, "--source_side"),
        ("frontal", {}, {"orientation": "LA"}, "--orientation"),
    ],
)
def test_what_does_not_fit_the_view_is_refused(view, changes, told, where):
    with pytest.raises(ValueError, match=f"^{where}.* cannot be of a {view} view"):
        acquire(stated_film(**changes), view, told)


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"source_to_detector_mm": 700}, "source_to_detector_mm = 700 .*source_to_isocentre_mm = 800"),
        ({"source_to_detector_mm": "inf"}, "infinity, .*source_to_detector_mm = inf"),
    ],
)
def test_a_detector_in_front_of_the_patient_is_refused(told, message):
    with pytest.raises(ValueError, match=f"film.dcm: acquisition: .*{message}"):
        acquire(stated_film(), "frontal", told)


@pytest.mark.parametrize(
    ("view", "primary", "secondary", "angle", "tilt"),
    [
        ("frontal", 0.0, 0.0, 0.0, 0.0),
        ("frontal", 4.0, 3.0, 4.0, 3.0),
        ("frontal", -4.0, None, -4.0, 0.0),
        ("frontal", 183.0, 5.0, 3.0, -5.0),  # the same line as -3 degrees from behind: its anterior end is lowered
        ("frontal", -178.0, 0.0, 2.0, 0.0),
        ("lateral", 90.0, 0.0, 0.0, 0.0),
        ("lateral", 95.0, 2.0, 5.0, 2.0),
        ("lateral", -92.0, 2.0, -2.0, -2.0),
        ("frontal", None, None, 0.0, 0.0),
    ],
)
def test_positioner_angles_are_those_of_the_line_whichever_end_the_source_is_at(view, primary, secondary, angle, tilt):
    taken_from = film(primary_angle_deg=primary, secondary_angle_deg=secondary)
    taken = acquire(taken_from, view, TOLD)
    assert (taken.angle_deg, taken.tilt_deg) == pytest.approx((angle, tilt))


def test_an_acquisition_is_frozen_checked_and_normalised():
    taken = Acquisition("785", 1200, 2, "lf", "Posterior", (1, 2))
    assert taken == Acquisition(785.0, 1200.0, (2.0, 2.0), "LF", "posterior", (1.0, 2.0), 0.0, 0.0, 0.0)
    with refused(ValueError, "pixel_spacing_mm", "positive", "got -1"):
        replace(taken, pixel_spacing_mm=-1)


def test_a_geometry_states_both_views_as_the_case_folder_stores_them():
    geometry = replace(preset("carm", (8, 8, 8), 10.0, 6), lateral_source="left")
    exam = acquisitions_of(geometry)
    assert exam["frontal"] == Acquisition(785, 1200, geometry.detector_spacing_mm, "HR", "anterior", (2.5, 2.5))
    assert exam["lateral"] == Acquisition(785, 1200, geometry.detector_spacing_mm, "HA", "left", (2.5, 2.5))


@pytest.mark.parametrize(
    ("value", "meant"),
    [
        (180, "is that centimetres? 180 cm is 1800 mm; "),
        (1.8, "is that metres? 1.8 m is 1800 mm; "),
        (9, "nearer than any tube (250 mm); "),
    ],
)
def test_a_distance_in_another_unit_is_refused_with_the_number_in_mm(value, meant):
    with refused(ValueError, "film.dcm", "--source_to_detector_mm", f"{value} mm") as by_option:
        acquire(film(), "frontal", {**TOLD, "source_to_detector_mm": value, "source_to_isocentre_mm": 0.9 * value})
    told = {name: given for name, given in TOLD.items() if not name.endswith("detector_mm")}
    with refused(ValueError, "source_to_detector_mm", "header", f"{value} mm") as by_header:
        acquire(film(source_to_detector_mm=float(value)), "frontal", told)
    for refusal in (by_option, by_header):
        assert meant + "give --source_to_detector_mm in mm" in str(refusal.value)


def test_a_distance_in_another_unit_in_the_file_does_no_harm_once_an_option_gives_it():
    taken = acquire(film(source_to_detector_mm=180.0), "frontal", TOLD)
    assert taken.source_to_detector_mm == 1800.0 and "against 180.0 in the file" in taken.warnings[0]
