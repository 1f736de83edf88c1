"""Films in the network's frame: exact inverses, closed forms, and limits to what is accepted."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.refusal import refused

from scripts.dicom.write_radiograph import AIR_COUNTS, FORMS, simulated_header, write_dx
from scripts.exam.acquisition import Acquisition, acquire_exam, acquisitions_of
from scripts.exam.rectify import (
    FADE_MM,
    MIN_FIELD,
    REFUSE_ANGLE_DEG,
    REFUSE_DISPLACEMENT,
    WARN_ANGLE_DEG,
    deviations,
    displacement_mm,
    fade_to_air,
    film_indices,
    rectify,
)
from scripts.exam.views import find_exam
from scripts.geometry import VIEWS, centred_coordinates_mm, preset
from scripts.io.case import read_case
from scripts.physics.raymarch import RayMarchProjector, rotate_pose, view_pose
from scripts.physics.separable import SeparableProjector

GEOMETRY = preset("carm", (24, 24, 24), 10.0, 48)
MODEL = preset("carm", (64, 64, 64), 5.0, 128)
"""The grid and detector of the shipped weights, up to half a per cent."""
SIDES = {"frontal": "LR", "lateral": "AP"}


def body():
    """A smooth volume ``[1, 1, 24, 24, 24]`` without any symmetry, fading at the grid's faces."""
    axis = torch.linspace(-1, 1, 24, dtype=torch.float64)
    u, v, w = torch.meshgrid(axis, axis, axis, indexing="ij")
    large = torch.exp(-((u - 0.1) ** 2 / 0.2 + (v + 0.05) ** 2 / 0.1 + (w - 0.08) ** 2 / 0.25))
    small = torch.exp(-((u + 0.3) ** 2 + (v - 0.2) ** 2 + (w + 0.3) ** 2) / 0.05)
    return 0.02 * (large + small)[None, None]


def drr(geometry, view):
    return SeparableProjector(geometry, torch.float64)(body())[0, VIEWS.index(view)].numpy()


def seen(pixels, acquisition, view, geometry=GEOMETRY):
    return rectify(pixels, np.ones(pixels.shape, bool), acquisition, view, geometry)


def error(image, truth):
    return float(np.linalg.norm(image - truth) / np.linalg.norm(truth))


def film_of(image, orientation, view):
    """An image ``[N, N]`` of a view, axes (u, w) or (v, w), laid out as a film of this orientation."""
    positive = ("R" if view == "frontal" else "A", "H")
    along_row, along_column = (1 if letter in "HF" else 0 for letter in orientation)
    film = image if (along_column, along_row) == (0, 1) else image.T
    flips = [axis for axis, letter in enumerate(orientation[::-1]) if letter not in positive]
    return np.flip(film, flips)


def orientations(view):
    across = SIDES[view]
    return [a + b for a in across for b in "HF"] + [b + a for a in across for b in "HF"]


@pytest.mark.parametrize("view", VIEWS)
def test_a_film_taken_in_the_networks_own_geometry_stays_as_it_is(view):
    image = drr(GEOMETRY, view)
    result, covered = seen(image, acquisitions_of(GEOMETRY)[view], view)
    assert result.dtype == np.float32 and result.shape == covered.shape == (48, 48) and covered.all()
    np.testing.assert_allclose(result, image, atol=1e-6)


@pytest.mark.parametrize(("view", "orientation"), [(v, o) for v in VIEWS for o in orientations(v)])
def test_every_way_to_lay_out_a_film_gives_the_same_image(view, orientation):
    image = np.random.default_rng(0).random((48, 48))
    taken = replace(acquisitions_of(GEOMETRY)[view], orientation=orientation)
    np.testing.assert_allclose(seen(film_of(image, orientation, view), taken, view)[0], image, atol=1e-6)


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("finer", [2, 5, 8])
def test_a_finer_and_larger_detector_of_the_same_source_gives_the_same_image(view, finer):
    fine = replace(GEOMETRY, detector_pixels=55 * finer, detector_spacing_mm=GEOMETRY.detector_spacing_mm / finer)
    result, covered = seen(drr(fine, view), acquisitions_of(fine)[view], view)
    assert covered.all() and error(result, drr(GEOMETRY, view)) < 0.005


@pytest.mark.parametrize("view", VIEWS)
def test_the_detectors_distance_alone_changes_nothing(view):
    near = replace(GEOMETRY, source_to_detector_mm=900.0, detector_spacing_mm=GEOMETRY.detector_spacing_mm * 0.75)
    result, _ = seen(drr(near, view), acquisitions_of(near)[view], view)
    assert error(result, drr(GEOMETRY, view)) < 1e-6


@pytest.mark.parametrize("view", VIEWS)
def test_a_shifted_film_with_oblong_pixels_gives_the_same_image_where_it_reaches(view):
    fine = replace(GEOMETRY, detector_pixels=240, detector_spacing_mm=GEOMETRY.detector_spacing_mm / 5)
    wide = drr(fine, view).T[10:, 20:]  # rows along w
    film = (wide[:-1:2] + wide[1::2]) / 2
    pitch = fine.detector_spacing_mm
    taken = replace(
        acquisitions_of(fine)[view],
        orientation=SIDES[view].strip("LP") + "H",
        pixel_spacing_mm=(2 * pitch, pitch),
        centre=((119.5 - 10.5) / 2, 119.5 - 20),
    )
    result, covered = seen(film, taken, view)
    assert covered.mean() == pytest.approx(44 / 48 * 46 / 48)
    assert error(result[covered], drr(GEOMETRY, view)[covered]) < 0.004


@pytest.mark.parametrize("angle_deg", [-7.0, 20.0])
def test_a_film_turned_in_its_plane_is_turned_back(angle_deg):
    # A turn of the detector about the central ray: the right-handed rotation about +v, seen from the anterior source.
    fine = replace(GEOMETRY, detector_pixels=192, detector_spacing_mm=GEOMETRY.detector_spacing_mm / 3)
    pose = rotate_pose(view_pose(fine, "frontal"), (0.0, math.radians(angle_deg), 0.0))
    turned = RayMarchProjector(fine, (pose, pose), dtype=torch.float64)(body())[0, 0].numpy()
    # Laid out as "RH", u grows to the right and w downwards; the turn about v takes w towards u, so the detector turns
    # anticlockwise there and the patient clockwise on it.
    middle = 191 / 2
    taken = replace(acquisitions_of(fine)["frontal"], orientation="RH", centre=(middle, middle), rotation_deg=angle_deg)
    result, _ = seen(turned.T, taken, "frontal")
    assert error(result, drr(GEOMETRY, "frontal")) < 0.01


def test_a_case_written_as_films_comes_back_from_their_headers(tmp_path):
    case = read_case(Path(__file__).parents[2] / "bundle" / "docs" / "demo")
    other = replace(case.geometry, frontal_source="posterior", lateral_source="left")
    header = simulated_header("demo", "demo")
    for view, image in zip(VIEWS, case.line_integrals.numpy(), strict=True):
        write_dx(tmp_path / f"{view}.dcm", image, view, other, header, FORMS["processing"])
    films = find_exam(tmp_path)[0]
    taken = acquire_exam(films, {})
    for view, image in zip(VIEWS, case.line_integrals.numpy(), strict=True):
        assert taken[view].source_side == {"frontal": "posterior", "lateral": "left"}[view]
        assert taken[view].source_to_isocentre_mm == 785 and taken[view].source_to_detector_mm == 1200
        line_integrals = -np.log(films[view].pixels / AIR_COUNTS)
        np.testing.assert_allclose(seen(line_integrals, taken[view], view, case.geometry)[0], image, atol=0.05)


def test_a_point_lands_where_the_closed_form_says():
    taken = Acquisition(1500, 1800, (0.2, 0.4), "LF", "posterior", (800, 500), rotation_deg=30)
    indices, pitch = film_indices(taken, "frontal", MODEL)
    i, j = 100, 20
    to_isocentre = MODEL.detector_spacing_mm * 785 / 1200
    u, w = (i - 63.5) * to_isocentre, (j - 63.5) * to_isocentre
    right, down = -u * 1.2, -w * 1.2  # on the film, columns run to the left of the patient and rows to the feet
    cos, sin = math.cos(math.radians(30)), math.sin(math.radians(30))
    clockwise = (down * cos + right * sin, right * cos - down * sin)  # rows run downwards
    assert indices[:, i, j] == pytest.approx((800 + clockwise[0] / 0.2, 500 + clockwise[1] / 0.4))
    assert pitch == pytest.approx((1.2 * to_isocentre / 0.2, 1.2 * to_isocentre / 0.4))


def test_detail_finer_than_the_networks_pixels_is_averaged_not_aliased():
    rows, columns = np.indices((960, 960))
    film = ((rows + columns) % 2).astype(np.float32)
    taken = replace(
        acquisitions_of(GEOMETRY)["frontal"], pixel_spacing_mm=GEOMETRY.detector_spacing_mm / 20, centre=(479.5, 479.5)
    )
    np.testing.assert_allclose(seen(film, taken, "frontal")[0], 0.5, atol=1e-3)


@pytest.mark.parametrize("outside", [0.0, 1e4, math.nan])
def test_pixels_outside_the_mask_carry_no_weight_and_repeat_the_nearest_inside(outside):
    columns = np.tile(np.linspace(0, 1, 480, dtype=np.float32), (480, 1))
    mask = np.zeros((480, 480), bool)
    mask[60:400, 100:] = True
    film = np.where(mask, columns, outside)
    taken = replace(
        acquisitions_of(GEOMETRY)["frontal"],
        orientation="RH",
        pixel_spacing_mm=GEOMETRY.detector_spacing_mm / 10,
        centre=(239.5, 239.5),
    )
    result, covered = rectify(film, mask, taken, "frontal", GEOMETRY)
    expected = np.zeros((48, 48), bool)
    expected[10:, 6:40] = True
    np.testing.assert_array_equal(covered, expected)
    assert result.min() > columns[0, 100] - 1e-3 and result.max() <= 1
    np.testing.assert_array_equal(result[:10], np.broadcast_to(result[10], (10, 48)))
    np.testing.assert_array_equal(result[:, 40:], np.broadcast_to(result[:, 39:40], (48, 8)))


def test_a_hole_in_the_mask_is_filled_from_around_it():
    mask = np.ones((48, 48), bool)
    mask[20:23, 30:33] = False
    film = np.where(mask, 3.0, -50.0)
    result, covered = rectify(film, mask, acquisitions_of(GEOMETRY)["frontal"], "frontal", GEOMETRY)
    assert (~covered).sum() == 9
    np.testing.assert_allclose(result, 3.0)


def test_beside_a_film_values_fall_to_air_and_elsewhere_stay_as_they_are():
    covered = np.zeros((128, 128), bool)
    covered[20:100, 30:90] = True
    covered[50:60, 40:50] = False
    faded = fade_to_air(np.full((128, 128), 3.0, np.float32), covered, MODEL)
    np.testing.assert_array_equal(faded, np.broadcast_to(faded[:, :1], faded.shape))
    np.testing.assert_array_equal(faded[20:100], 3)
    pitch_mm = MODEL.detector_spacing_mm * 785 / 1200
    beside_mm = np.r_[np.arange(20, 0, -1), np.arange(1, 29)] * pitch_mm
    expected = 3 * (1 - np.minimum(beside_mm / FADE_MM, 1))
    np.testing.assert_allclose(np.r_[faded[:20, 0], faded[100:, 0]], expected, atol=1e-6)


def test_neither_film_nor_mask_is_changed():
    film, mask = np.ones((48, 48)), np.ones((48, 48), bool)
    mask[:10] = False
    before = film.copy(), mask.copy()
    rectify(film, mask, acquisitions_of(GEOMETRY)["lateral"], "lateral", GEOMETRY)
    np.testing.assert_array_equal(film, before[0])
    np.testing.assert_array_equal(mask, before[1])


@pytest.mark.parametrize(("side", "accepted"), [(32, True), (30, False), (0, False)])
def test_a_film_that_shows_too_little_is_refused_with_the_numbers(side, accepted):
    mask = np.zeros((48, 48), bool)
    mask[:side, :side] = True
    taken = acquisitions_of(GEOMETRY)["lateral"]
    if accepted:
        assert rectify(np.ones((48, 48)), mask, taken, "lateral", GEOMETRY)[1].mean() >= MIN_FIELD
        return
    with refused(ValueError, "lateral film", f"{(side / 48) ** 2:.0%}", "mm square", "40%"):
        rectify(np.ones((48, 48)), mask, taken, "lateral", GEOMETRY)


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("depth_mm", [60.0, -60.0])
@pytest.mark.parametrize("side", [0, 1])
def test_a_marker_off_the_isocentre_lands_as_far_off_as_the_closed_form_says(view, depth_mm, side):
    geometry = preset("carm", (25, 25, 25), 10.0, 240)
    other = replace(
        preset("chest", (25, 25, 25), 10.0, 480),
        frontal_source=("anterior", "posterior")[side],
        lateral_source=("right", "left")[side],
    )
    mu = torch.zeros(1, 1, 25, 25, 25, dtype=torch.float64)
    place = [12, 12, 12]
    place[geometry.view(view).column_axis] += 10
    place[geometry.view(view).depth_axis] += round(depth_mm / 10)
    mu[(0, 0, *place)] = 1.0
    centroids = []
    for taken in (geometry, other):
        film = SeparableProjector(taken, torch.float64)(mu)[0, VIEWS.index(view)].numpy()
        image, _ = seen(film, acquisitions_of(taken)[view], view, geometry)
        at_mm = centred_coordinates_mm(240, geometry.detector_spacing_mm * 785 / 1200).numpy()
        centroids.append(float(image.sum(1) @ at_mm / image.sum()))
    sign = 1 - 2 * side
    closed = 100 / (1 - sign * depth_mm / 1500) - 100 / (1 - depth_mm / 785)
    assert centroids[1] - centroids[0] == pytest.approx(closed, abs=0.5)


@pytest.mark.parametrize(
    ("distances_mm", "is_mirrored", "limit"),
    [((1500.0, 1800.0), False, 0.015), ((1500.0, 1800.0), True, 0.04), ((541.0, 949.0), False, 0.02)],
)
def test_another_source_distance_leaves_a_small_error_and_the_other_side_a_larger_one(distances_mm, is_mirrored, limit):
    other = replace(
        GEOMETRY,
        source_to_isocentre_mm=distances_mm[0],
        source_to_detector_mm=distances_mm[1],
        detector_pixels=300,
        detector_spacing_mm=2.0,
        frontal_source="posterior" if is_mirrored else "anterior",
        lateral_source="left" if is_mirrored else "right",
    )
    errors = [error(seen(drr(other, v), acquisitions_of(other)[v], v)[0], drr(GEOMETRY, v)) for v in VIEWS]
    assert limit / 4 < max(errors) < limit


def exam(**changes):
    """Both views as the network was trained, but for these fields: a value for both or one each."""
    taken = acquisitions_of(MODEL)
    for name, value in changes.items():
        values = value if isinstance(value, dict) else dict.fromkeys(VIEWS, value)
        taken = {view: replace(taken[view], **({name: values[view]} if view in values else {})) for view in VIEWS}
    return taken


CHEST = {"source_to_detector_mm": 1800, "source_to_isocentre_mm": 1500}
OTHER_SIDES = {"frontal": "posterior", "lateral": "left"}


def test_the_networks_own_exam_deviates_in_nothing():
    assert deviations(exam(), MODEL) == ([], [])


def test_displacement_is_that_of_the_closed_form():
    # 160 mm off the axis and 80 mm from the isocentre, towards the source or away from it
    near, far = 160 / (1 - 80 / 785), 160 / (1 + 80 / 785)
    chest_near, chest_far = 160 / (1 - 80 / 1500), 160 / (1 + 80 / 1500)
    for view in VIEWS:
        assert displacement_mm(exam()[view], view, MODEL) == 0
        assert displacement_mm(exam(**CHEST)[view], view, MODEL) == pytest.approx(near - chest_near)
        assert displacement_mm(exam(source_side=OTHER_SIDES)[view], view, MODEL) == pytest.approx(near - far)
        both = exam(**CHEST, source_side=OTHER_SIDES)[view]
        assert displacement_mm(both, view, MODEL) == pytest.approx(near - chest_far)
        inside = exam(source_to_isocentre_mm=80)[view]
        assert displacement_mm(inside, view, MODEL) == math.inf
        distant = Acquisition(math.inf, math.inf, 1, "LF", "right", (0, 0))
        assert displacement_mm(distant, view, MODEL) == pytest.approx(near - 160)


def test_the_usual_chest_exam_is_accepted_by_the_default_network_with_warnings_in_mm():
    side = {"frontal": "posterior"}
    warnings, refusals = deviations(exam(**CHEST, source_side=side), MODEL)
    assert not refusals and len(warnings) == 2
    assert "frontal view: source posterior, 1500 mm" in warnings[0] and "26.3 mm" in warnings[0]
    assert "anterior, 785 mm" in warnings[0] and "more than 5 mm, refused beyond 40" in warnings[0]
    assert "lateral view: source right" in warnings[1] and "9.1 mm" in warnings[1]


def test_a_source_far_too_near_is_refused():
    warnings, refusals = deviations(exam(source_to_isocentre_mm=300, source_side=OTHER_SIDES), MODEL)
    assert not warnings and len(refusals) == 2
    assert f"at most {320 * REFUSE_DISPLACEMENT:.4g} mm are accepted: correct it, or train for it" in refusals[0]


@pytest.mark.parametrize("field", ["angle_deg", "tilt_deg"])
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(
    ("angle", "warned", "refused"),
    [(1.9, 0, 0), (WARN_ANGLE_DEG + 0.1, 1, 0), (9.9, 1, 0), (REFUSE_ANGLE_DEG + 0.1, 0, 1)],
)
def test_a_view_off_its_axis_is_warned_of_and_then_refused(field, sign, angle, warned, refused):
    for view in VIEWS:
        found = deviations(exam(**{field: {view: sign * angle}}), MODEL)
        off_axis = [
            [text for text in texts if f"{view} view: {angle:.1f} degrees off its axis" in text] for texts in found
        ]
        assert [len(texts) for texts in off_axis] == [warned, refused]


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_alone_is_judged_as_it_is_beside_another(view):
    taken = exam(**CHEST, angle_deg={view: 5})
    beside = [text for text in deviations(taken, MODEL)[0] if text.startswith(f"{view} view: ")]
    assert len(beside) == 2
    assert deviations({view: taken[view]}, MODEL) == (beside, [])


def test_the_angle_between_the_views_counts_not_that_of_both():
    together = deviations(exam(angle_deg=5), MODEL)[0]
    assert len(together) == 2 and not any("apart" in text for text in together)
    against = deviations(exam(angle_deg={"frontal": 4, "lateral": -4}), MODEL)
    assert any("the views are 82.0 degrees apart, not 90" in text for text in against[0]) and not against[1]
    far = deviations(exam(angle_deg={"frontal": 6, "lateral": -6}), MODEL)
    assert any("the views are 78.0 degrees apart, not 90; at most 10 degrees" in text for text in far[1])
    assert not any("apart" in text for text in deviations(exam(tilt_deg={"frontal": 5}), MODEL)[0])


def test_two_tilts_bring_views_together_as_the_scalar_product_says():
    warnings, refusals = deviations(exam(tilt_deg=9.9, angle_deg={"frontal": 1}), MODEL)
    f, t = math.radians(1), math.radians(9.9)
    # frontal (sin f cos t, cos f cos t, sin t) and lateral (cos t, 0, sin t)
    between = math.degrees(math.acos(math.sin(f) * math.cos(t) ** 2 + math.sin(t) ** 2))
    assert any(f"{between:.1f} degrees apart" in text for text in warnings) and not refusals


def test_views_from_different_distances_are_warned_of():
    mixed = exam(source_to_detector_mm=1800, source_to_isocentre_mm={"frontal": 1000, "lateral": 900})
    assert any("1000 and 1800 mm frontal, 900 and 1800 mm lateral" in text for text in deviations(mixed, MODEL)[0])
    alike = exam(source_to_detector_mm=1800, source_to_isocentre_mm={"frontal": 1000, "lateral": 980})
    assert not any("frontal," in text for text in deviations(alike, MODEL)[0])
