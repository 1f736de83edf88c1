"""Intervals from quantiles of error / scale: nominal coverage where the assumptions hold, and files."""

import json

import numpy as np
import pytest
from tests.refusal import refused

from scripts.inference.intervals import HU_EDGES, PROBABILITIES, SCALE_BINS, Intervals, fit_intervals, read_intervals

LEVELS = (0.5, 0.8, 0.9, 0.95)


def voxels(seed, count=60_000, factor=1.0, shift=0.0):
    """Laplace errors of the stated scale, times a factor and shifted, in voxels of all tissues."""
    random = np.random.default_rng(seed)
    hu = random.uniform(-1000, 600, count)
    scale = random.uniform(5, 100, count)
    return hu, scale, hu + scale * (factor * random.laplace(size=count) + shift)


def fitted(*cases):
    return fit_intervals(*zip(*cases, strict=True), valid_for={"weights_sha256": "0"})


def shares(intervals, hu, scale, truth):
    return [np.mean((low <= truth) & (truth <= high)) for low, high in (intervals.bounds(hu, scale, p) for p in LEVELS)]


@pytest.mark.parametrize("factor, shift", [(1.0, 0.0), (6.0, 0.0), (0.2, 1.5)])
def test_wrong_scales_are_corrected(factor, shift):
    intervals = fitted(voxels(0, factor=factor, shift=shift), voxels(1, factor=factor, shift=shift))
    np.testing.assert_allclose(shares(intervals, *voxels(2, factor=factor, shift=shift)), LEVELS, atol=0.01)


def test_each_group_has_its_own_quantiles():
    """Errors of bone twice as large as stated, elsewhere as stated: every group is covered, not only their mean."""
    cases = []
    for seed in range(3):
        hu, scale, truth = voxels(seed)
        cases.append((hu, scale, np.where(hu >= HU_EDGES[-1], 2 * truth - hu, truth)))
    *known, (hu, scale, truth) = cases
    for chosen in (hu >= HU_EDGES[-1], hu < HU_EDGES[0], scale > 80):
        found = shares(fitted(*known), hu[chosen], scale[chosen], truth[chosen])
        np.testing.assert_allclose(found, LEVELS, atol=0.02)


def test_quantiles_match_the_laplace_distribution():
    intervals, b = fitted(voxels(0, 1_000_000)), np.full(1, 50.0)
    for p in (0.1, 0.5, 0.9):
        exact = -np.sign(p - 0.5) * 50 * np.log(1 - 2 * abs(p - 0.5))
        assert intervals.quantile(np.full(1, -950.0), b, p)[0] + 950 == pytest.approx(exact, abs=4)


def test_intervals_are_nested():
    intervals = fitted(voxels(0))
    hu, scale, _ = voxels(1, 1000)
    ends = [intervals.quantile(hu, scale, p) for p in PROBABILITIES[::20]]
    assert all((low <= high).all() for low, high in zip(ends, ends[1:], strict=False))


def test_small_groups_use_the_quantiles_of_all():
    hu, scale, truth = voxels(0)
    soft = (hu > 0) & (hu < 100)
    intervals = fitted((hu[soft], scale[soft], truth[soft]))
    np.testing.assert_allclose(shares(intervals, *voxels(1)), LEVELS, atol=0.04)


def test_file_gives_the_same_bounds(tmp_path):
    intervals = fitted(voxels(0))
    intervals.write(tmp_path / "intervals.json")
    again = read_intervals(tmp_path / "intervals.json")
    hu, scale, _ = voxels(1, 1000)
    assert again.valid_for == {"weights_sha256": "0"}
    np.testing.assert_allclose(again.bounds(hu, scale, 0.9), intervals.bounds(hu, scale, 0.9), atol=0.1)


def test_wrong_input_is_refused(tmp_path):
    with refused(ValueError, "500 voxels", "got 3"):
        fitted(voxels(0, 3))
    with refused(ValueError, "0.9999", "0.995"):
        fitted(voxels(0)).quantile(np.zeros(1), np.ones(1), 0.9999)
    path = tmp_path / "intervals.json"
    for text, fragments in [
        ("{", ["not JSON"]),
        ("{}", ["scale_edges", "intervals.json"]),
        (json.dumps({"valid_for": {}, "scale_edges": [[1]], "quantiles": [[[1]]]}), ["(1, 1)", "shapes"]),
    ]:
        path.write_text(text)
        with refused(ValueError, str(path), *fragments):
            read_intervals(path)
    shape = len(HU_EDGES) + 1, SCALE_BINS
    broken = Intervals(np.zeros((shape[0], SCALE_BINS - 1)), np.full((*shape, len(PROBABILITIES)), np.inf), {})
    broken.write(path)
    with refused(ValueError, str(path)):
        read_intervals(path)
