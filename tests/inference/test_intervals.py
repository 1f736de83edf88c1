"""Intervals from quantiles of error / scale: nominal coverage where the assumptions hold, shortest ends, and files."""

import json
from dataclasses import replace

import numpy as np
import pytest
from tests.refusal import refused

from scripts.inference.intervals import (
    HU_EDGES,
    LEVELS,
    PART,
    PROBABILITIES,
    SCALE_BINS,
    TISSUE_EDGES,
    Intervals,
    fit_intervals,
    read_intervals,
)

SHOWN = (0.5, 0.8, 0.9, 0.95)


def voxels(seed, count=60_000, factor=1.0, shift=0.0):
    """Laplace errors of the stated scale, times a factor and shifted, in voxels of all tissues."""
    random = np.random.default_rng(seed)
    hu = random.uniform(-1000, 600, count)
    scale = random.uniform(5, 100, count)
    return hu, scale, hu + scale * (factor * random.laplace(size=count) + shift)


def fitted(*cases):
    return fit_intervals(*zip(*cases, strict=True), valid_for={"weights_sha256": "0"})


def shares(intervals, hu, scale, truth):
    return [
        np.mean((low <= truth) & (truth <= high)) for low, high in (intervals.of(hu, scale).bounds(p) for p in SHOWN)
    ]


@pytest.mark.parametrize("factor, shift", [(1.0, 0.0), (6.0, 0.0), (0.2, 1.5)])
def test_wrong_scales_are_corrected(factor, shift):
    intervals = fitted(voxels(0, factor=factor, shift=shift), voxels(1, factor=factor, shift=shift))
    np.testing.assert_allclose(shares(intervals, *voxels(2, factor=factor, shift=shift)), SHOWN, atol=0.01)


@pytest.mark.parametrize("factor", [0.2, 1.0, 6.0])
def test_the_standard_deviation_holds_68_percent_of_the_errors_and_keeps_the_order_of_the_scales(factor):
    hu, scale, truth = voxels(1, factor=factor)
    std = fitted(voxels(0, factor=factor)).of(hu, scale).std
    assert np.mean(np.abs(truth - hu) <= std) == pytest.approx(0.683, abs=0.01)
    assert (np.argsort(std) == np.argsort(scale)).all()


def test_each_group_has_its_own_quantiles():
    """Errors of bone twice as large as stated, elsewhere as stated: every group is covered, not only their mean."""
    cases = []
    for seed in range(3):
        hu, scale, truth = voxels(seed)
        cases.append((hu, scale, np.where(hu >= HU_EDGES[-1], 2 * truth - hu, truth)))
    *known, (hu, scale, truth) = cases
    intervals = fitted(*known)
    for chosen in (hu >= HU_EDGES[-1], hu < HU_EDGES[0], scale > 80):
        found = shares(intervals, hu[chosen], scale[chosen], truth[chosen])
        assert all(share > PART * level - 0.015 for share, level in zip(found, SHOWN, strict=True))


def hidden_bone(seed):
    """Voxels that look like soft tissue, of which one in twenty is bone."""
    random = np.random.default_rng(seed)
    hu, scale = random.uniform(0, 100, 60_000), random.uniform(45, 55, 60_000)
    bone = random.uniform(size=hu.size) < 0.05
    return hu, scale, hu + np.where(bone, random.uniform(250, 500, hu.size), scale * random.laplace(size=hu.size))


@pytest.mark.parametrize("level", [0.9, 0.95])
def test_bone_that_looks_like_soft_tissue_is_held_although_central_intervals_miss_most_of_it(level):
    hu, scale, truth = hidden_bone(1)
    bone, intervals = truth >= TISSUE_EDGES[-1], fitted(hidden_bone(0))

    def held(low, high):
        return (low <= truth) & (truth <= high)

    inside = held(*intervals.of(hu, scale).bounds(level))
    assert inside.mean() > level - 0.01 and inside[bone].mean() > PART * level - 0.05
    central = held(*(intervals.of(hu, scale).quantile(p) for p in ((1 - level) / 2, (1 + level) / 2)))
    assert central[bone].mean() < 0.75


def test_levels_are_those_that_hold_their_share_of_a_case_left_out():
    """Laplace errors of sizes 1 and 3: intervals of level l of one case hold 1 - (1 - l)^3 or ^(1/3) of the other."""

    def case(seed, size):
        random = np.random.default_rng(seed)
        hu, scale = np.full(100_000, 50.0), np.full(100_000, 10.0)
        return hu, scale, hu + size * scale * random.laplace(size=hu.size)

    ends = fitted(case(0, 1), case(1, 3)).ends[:, np.digitize(50, HU_EDGES), -1]
    levels = np.array(LEVELS)
    held = (2 - (1 - levels) ** 3 - (1 - levels) ** (1 / 3)) / 2
    np.testing.assert_allclose((ends[:, 1] - ends[:, 0])[:-1], np.interp(levels, held, levels)[:-1], atol=0.03)


def test_of_all_intervals_the_shortest_is_chosen():
    """Of an exponential error, the shortest interval of level l runs from 0 to -log(1 - l) scales."""
    random = np.random.default_rng(0)
    hu, scale = np.full(100_000, 50.0), np.full(100_000, 10.0)
    intervals = fitted((hu, scale, hu + scale * random.exponential(size=hu.size)))
    for level in SHOWN:
        low, high = (end[0] for end in intervals.of(hu[:1], scale[:1]).bounds(level))
        assert low == pytest.approx(50, abs=0.3)
        assert high == pytest.approx(50 - 10 * np.log(1 - level), rel=0.03)


def test_sure_voxels_are_held_more_often_than_uncertain_ones_but_those_not_too_rarely():
    hu, scale, truth = voxels(1)
    low, high = fitted(voxels(0)).of(hu, scale).bounds(0.8)
    inside = (low <= truth) & (truth <= high)
    uncertain = scale > np.quantile(scale, 0.75)
    assert inside[~uncertain].mean() > inside[uncertain].mean() > 0.8 * PART - 0.02


def test_quantiles_match_the_laplace_distribution():
    intervals, b = fitted(voxels(0, 1_000_000)), np.full(1, 50.0)
    for p in (0.1, 0.5, 0.9):
        exact = -np.sign(p - 0.5) * 50 * np.log(1 - 2 * abs(p - 0.5))
        assert intervals.of(np.full(1, -950.0), b).quantile(p)[0] + 950 == pytest.approx(exact, abs=4)


def test_intervals_are_nested():
    intervals = fitted(voxels(0))
    hu, scale, _ = voxels(1, 1000)
    bounds = [intervals.of(hu, scale).bounds(level) for level in LEVELS]
    ends = [low for low, _ in reversed(bounds)] + [high for _, high in bounds]
    assert all((low <= high + 1e-9).all() for low, high in zip(ends, ends[1:], strict=False))


def test_small_groups_use_the_quantiles_of_all():
    hu, scale, truth = voxels(0)
    soft = (hu > 0) & (hu < 100)
    intervals = fitted((hu[soft], scale[soft], truth[soft]))
    np.testing.assert_allclose(shares(intervals, *voxels(1)), SHOWN, atol=0.04)


def test_file_gives_the_same_bounds(tmp_path):
    intervals = fitted(voxels(0))
    intervals.write(tmp_path / "intervals.json")
    again = read_intervals(tmp_path / "intervals.json")
    hu, scale, _ = voxels(1, 1000)
    assert again.valid_for == {"weights_sha256": "0"}
    np.testing.assert_allclose(again.of(hu, scale).bounds(0.9), intervals.of(hu, scale).bounds(0.9), atol=0.1)


def test_wrong_input_is_refused(tmp_path):
    with refused(ValueError, "500 voxels", "got 3"):
        fitted(voxels(0, 3))
    with refused(ValueError, "0.9999", "0.995"):
        fitted(voxels(0)).of(np.zeros(1), np.ones(1)).quantile(0.9999)
    with refused(ValueError, "0.995", "0.05", "0.99"):
        fitted(voxels(0)).of(np.zeros(1), np.ones(1)).bounds(0.995)
    path = tmp_path / "intervals.json"
    for text, fragments in [
        ("{", ["not JSON"]),
        ("{}", ["scale_edges", "intervals.json"]),
        (
            json.dumps({"valid_for": {}, "std_ratio": 1, "scale_edges": [[1]], "quantiles": [[[1]]], "ends": [[1]]}),
            ["(1, 1)", "shapes"],
        ),
    ]:
        path.write_text(text)
        with refused(ValueError, str(path), *fragments):
            read_intervals(path)
    shape = len(HU_EDGES) + 1, SCALE_BINS
    broken = Intervals(
        np.zeros((shape[0], SCALE_BINS - 1)),
        np.full((*shape, len(PROBABILITIES)), np.inf),
        np.zeros((len(LEVELS), *shape, 2)),
        1.0,
        {},
    )
    broken.write(path)
    with refused(ValueError, str(path)):
        read_intervals(path)
    replace(broken, quantiles=np.zeros((*shape, len(PROBABILITIES))), std_ratio=-1.0).write(path)
    with refused(ValueError, str(path), "std_ratio", "-1"):
        read_intervals(path)
