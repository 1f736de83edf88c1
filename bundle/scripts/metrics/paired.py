"""Paired comparison of two methods on the same cases: mean difference and confidence interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import bootstrap


class Difference(NamedTuple):
    """Mean difference over ``n`` cases and its confidence interval [low, high]; NaN if there are too few cases."""

    mean: float
    low: float
    high: float
    n: int


def paired_difference(
    ours: Sequence[float], theirs: Sequence[float], level: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> Difference:
    """Return the mean of ``ours - theirs`` with a percentile bootstrap interval over the cases.

    The difference is taken case by case, so the difficulty of a case that both methods share cancels. Cases where
    either value is NaN are left out. With few cases the interval is too narrow (all draws from n cases are the same
    case with probability n^(1 - n)). It says nothing about patients of another kind.

    Args:
        ours: one value per case.
        theirs: the other method's values, in the same order.
        level: confidence level.
        resamples: number of bootstrap resamples.
        seed: seed of the resampling.

    Raises:
        ValueError: the lists differ in length.
    """
    if len(ours) != len(theirs):
        raise ValueError(
            f"paired difference: {len(ours)} and {len(theirs)} values; both methods must be measured on the same cases"
        )
    differences = np.asarray(ours, dtype=float) - np.asarray(theirs, dtype=float)
    differences = differences[np.isfinite(differences)]
    n = len(differences)
    if n < 2:
        return Difference(float(differences[0]) if n else math.nan, math.nan, math.nan, n)
    interval = bootstrap(
        (differences,),
        np.mean,
        confidence_level=level,
        n_resamples=resamples,
        method="percentile",
        random_state=np.random.default_rng(seed),
    ).confidence_interval
    return Difference(float(differences.mean()), float(interval.low), float(interval.high), n)
