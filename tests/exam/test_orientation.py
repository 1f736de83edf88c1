"""Laws of the check of films, and the mistakes that the shipped one names on radiographs it never saw."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from scripts.exam.acquisition import acquisitions_of
from scripts.exam.exam import FilmFile, ViewInput
from scripts.exam.film_check import CheckFilms
from scripts.exam.load import LoadExamd
from scripts.exam.orientation import HYPOTHESES, SIDE, FilmCheck, ranked
from scripts.exam.rectify import rectify
from scripts.geometry import VIEWS, preset
from scripts.inference.weights import load_weights
from scripts.io.case import read_case

GEOMETRY = preset("carm", (64, 64, 64), 5.0, 128)
BUNDLE = Path(__file__).resolve().parents[2] / "bundle"
SHIPPED = BUNDLE / "models" / "auxiliary" / "orientation.pt"
DEMO = BUNDLE / "docs" / "demo"


def image(seed=0, side=SIDE):
    return torch.randn(1, side, side, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def shipped():
    return load_weights(FilmCheck(), SHIPPED)


@pytest.fixture(scope="module")
def demo():
    """Radiographs ``[2, 128, 128]`` of a phantom that training never shows."""
    return F.avg_pool2d(read_case(DEMO).line_integrals, 2)


def as_films(images):
    """The processing of films in the network's own geometry."""
    taken = acquisitions_of(GEOMETRY)
    film = FilmFile("a.png", None, tuple(images.shape[-2:]), "display")
    return {view: ViewInput(taken[view], 0.0, 1.0, (), film) for view in VIEWS}


def test_hypotheses_are_different_and_the_first_changes_nothing():
    undone = [hypothesis.undo(image()) for hypothesis in HYPOTHESES]
    assert undone[0].equal(image())
    assert all(not a.equal(b) for i, a in enumerate(undone) for b in undone[:i])


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("hypothesis", HYPOTHESES[:8])
def test_the_orientation_it_names_puts_the_film_right(view, hypothesis):
    taken = acquisitions_of(GEOMETRY)[view]
    pixels, mask = image(side=128)[0].numpy(), np.ones((128, 128), dtype=bool)
    wrong, _ = rectify(pixels, mask, taken, view, GEOMETRY)
    named = replace(taken, orientation=hypothesis.orientation(taken.orientation, view, GEOMETRY))
    right, _ = rectify(pixels, mask, named, view, GEOMETRY)
    np.testing.assert_allclose(right, hypothesis.undo(torch.from_numpy(wrong)).numpy(), atol=1e-4)


def test_only_the_order_of_grey_values_counts():
    pixels = image().numpy()
    assert ranked(np.exp(pixels)).equal(ranked(pixels))
    torch.testing.assert_close(ranked(-pixels), -ranked(pixels))


def test_a_mistake_only_reorders_the_probabilities(shipped):
    upright = shipped.probabilities(image(side=SIDE).numpy())
    for hypothesis in HYPOTHESES:
        changed = shipped.probabilities(hypothesis.undo(image()).numpy())
        np.testing.assert_allclose(np.sort(changed.ravel()), np.sort(upright.ravel()), rtol=1e-4)
        assert upright.sum() == pytest.approx(1)


def test_an_upright_exam_is_not_warned_of(shipped, demo):
    assert shipped.warnings(demo.numpy(), GEOMETRY, as_films(demo)) == []
    assert shipped.warnings(1 - np.exp(-demo.numpy() / 3), GEOMETRY, as_films(demo)) == []


MISSED = ("frontal", "mirrored")
"""Half of these films are not recognised, among them that of the demo."""
RECOGNISED = [(view, h) for view in VIEWS for h in HYPOTHESES[1:9] if (view, h.words) != MISSED]


@pytest.mark.parametrize("view, hypothesis", RECOGNISED)
def test_a_film_the_wrong_way_round_is_named_with_what_to_do(shipped, demo, view, hypothesis):
    changed = demo - demo.mean()  # undo inverts about 0
    changed[VIEWS.index(view)] = hypothesis.undo(changed[VIEWS.index(view)])
    inputs = as_films(demo)
    (warning,) = shipped.warnings(changed.numpy(), GEOMETRY, inputs)
    assert warning.startswith(f"{view} film: looks ")
    if hypothesis.inverted:
        assert "inverted" in warning and "bone is bright" in warning
        return
    (right,) = (found for found in HYPOTHESES[:8] if found.undo(hypothesis.undo(image())).equal(image()))
    stated = inputs[view].acquisition.orientation
    assert right.words in warning
    assert f"--orientation \"{{'{view}': '{right.orientation(stated, view, GEOMETRY)}'}}\"" in warning


def test_exchanged_films_and_two_of_a_kind_are_named(shipped, demo):
    inputs = as_films(demo)
    (warning,) = shipped.warnings(demo.flip(0).numpy(), GEOMETRY, inputs)
    assert "exchange --frontal and --lateral" in warning
    twice = np.stack([demo[0], 1.1 * demo[0]])
    (warning,) = shipped.warnings(twice, GEOMETRY, inputs)
    assert warning == "lateral film: looks like a frontal view; if it is, give a lateral one"


def test_a_limb_is_named(shipped, demo):
    """Two bones along the film, in a cylinder of soft tissue that leaves air at both sides."""
    across = np.linspace(-1, 1, 128)
    limb = 3 * np.sqrt(np.clip(0.25 - across**2, 0, None)) + np.exp(-(((np.abs(across) - 0.2) / 0.08) ** 2))
    films = np.stack([np.tile(limb[:, None], (1, 128)), demo[1].numpy()]).astype(np.float32)
    (warning,) = shipped.warnings(films, GEOMETRY, as_films(demo))
    assert warning.startswith("frontal film: ")


def test_films_of_another_geometry_are_not_checked_but_finer_ones_are(shipped, demo):
    finer = preset("carm", (128, 128, 128), 2.5, 256)
    assert shipped.warnings(np.repeat(np.repeat(demo.numpy(), 2, 1), 2, 2), finer, as_films(demo)) == []
    others = preset("x2ct", (64, 64, 64), 5.0, 128), replace(GEOMETRY, lateral_source="left")
    for other in (*others, replace(GEOMETRY, detector_spacing_mm=1.1 * GEOMETRY.detector_spacing_mm)):
        (warning,) = shipped.warnings(demo.mT.numpy(), other, as_films(demo))
        assert "not checked" in warning and "another geometry" in warning and "--film_check" in warning


def test_a_single_view_is_checked_alone(shipped, demo):
    turned = demo.mT.numpy()
    (warning,) = shipped.warnings(turned, GEOMETRY, {}, ["frontal"])
    assert warning.startswith("frontal film: looks turned by 90") and "turn the image in its file" in warning


@pytest.mark.parametrize("factor", [1, 2])
def test_the_films_of_a_loaded_exam_are_checked_at_the_network_s_resolution(shipped, factor):
    image = LoadExamd("image", GEOMETRY, factor=factor)({"image": str(DEMO)})["image"]
    check = CheckFilms(shipped, GEOMETRY)
    assert check(image) == []
    turned = image.clone()
    turned[0] = image[0].mT
    (warning,) = check(turned)
    assert warning.startswith("frontal film: looks turned by 90")


def test_of_two_likely_orientations_the_film_lies_as_it_fits_the_other_one(shipped, demo):
    """A film that looks upright is named if the films fit far better with it mirrored, and only then."""
    inputs, mirror = as_films(demo), HYPOTHESES[2]
    pairs = []

    def misfit(films):
        """A hundredth where the frontal film is mirrored and the lateral one as it is."""
        pairs.append(films)
        return torch.tensor([0.01 if torch.equal(pair, fitting) else 1.0 for pair in films])

    fitting = demo.clone()
    assert shipped.warnings(demo.numpy(), GEOMETRY, inputs, misfit=misfit) == []
    fitting[0] = mirror.undo(demo[0])
    (warning,) = shipped.warnings(demo.numpy(), GEOMETRY, inputs, misfit=misfit)
    assert warning.startswith("frontal film: looks mirrored")
    assert pairs[0].shape == (8, 2, 128, 128) and torch.equal(pairs[0][0], demo)
    assert all(len({pair[number].numpy().tobytes() for pair in pairs[0]}) == 5 for number in (0, 1))
    turned = demo.clone()
    turned[1] = demo[1].mT
    (warning,) = shipped.warnings(turned.numpy(), GEOMETRY, inputs, misfit=lambda films: torch.ones(len(films)))
    assert warning.startswith("lateral film: looks turned by 90")


def test_the_film_that_looks_wrong_explains_why_the_films_do_not_fit(shipped, demo):
    """One film upside down: with the other one upside down too they would fit as well, but only that one looks it."""
    films = demo.clone()
    films[1] = HYPOTHESES[3].undo(demo[1])

    def misfit(pairs):
        lies = [[torch.equal(pair[number], demo[number]) for number in (0, 1)] for pair in pairs]
        return torch.tensor([0.01 if frontal == lateral else 1.0 for frontal, lateral in lies])

    (warning,) = shipped.warnings(films.numpy(), GEOMETRY, as_films(demo), misfit=misfit)
    assert warning.startswith("lateral film: looks upside down;")


@pytest.mark.parametrize(("exchanged", "named"), [(0.01, True), (100.0, False)])
def test_films_that_may_be_exchanged_are_called_so_if_they_fit_so(shipped, demo, monkeypatch, exchanged, named):
    alone = np.full((2, 2, 16), 0.05 / 30)
    alone[0, :, 0], alone[1, :, 0] = (0.05, 0.9), (0.9, 0.05)
    monkeypatch.setattr(shipped, "probabilities", lambda images: alone)

    def misfit(pairs):
        return torch.tensor([exchanged if torch.equal(pair, demo.flip(0)) else 1.0 for pair in pairs])

    said = shipped.warnings(demo.numpy(), GEOMETRY, {}, misfit=misfit)
    assert (said == ["the two films look exchanged; if they are, exchange --frontal and --lateral"]) == named
    assert bool(said) == named


@pytest.mark.parametrize(("fitting", "named"), [(0.5, True), (1.0, True), (2.0, False)])
def test_a_film_that_may_be_turned_is_called_so_unless_it_fits_better_as_it_is(
    shipped, demo, monkeypatch, fitting, named
):
    turned = 5
    alone = np.full((2, 2, 16), 0.05 / 30)
    alone[0, 0, 0], alone[0, 0, turned], alone[1, 1, 0] = 0.04, 0.9, 0.9
    assert alone[0, 0, 0] > shipped.limit
    monkeypatch.setattr(shipped, "probabilities", lambda images: alone)
    pairs = []

    def misfit(films):
        pairs.extend(films)
        return torch.tensor(
            [fitting if torch.equal(pair[0], HYPOTHESES[turned].undo(demo[0])) else 1 for pair in films]
        )

    said = shipped.warnings(demo.numpy(), GEOMETRY, {}, misfit=misfit)
    assert len(pairs) == 9
    assert [text.partition(";")[0] for text in said] == ["frontal film: looks turned by 90 degrees"] * named


def test_one_film_has_no_other_one_to_fit(shipped, demo):
    def misfit(films):
        raise AssertionError

    assert shipped.warnings(demo.numpy(), GEOMETRY, {}, ["frontal"], misfit=misfit) == []
