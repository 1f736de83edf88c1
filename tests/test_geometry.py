import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.refusal import refused

from scripts.geometry import (
    VIEWS,
    BiplanarGeometry,
    centred_coordinates_mm,
    preset,
    read_geometry,
)

PRESETS = ("carm", "x2ct", "chest", "parallel")
SHAPE = (20, 24, 28)


def carm(**changes):
    return replace(preset("carm", SHAPE, 2.0, 32), **changes)


@pytest.mark.parametrize("name", PRESETS)
def test_repr_evaluates_to_the_same_geometry(name):
    geometry = preset(name, SHAPE, 2.0, 32)
    assert eval(repr(geometry), {"BiplanarGeometry": BiplanarGeometry}) == geometry


@pytest.mark.parametrize("name", PRESETS)
def test_json_round_trip(name, tmp_path):
    geometry = replace(preset(name, SHAPE, 2.5, 32), frontal_source="posterior", lateral_source="left")
    path = tmp_path / "geometry.json"
    path.write_text(geometry.to_json())
    assert read_geometry(path) == geometry


def test_json_is_strict_even_for_infinite_distances():
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    values = json.loads(preset("parallel", SHAPE, 2.0, 32).to_json(), parse_constant=refuse)
    assert values["source_to_isocentre_mm"] == values["source_to_detector_mm"] == "inf"


def test_numpy_values_become_plain_ones():
    geometry = preset("carm", tuple(np.array(SHAPE)), np.float32(2.0), np.int64(32))
    assert geometry == carm()
    assert eval(repr(geometry), {"BiplanarGeometry": BiplanarGeometry}) == geometry
    assert json.loads(geometry.to_json())["detector_pixels"] == 32


def test_a_geometry_is_frozen_and_hashable():
    with pytest.raises(AttributeError):
        carm().detector_pixels = 1
    assert len({carm(), carm()}) == 1


def test_centred_coordinates_are_symmetric_and_evenly_spaced():
    torch.testing.assert_close(
        centred_coordinates_mm(4, 2.0), torch.tensor([-3.0, -1.0, 1.0, 3.0], dtype=torch.float64)
    )
    assert centred_coordinates_mm(5, 0.1)[2] == 0


@pytest.mark.parametrize("name", PRESETS)
def test_the_preset_detector_just_covers_the_shadow_of_the_volume(name):
    geometry = preset(name, (30, 30, 30), 2.0, 40)
    near_face_mm = torch.tensor(30.0)
    shadow_mm = 60.0 * geometry.magnification(near_face_mm, 1.0)
    assert geometry.detector_size_mm == pytest.approx(float(shadow_mm), rel=1e-6)


@pytest.mark.parametrize(
    ("name", "at_isocentre"), [("carm", 1200 / 785), ("x2ct", 949 / 541), ("chest", 1.2), ("parallel", 1.0)]
)
def test_magnification_at_the_isocentre_is_the_ratio_of_the_distances(name, at_isocentre):
    magnification = preset(name, SHAPE, 2.0, 32).magnification(torch.zeros(1), 1.0)
    assert float(magnification) == pytest.approx(at_isocentre)


def test_magnification_grows_towards_the_source():
    depth_mm = torch.tensor([-50.0, 0.0, 50.0])
    for sign in (1.0, -1.0):
        magnification = carm().magnification(depth_mm, sign)
        torch.testing.assert_close(magnification, 1200 / (785 - sign * depth_mm))
        assert bool((sign * magnification.diff() > 0).all())


def test_views_look_along_orthogonal_axes_and_share_w():
    frontal, lateral = (carm().view(name) for name in VIEWS)
    assert (frontal.depth_axis, frontal.column_axis) == (1, 0)
    assert (lateral.depth_axis, lateral.column_axis) == (0, 1)


@pytest.mark.parametrize(
    ("view", "side", "sign"),
    [("frontal", "anterior", 1), ("frontal", "posterior", -1), ("lateral", "right", 1), ("lateral", "left", -1)],
)
def test_the_source_stands_on_the_named_side(view, side, sign):
    assert carm(**{f"{view}_source": side}).view(view).source_sign == sign


def test_the_affine_puts_the_isocentre_in_the_middle_of_the_grid():
    affine = carm().volume_affine()
    middle = affine @ [*((n - 1) / 2 for n in SHAPE), 1]
    np.testing.assert_allclose(middle, [0, 0, 0, 1], atol=1e-12)
    for axis, count in enumerate(SHAPE):
        indices = np.tile([0.0, 0.0, 0.0, 1.0], (count, 1))
        indices[:, axis] = np.arange(count)
        np.testing.assert_allclose((indices @ affine.T)[:, axis], centred_coordinates_mm(count, 2.0).numpy())


def test_with_volume_changes_the_grid_alone():
    changed = carm().with_volume((10, 10, 10), 4.0)
    assert changed == replace(carm(), volume_shape=(10, 10, 10), volume_spacing_mm=4.0)
    assert changed.volume_size_mm == (40.0, 40.0, 40.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source_to_isocentre_mm": -1}, "source_to_isocentre_mm .*positive.* got -1"),
        ({"source_to_detector_mm": math.nan}, "source_to_detector_mm .*positive.* got nan"),
        ({"detector_spacing_mm": "1.5"}, "detector_spacing_mm .*positive.* got '1.5'"),
        ({"volume_spacing_mm": 0}, "volume_spacing_mm .*positive.* got 0"),
        ({"volume_spacing_mm": math.inf}, "volume_spacing_mm inf; .*finite"),
        ({"detector_spacing_mm": math.inf}, "detector_spacing_mm inf .*finite"),
        ({"detector_pixels": 0}, "detector_pixels .*whole number.* got 0"),
        ({"detector_pixels": 32.5}, "detector_pixels .*whole number.* got 32.5"),
        ({"volume_shape": (20, 24, -1)}, "volume_shape .*whole number.* got -1"),
        ({"volume_shape": (20, 24.5, 28)}, "volume_shape .*whole number.* got 24.5"),
        ({"detector_pixels": True}, "detector_pixels .*whole number.* got True"),
        ({"detector_pixels": 10**6}, "detector_pixels .*8192, got 1000000"),
        ({"detector_pixels": 10**10000}, "detector_pixels .*8192, got .*digits"),
        ({"volume_shape": (8192, 8192, 8192)}, "volume_shape .*2147483648 voxels, got 8192 x 8192 x 8192"),
        ({"volume_shape": "7" * 10**6}, "volume_shape .*three counts.* got '777"),
        ({"volume_spacing_mm": 1e-300}, "volume_spacing_mm .*0.001 to 1000000 mm, got 1e-300"),
        ({"source_to_detector_mm": 1e308}, r"source_to_detector_mm .*0.001 to 1000000 mm, got 1e\+308"),
        ({"source_to_detector_mm": True}, "source_to_detector_mm .*positive.* got True"),
        ({"volume_shape": (20, 24)}, r"volume_shape .*three counts.* got \(20, 24\)"),
        ({"frontal_source": "left"}, "frontal_source .*'anterior' or 'posterior', got 'left'"),
        ({"lateral_source": "up"}, "lateral_source .*'right' or 'left', got 'up'"),
        ({"source_to_isocentre_mm": math.inf}, "got inf mm .* 1200.0 mm .*neither"),
        ({"source_to_detector_mm": math.inf}, "got 785.0 mm .* inf mm .*neither"),
        ({"source_to_isocentre_mm": 24}, "24.0 mm .*inside.* move"),
        ({"source_to_detector_mm": 700}, "700.0 mm .*source_to_detector_mm .*larger"),
    ],
)
def test_an_impossible_geometry_is_refused_with_the_rule_and_the_value(changes, message):
    with pytest.raises(ValueError, match=f"geometry: .*{message}"):
        carm(**changes)


def test_an_unknown_view_or_preset_is_refused_with_the_known_names():
    with refused(ValueError, "'frontal', 'lateral'", "'oblique'"):
        carm().view("oblique")
    with refused(ValueError, "preset", "'carm'", "'ct'"):
        preset("ct", SHAPE, 2.0, 32)


def test_a_preset_refuses_a_volume_or_detector_that_cannot_be():
    with refused(ValueError, "1100.0", "'x2ct'", "smaller"):
        preset("x2ct", (550, 10, 10), 2.0, 32)
    with refused(ValueError, "detector_pixels", "whole number", "got 0"):
        preset("carm", SHAPE, 2.0, 0)


def altered(**changes):
    return json.dumps({**json.loads(carm().to_json()), **changes})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not a JSON geometry"),
        ("[1, 2]", "JSON object, got list"),
        (altered(colour="red"), r"unknown .*\['colour'\]"),
        ("{}", r"missing .*\['detector_pixels', .*'volume_spacing_mm'\]"),
        (altered(detector_pixels=-4), "detector_pixels .*whole number.* got -4"),
        (altered(volume_shape=None), "volume_shape .*three counts.* got None"),
    ],
)
def test_a_bad_file_is_refused_with_its_name_and_the_rule(text, message, tmp_path):
    path = tmp_path / "geometry.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        read_geometry(path)
    assert str(error.value).startswith(str(path))


NUMBERS = ("9" * 10_000, "-" + "9" * 10_000, "1e308", "1e999", "-1e999", "1e-999", "NaN", "true", "null", '"9"', "[[]]")
NUMERIC = (
    "source_to_isocentre_mm",
    "source_to_detector_mm",
    "detector_pixels",
    "detector_spacing_mm",
    "volume_spacing_mm",
)


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("field", [*NUMERIC, "volume_shape", "an entry of volume_shape"])
def test_a_number_that_no_exam_has_is_refused_in_one_short_line_with_file_and_field(field, number, tmp_path):
    path, name = tmp_path / "geometry.json", field.split()[-1]
    marker = ["?", 8, 8] if field != name else "?"
    path.write_text(altered(**{name: marker}).replace('"?"', number))
    with pytest.raises(ValueError) as error:
        read_geometry(path)
    text = str(error.value)
    assert text.startswith(f"{path}: geometry: {name} ") and "got" in text and len(text) < 300 and "\n" not in text


@pytest.mark.parametrize(
    "content", [b"9" * 10_000, b"[" * 100_000, b"\xff\xfe{\x00}\x00", b" " * 2**21, b'{"a' * 9_999]
)
def test_any_other_content_is_refused_by_the_name_of_the_file(content, tmp_path):
    path = tmp_path / "geometry.json"
    path.write_bytes(content)
    with pytest.raises(ValueError) as error:
        read_geometry(path)
    assert str(error.value).startswith(f"{path}: ") and len(str(error.value)) < 400


def test_a_file_from_windows_may_begin_with_a_byte_order_mark(tmp_path):
    path = tmp_path / "geometry.json"
    path.write_text(carm().to_json(), encoding="utf-8-sig")
    assert read_geometry(path) == carm()


def test_a_missing_file_is_refused_rather_than_guessed(tmp_path):
    with refused(ValueError, "absent.json", "never guessed"):
        read_geometry(tmp_path / "absent.json")


def test_the_sides_may_be_left_to_their_defaults_in_a_file(tmp_path):
    values = json.loads(carm().to_json())
    del values["frontal_source"], values["lateral_source"]
    path = tmp_path / "geometry.json"
    path.write_text(json.dumps(values))
    assert read_geometry(path) == carm()


@pytest.mark.parametrize("name", ["carm", "x2ct", "chest", "parallel"])
def test_the_isocentres_pitch_is_that_of_the_detector_without_the_magnification(name):
    geometry = preset(name, SHAPE, 2.0, 32)
    magnified = geometry.isocentre_pitch_mm * float(geometry.magnification(torch.zeros(1), 1.0))
    assert magnified == pytest.approx(geometry.detector_spacing_mm)


@pytest.mark.parametrize("name", ["carm", "parallel"])
def test_a_geometry_is_the_same_from_the_fields_that_json_has(name):
    geometry = preset(name, SHAPE, 2.0, 32)
    assert BiplanarGeometry.from_dict(json.loads(geometry.to_json())) == geometry
