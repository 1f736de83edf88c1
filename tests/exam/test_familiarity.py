"""Laws of the statistics of training radiographs, on a small network trained on phantoms."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import norm
from tests.refusal import refused

from scripts.cases.standard import Settings, radiographs
from scripts.data.augment import RandomDeformation, WholeBody
from scripts.data.contrast import RandomContrast
from scripts.data.datasets import RandomViews
from scripts.data.patients import Always, Mixture
from scripts.exam.familiarity import (
    BODY,
    CELLS,
    COMPONENTS,
    KNOTS,
    PROBABILITIES,
    Reference,
    ViewStatistics,
    cell_means,
    read_reference,
    weighted_quantiles,
)
from scripts.geometry import VIEWS, preset
from scripts.intensity import hu_to_mu
from scripts.phantom.torso import torso
from scripts.physics.separable import SeparableProjector
from scripts.studies.reference import LEVEL_RISK, _prediction_limit, make_reference

BUNDLE = Path(__file__).resolve().parents[2] / "bundle"
GEOMETRY = preset("carm", (32, 32, 32), 10.0, 48)
PROJECTOR = SeparableProjector(GEOMETRY)
EVERYWHERE = np.ones((48, 48), dtype=bool)


def phantom(seed):
    return torso(seed, (40, 32, 40), 10.0).hu.float()


def patients(count, weights=None):
    """Random views of phantoms."""
    sources = [Always(WholeBody.of(phantom(seed), 10.0)) for seed in range(count)]
    mixture = Mixture(sources, torch.tensor(weights or [1.0] * count))
    return RandomViews(mixture, GEOMETRY, RandomDeformation(shift_mm=(10.0, 10.0, 20.0)), RandomContrast(), length=1)


@pytest.fixture(scope="module")
def reference():
    return make_reference(patients(8), PROJECTOR, GEOMETRY, 12)


@pytest.fixture(scope="module")
def unseen():
    """Radiographs ``[2, N, N]`` of phantoms that the reference was not made from."""
    standard = [torso(seed, (32, 32, 32), 10.0).hu.float().numpy() for seed in range(100, 104)]
    return [radiographs(hu, Settings(GEOMETRY, 10.0)) for hu in standard]


def random_statistics(seed=0):
    """Of no radiographs, but consistent."""
    rng = np.random.default_rng(seed)
    directions = np.linalg.qr(rng.normal(size=(CELLS**2, COMPONENTS)))[0].T
    cells = np.sort(rng.random((CELLS**2, len(KNOTS))))
    numbers = {
        "residual_variance": 0.3,
        "level_mean": 1.6,
        "level_std": 0.1,
        "distance_limit": 20.0,
        "level_limit": 3.0,
    }
    numbers |= {"cells": cells, "occupied": rng.random(CELLS**2)}
    return ViewStatistics(rng.normal(size=CELLS**2), directions, rng.random(COMPONENTS) + 1, **numbers)


def test_distance_is_mahalanobis_with_the_covariance_of_probabilistic_components():
    known = random_statistics()
    x = np.random.default_rng(1).normal(size=(5, CELLS**2))
    outside = np.eye(CELLS**2) - known.components.T @ known.components
    covariance = known.components.T @ np.diag(known.variances) @ known.components + known.residual_variance * outside
    expected = [np.sqrt((y - known.mean) @ np.linalg.solve(covariance, y - known.mean)) for y in x]
    np.testing.assert_allclose(known.distance(x), expected)


def test_the_limit_of_levels_keeps_its_risk_for_one_more_patient_of_few():
    rng, n = np.random.default_rng(0), 10
    drawn = rng.normal(size=(200_000, n + 1))
    known = drawn[:, :n]
    off = np.abs(drawn[:, n] - known.mean(1)) / known.std(1, ddof=1)
    assert (off > _prediction_limit(n)).mean() == pytest.approx(LEVEL_RISK, rel=0.1)
    assert _prediction_limit(1e6) == pytest.approx(norm.ppf(1 - LEVEL_RISK / 2), rel=1e-4)


def test_cell_means_are_means_of_blocks():
    image = np.random.default_rng(0).random((2, 64, 64)).astype(np.float32)
    blocks = image.reshape(2, CELLS, 4, CELLS, 4).mean(axis=(2, 4)).reshape(2, -1)
    np.testing.assert_allclose(cell_means(image), blocks, rtol=1e-5)


def test_quantiles_of_whole_weights_are_those_of_repeated_values():
    rng = np.random.default_rng(0)
    values, times = rng.normal(size=40), rng.integers(1, 6, size=40)
    middle_of_every_share = (np.cumsum(times[np.argsort(values)]) - times[np.argsort(values)] / 2) / times.sum()
    found = weighted_quantiles(values, times.astype(float), middle_of_every_share)
    np.testing.assert_allclose(found, np.sort(values))
    np.testing.assert_allclose(np.quantile(np.repeat(values, times), middle_of_every_share, method="hazen"), found)


def test_quantiles_come_from_the_cells_that_are_shown_alone():
    known = random_statistics()
    levels = np.repeat(np.arange(CELLS**2)[:, None] // CELLS, len(KNOTS), axis=1).astype(float)  # by first axis
    graded = Reference(GEOMETRY, 3, dict.fromkeys(VIEWS, replace(known, cells=levels)))
    for cell in (0, 7, 15):
        shown = np.zeros((48, 48), dtype=bool)
        shown[3 * cell : 3 * cell + 3, 5:40] = True
        assert (graded.quantiles("lateral", shown) == cell).all()


def test_quantiles_of_the_whole_view_are_those_of_all_pixels_of_patients():
    still = patients(3)
    still.deformation = RandomDeformation(0, 0, 0, (0, 0, 0), 0.5)  # none at all would leave no variance
    still.contrast = RandomContrast(0, 0, 0, 0, 0)
    bodies = [source(0) for source in still.patients.sources]
    images = PROJECTOR(hu_to_mu(still.draw(bodies, [torch.Generator()] * 3))).numpy()
    made = make_reference(still, PROJECTOR, GEOMETRY, 16)
    for number, view in enumerate(VIEWS):
        expected = np.quantile(images[:, number][images[:, number] > BODY], PROBABILITIES)
        np.testing.assert_allclose(made.quantiles(view, EVERYWHERE), expected, atol=0.05 * expected.max())


@pytest.mark.parametrize(("half", "error"), [(24, 0.12), (16, 0.18), (10, 0.2)])
def test_an_adapted_film_is_close_to_the_line_integrals_whatever_part_it_shows(reference, unseen, half, error):
    covered = np.zeros((48, 48), dtype=bool)
    covered[24 - half : 24 + half, 24 - half : 24 + half] = True
    errors = []
    for images in unseen:
        for view, image in zip(VIEWS, images, strict=True):
            adapted = reference.adapted(view, 40 * np.sqrt(image) + 3, covered)
            errors.append(np.abs(adapted - image)[covered].mean() / image.max())
            assert (adapted[image == 0] == 0).all() and adapted.dtype == np.float32
    assert np.mean(errors) < error


def test_an_adapted_film_keeps_the_order_of_its_pixels(reference, unseen):
    for view, image in zip(VIEWS, unseen[0], strict=True):
        adapted = reference.adapted(view, image, EVERYWHERE)
        body = adapted > 0
        assert (np.diff(adapted[body][np.argsort(image[body])]) >= 0).all()


def test_unseen_patients_of_the_same_kind_are_familiar(reference, unseen):
    for images in unseen:
        assert reference.warnings(images) == []


STRANGE = {
    "inverted": lambda x: x.max() - x,
    "normalised": lambda x: x / x.max(),
    "standardised": lambda x: (x - x.mean()) / x.std(),
    "noise": lambda x: np.random.default_rng(0).random(x.shape).astype(np.float32) * x.max(),
    "nothing": np.zeros_like,
    "half the attenuation": lambda x: x / 2,
}


@pytest.mark.parametrize("damage", STRANGE.values(), ids=STRANGE)
def test_what_no_patient_looks_like_is_warned_of(reference, unseen, damage):
    for images in unseen:
        images = damage(images)
        assert reference.warnings(images)


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_that_is_not_there_is_not_warned_of(reference, unseen, view):
    for images in unseen:
        alone = images * np.array([[[name == view]] for name in VIEWS])
        assert reference.warnings(alone, [view]) == []
        assert all(f"{view} view: " in warning for warning in reference.warnings(alone / 5, [view]))


def test_exchanged_views_are_warned_of(reference, unseen):
    for images in unseen:
        assert "exchanged" in reference.warnings(images[::-1].copy())[-1]


def test_a_wrong_scale_is_named_with_its_number(reference, unseen):
    warning = reference.warnings(unseen[0] / 5)[0]
    level = np.quantile(unseen[0][0] / 5, 0.98)
    assert f"frontal view: the thickest parts attenuate {level:.2f}" in warning and "check the scale" in warning


def test_images_of_another_shape_are_refused(reference):
    with pytest.raises(ValueError, match=r"made for images \(2, 48, 48\), got \(2, 64, 64\)"):
        reference.warnings(np.ones((2, 64, 64), dtype=np.float32))


def test_a_patient_with_no_weight_is_never_drawn():
    dataset = patients(4, weights=[1.0, 2.0, 1.0, 0.0])
    dataset.patients.sources[3] = None
    assert make_reference(dataset, PROJECTOR, GEOMETRY, 16).patients == 3


@pytest.mark.parametrize(("count", "views"), [(2, 100), (4, 5)])
def test_too_few_patients_or_views_are_refused(count, views):
    with refused(ValueError, f"{count} patients", f"{views} views", "--views_per_patient"):
        make_reference(patients(count), PROJECTOR, GEOMETRY, views)


# ---------------------------------------------------------------------------------------------------------------------
# The file
# ---------------------------------------------------------------------------------------------------------------------


def test_what_is_written_is_read_back(reference, unseen, tmp_path):
    reference.write(tmp_path / "r.json")
    again = read_reference(tmp_path / "r.json", GEOMETRY)
    assert again.geometry == GEOMETRY and again.patients == 8
    for view in VIEWS:
        np.testing.assert_allclose(
            again.quantiles(view, EVERYWHERE), reference.quantiles(view, EVERYWHERE), rtol=1e-3, atol=1e-6
        )
        means = cell_means(unseen[0][VIEWS.index(view)])
        ratios = [known.views[view].distance(means) / known.views[view].distance_limit for known in (again, reference)]
        assert ratios[0] == pytest.approx(ratios[1], rel=5e-3)


def test_a_parallel_beam_survives_the_file(tmp_path):
    parallel = preset("parallel", (32, 32, 32), 10.0, 48)
    Reference(parallel, 3, dict.fromkeys(VIEWS, random_statistics())).write(tmp_path / "r.json")
    assert read_reference(tmp_path / "r.json").geometry == parallel


def cut(record):
    del record["views"]["lateral"]["mean"][3:]


def fall(record):
    record["views"]["frontal"]["cells"][5].reverse()


def infinite(record):
    record["views"]["frontal"]["mean"][0] = float("nan")


def vacant(record):
    record["views"]["lateral"]["occupied"] = [0.0] * CELLS**2


def negative(record):
    record["views"]["lateral"]["variances"][2] = -1.0


DAMAGE = {
    "a field is missing": lambda r: r["views"]["frontal"].pop("components"),
    "a field too many": lambda r: r["views"]["frontal"].update(extra=1.0),
    "a view is missing": lambda r: r["views"].pop("lateral"),
    "no geometry": lambda r: r.pop("geometry"),
    "an impossible geometry": lambda r: r["geometry"].update(source_to_isocentre_mm=-1),
    "a word for a number": lambda r: r["views"]["frontal"].update(level_std="wide"),
    "a list for a number": lambda r: r["views"]["frontal"].update(level_std=[1.0, 2.0]),
    "text for a view": lambda r: r["views"].update(frontal="?"),
    "too short": cut,
    "falling": fall,
    "not a number": infinite,
    "negative": negative,
    "no cell occupied": vacant,
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_file_is_refused_by_name_with_the_remedy(tmp_path, damage):
    path = tmp_path / "r.json"
    Reference(GEOMETRY, 3, {view: random_statistics() for view in VIEWS}).write(path)
    record = json.loads(path.read_text())
    damage(record)
    path.write_text(json.dumps(record))
    with refused(ValueError, "r.json", "damaged", "reference.json"):
        read_reference(path)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\x80\x02}q"])
def test_a_file_that_is_no_object_is_refused(tmp_path, content):
    (tmp_path / "r.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"r\.json: damaged"):
        read_reference(tmp_path / "r.json")


def test_a_missing_file_and_one_for_another_network_are_refused(tmp_path):
    with refused(ValueError, "absent.json", "statistics", "reference.json"):
        read_reference(tmp_path / "absent.json")
    Reference(GEOMETRY, 3, dict.fromkeys(VIEWS, random_statistics())).write(tmp_path / "r.json")
    with refused(ValueError, "BiplanarGeometry", "785", "541"):
        read_reference(tmp_path / "r.json", preset("x2ct", (32, 32, 32), 10.0, 48))
