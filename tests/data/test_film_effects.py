"""Random films: reproducible, no effect without strength, effects that have the sizes asked for."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import distance_transform_edt
from tests.refusal import refused

from scripts import BUNDLE_ROOT
from scripts.data.film_effects import RandomFilms, RandomPoses
from scripts.exam.familiarity import read_reference
from scripts.exam.rectify import fade_to_air
from scripts.geometry import preset

N, EXAMS = 16, 400
GEOMETRY = preset("carm", (N, N, N), 20.0, N)
FILMS = RandomFilms(GEOMETRY)
REFERENCE = read_reference(f"{BUNDLE_ROOT}/models/radiographs.json")
CLEAR = RandomFilms(GEOMETRY, energy=0, scatter=0, blur_mm=0, photons=None, exposure=0, gamma=0, collimated=0)
P = torch.rand(EXAMS, 2, N, N, generator=torch.Generator().manual_seed(0)) * 8


def draw(films, exams: int = EXAMS, seed: int = 0):
    return films.draw(exams, torch.Generator().manual_seed(seed))


def test_films_of_no_strength_are_the_radiographs_bit_for_bit():
    assert torch.equal(draw(CLEAR)(P), P)


def test_films_are_finite_and_all_differ():
    seen = draw(FILMS)(P)
    assert seen.shape == P.shape and seen.dtype == P.dtype and torch.isfinite(seen).all()
    assert ((seen - P).abs().amax((2, 3)) > 0.01).all()


def test_films_of_air_and_of_thick_metal_are_finite():
    for value in (0.0, 300.0):
        assert torch.isfinite(draw(FILMS, 20)(torch.full((20, 2, N, N), value))).all()


def test_a_generators_state_decides_everything_and_a_drawn_film_is_always_the_same():
    film = draw(FILMS, 3)
    assert torch.equal(film(P[:3]), film(P[:3]))
    assert torch.equal(film(P[:3]), draw(FILMS, 3)(P[:3]))
    assert not torch.equal(film(P[:3]), draw(FILMS, 3, seed=1)(P[:3]))


def test_an_exams_film_does_not_depend_on_the_other_radiographs():
    other = P[:4].clone()
    other[1:] = 0
    film = draw(replace(FILMS, photons=None), 4)  # noise is one stream for all
    torch.testing.assert_close(film(P[:4])[0], film(other)[0])


def test_exposure_alone_is_an_offset_of_each_image_with_the_spread_asked_for():
    offset = draw(replace(CLEAR, exposure=0.2))(P) - P
    torch.testing.assert_close(offset, offset.mean((2, 3), keepdim=True).expand_as(offset), rtol=0, atol=1e-5)
    offsets = offset[..., 0, 0]
    assert offsets.std().item() == pytest.approx(0.2, rel=0.1) and abs(offsets.mean().item()) < 0.03
    assert torch.corrcoef(offsets.T)[0, 1].abs() < 0.2  # the views have their own


def test_contrast_alone_keeps_the_fixed_point_of_all_films():
    film = draw(replace(CLEAR, gamma=0.3))
    torch.testing.assert_close(film(torch.full_like(P, 6.0)), torch.full_like(P, 6.0))
    exponents = torch.log(film(torch.full_like(P, 6 * math.e)) / 6)[..., 0, 0]
    assert exponents.log().std().item() == pytest.approx(0.3, rel=0.1)


def test_energy_alone_is_one_factor_on_both_images_of_an_exam_with_the_spread_asked_for():
    factor = draw(replace(CLEAR, energy=0.2))(P) / P
    torch.testing.assert_close(factor, factor[:, :1, :1, :1].expand_as(factor))
    assert factor[:, 0, 0, 0].log().std().item() == pytest.approx(0.2, rel=0.1)


def test_noise_has_the_variance_of_its_photons():
    seen = draw(replace(CLEAR, photons=(1e4, 1e4)))(torch.full_like(P, 2.0))
    assert seen.var().item() == pytest.approx(math.exp(2) / 1e4, rel=0.03)


def test_scatter_and_blur_are_uniform_up_to_their_largest():
    film = draw(FILMS)
    for drawn, largest in ((film.scatter, FILMS.scatter), (film.blur_mm, FILMS.blur_mm)):
        assert 0 <= drawn.min() < 0.01 * largest and 0.99 * largest < drawn.max() <= largest
        assert drawn.mean().item() == pytest.approx(largest / 2, rel=0.1)
    counts = torch.tensor(film.photons)
    assert counts.min() >= 1e5 and counts.max() <= 1e7 and counts.log10().mean().item() == pytest.approx(6, abs=0.1)


def test_shutters_cover_their_share_of_the_images_asked_for():
    fields = (
        RandomFilms(preset("carm", (N, N, N), 20.0, 1000), collimated=0.3, shutter=0.2)
        .draw(2000, torch.Generator().manual_seed(0))
        .field
    )
    whole = (fields == torch.tensor([0, 999, 0, 999])).all(-1)
    assert whole.float().mean().item() == pytest.approx(0.7, abs=0.03)
    covered = torch.stack([fields[..., 0], 999 - fields[..., 1], fields[..., 2], 999 - fields[..., 3]], dim=-1)[~whole]
    assert covered.min() >= 0 and 190 < covered.max() < 200
    assert covered.float().mean().item() == pytest.approx(100, rel=0.05)


def test_what_shutters_cover_is_filled_in_as_when_a_film_is_read():
    film = draw(replace(CLEAR, collimated=1, shutter=0.4), 8)
    images, fields = zip(P[:8].flatten(0, 1), film(P[:8]).flatten(0, 1), strict=True), film.field.flatten(0, 1).tolist()
    for (image, made), (first, last, bottom, top) in zip(images, fields, strict=True):
        shown = np.zeros((N, N), bool)
        shown[first : last + 1, bottom : top + 1] = True
        nearest = distance_transform_edt(~shown, return_distances=False, return_indices=True)
        read = fade_to_air(image.numpy()[tuple(nearest)], shown, GEOMETRY)
        np.testing.assert_allclose(made.numpy(), read, rtol=1e-5, atol=1e-6)


def test_displayed_films_are_what_a_reader_makes_of_any_linear_display():
    radiographs = P[:3]
    made = draw(replace(CLEAR, displayed=1, reference=REFERENCE), 3)(radiographs)
    exposed = np.ones((N, N), dtype=bool)
    for shown in (radiographs, 3 * radiographs - 1):
        for view, number in (("frontal", 0), ("lateral", 1)):
            read = [REFERENCE.adapted(view, exam[number].numpy(), exposed) for exam in shown]
            np.testing.assert_allclose(made[:, number].numpy(), np.stack(read), rtol=1e-4, atol=1e-4)


def test_as_many_exams_are_displayed_as_asked_with_both_films():
    some = replace(CLEAR, displayed=0.25, reference=REFERENCE)
    changed = (draw(some)(P) != P).any(-1).any(-1)
    assert torch.equal(changed[:, 0], changed[:, 1])
    assert changed[:, 0].float().mean().item() == pytest.approx(0.25, abs=0.06)


@pytest.mark.parametrize("preset_name", ["chest", "x2ct"])
def test_values_of_another_field_are_refused(preset_name):
    with refused(ValueError, "films: reference", "reference.json"):
        RandomFilms(preset(preset_name, (N, N, N), 20.0, N), displayed=0.5, reference=REFERENCE)


@pytest.mark.parametrize(("name", "value", "message"), [
    ("displayed", 0.5, "displayed 0.5 needs .*reference"),
    ("displayed", 1.5, "displayed .*at most 1, got 1.5"),
    ("collimated", 2, "collimated .*at most 1, got 2"),
    ("scatter", -0.1, "scatter .*negative, got -0.1; 0"),
    ("blur_mm", math.nan, "blur_mm must be finite"),
    ("exposure", math.inf, "exposure must be finite"),
    ("shutter", 0.5, "shutter .*below 0.5, .*got 0.5"),
    ("fixed_point", 0.0, "fixed_point .*positive, got 0.0; .*gamma 0"),
    ("photons", (0, 10), r"photons .*1e.09, got \(0, 10\); None"),
    ("photons", (1e5, 1e10), "photons .*most"),
    ("photons", (10, 5), "photons .*most"),
])  # fmt: skip
def test_impossible_films_are_refused(name, value, message):
    with pytest.raises(ValueError, match=message):
        RandomFilms(GEOMETRY, **{name: value})


def test_poses_without_errors_are_the_identity():
    rotations, shifts_mm = draw(RandomPoses(0, 0, 0, 0), 3)
    assert torch.equal(rotations, torch.eye(3).expand(3, 2, 3, 3)) and not shifts_mm.any()


def test_poses_are_rotations_and_the_same_for_the_same_state():
    rotations, shifts_mm = draw(RandomPoses())
    torch.testing.assert_close(rotations @ rotations.mT, torch.eye(3).expand_as(rotations), rtol=0, atol=1e-5)
    torch.testing.assert_close(torch.linalg.det(rotations), torch.ones(EXAMS, 2))
    again = draw(RandomPoses())
    assert torch.equal(rotations, again[0]) and torch.equal(shifts_mm, again[1])
    assert shifts_mm.std().item() == pytest.approx(3, rel=0.1)


@pytest.mark.parametrize(("error", "axes"), [("angle_deg", (2, 2)), ("tilt_deg", (0, 1)), ("turn_deg", (1, 0))])
def test_each_error_turns_each_view_about_its_own_axis(error, axes):
    still = {"angle_deg": 0, "tilt_deg": 0, "turn_deg": 0, "shift_mm": 0}
    rotations, _ = draw(RandomPoses(**still | {error: 4.0}))
    for view, axis in enumerate(axes):
        turned = rotations[:, view]
        torch.testing.assert_close(turned[:, axis, axis], torch.ones(EXAMS))
        i, j = (axis + 1) % 3, (axis + 2) % 3
        assert torch.rad2deg(torch.asin(turned[:, j, i])).std().item() == pytest.approx(4, rel=0.1)


def test_as_many_exams_are_misaligned_as_asked_in_both_views():
    rotations, shifts_mm = draw(RandomPoses(misaligned=0.25))
    aligned = (rotations == torch.eye(3)).all(-1).all(-1)
    assert torch.equal(aligned, ~shifts_mm.bool().any(-1)) and torch.equal(aligned[:, 0], aligned[:, 1])
    assert aligned[:, 0].float().mean().item() == pytest.approx(0.75, abs=0.06)


def test_impossible_poses_are_refused():
    with refused(ValueError, "misaligned", "at most 1", "got 3", "--film_share"):
        RandomPoses(misaligned=3)
    with refused(ValueError, "misaligned must be finite", "got 'half'"):
        RandomPoses(misaligned="half")
    with refused(ValueError, "tilt_deg", "not negative", "got -1"):
        RandomPoses(tilt_deg=-1)
