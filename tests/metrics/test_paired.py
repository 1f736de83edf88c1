"""Paired differences: what all cases share drops out, and the interval covers the truth about as often as it says."""

import math

import numpy as np
import pytest

from scripts.metrics.paired import paired_difference


def test_a_constant_difference_is_certain_however_much_the_cases_vary() -> None:
    theirs = [10.0, 20.0, 35.0, 12.0]
    difference = paired_difference([x + 0.5 for x in theirs], theirs)
    assert difference == pytest.approx((0.5, 0.5, 0.5, 4))


def test_exchanging_the_methods_changes_the_sign() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 12)).tolist()
    one, other = paired_difference(a, b), paired_difference(b, a)
    assert one.mean == pytest.approx(-other.mean)
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low), abs=0.05)
    assert one.low < one.mean < one.high


def test_the_interval_covers_the_true_difference_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(200):
        d = paired_difference(rng.normal(0.3, 1.0, 30).tolist(), [0.0] * 30, resamples=300)
        hits += d.low <= 0.3 <= d.high
    assert 0.87 <= hits / 200 <= 0.99


def test_the_same_seed_gives_the_same_interval() -> None:
    values = np.random.default_rng(2).normal(size=6).tolist()
    assert paired_difference(values, [0.0] * 6) == paired_difference(values, [0.0] * 6)


def test_missing_values_leave_their_case_out_and_one_case_has_no_interval() -> None:
    assert paired_difference([1.0, math.nan, 3.0], [0.0, 0.0, math.nan])[0::3] == (1.0, 1)
    assert math.isnan(paired_difference([1.0], [0.0]).low)
    assert math.isnan(paired_difference([], []).mean)


def test_different_cases_are_refused() -> None:
    with pytest.raises(ValueError, match="2 and 1 values; .*same cases"):
        paired_difference([1.0, 2.0], [1.0])
