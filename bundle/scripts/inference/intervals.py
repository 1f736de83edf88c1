"""Intervals for every voxel: quantiles of the error, in units of its predicted scale, by group of voxels.

A predicted scale orders errors but need not have the right size, and errors have a sign: bone that was missed is
always too faint. Quantiles of error / scale are therefore taken from reconstructions of patients that were not trained
on, separately for groups of voxels that are formed by the prediction alone (locally weighted and Mondrian conformal
prediction; Lei et al. 2018, doi:10.1080/01621459.2017.1307116; Vovk et al. 2005).

Intervals between the same two quantiles in every group would leave out most of the bone, which is only a small part of
the voxels that look like soft tissue. Each group therefore has quantiles of its own as ends: the intervals are as short
as possible on average, but hold their share of all voxels, and nearly as much of each tissue and of each group.

Voxels of one patient are not exchangeable with those of another, so coverage is approximate; a study measures it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.interpolate import make_interp_spline
from scipy.optimize import linprog
from scipy.sparse import csr_array

from scripts.io.text import read_json, strict_json, write_text

HU_EDGES = (-900.0, -500.0, 0.0, 100.0, 200.0)
"""Predicted HU between air, lung, fat, soft tissue, suspected bone and bone."""
SCALE_BINS = 4
"""Groups of equal size by predicted scale, for each of those ranges."""
PROBABILITIES = tuple(round(p, 4) for p in np.linspace(0.005, 0.995, 199))
LEVELS = (*(round(p, 2) for p in np.linspace(0.05, 0.95, 19)), 0.99)
"""Levels whose ends are fitted; ends between them are interpolated."""
FEWEST = 500
"""Voxels in a group; smaller groups use the quantiles of their tissue, or of all voxels, and central intervals."""
TISSUE_EDGES = (-500.0, 200.0)
"""True HU between lung (and air), soft tissue and bone."""
PART = 0.95
"""Intervals of level l hold l of all voxels, and at least this part of l of each tissue and of each group."""
STANDARD_LEVEL = 0.682689
"""Share of the errors that are at most one standard deviation."""
_TABLES = "scale_edges", "quantiles", "ends"


def require_level(level: float) -> None:
    """Raise a ValueError if no intervals of this level are fitted."""
    if not LEVELS[0] <= level <= LEVELS[-1]:
        raise ValueError(
            f"--interval {level:g}: intervals are known from {LEVELS[0]:g} to {LEVELS[-1]:g}; ask for one of these"
        )


@dataclass(frozen=True, eq=False)
class Intervals:
    """Quantiles of error / scale, by group and of all voxels.

    Attributes:
        scale_edges: predicted scales in HU between the groups of each range of HU, ``[6, 3]``.
        quantiles: ``[6, 4, 199]``, at :data:`PROBABILITIES`.
        ends: probabilities of the lower and the upper end for each of :data:`LEVELS`, ``[20, 6, 4, 2]``.
        std_ratio: standard deviation / scale; it keeps the order of the scales, as the widths of the groups do not.
        valid_for: what made the reconstructions that they were fitted to.
    """

    scale_edges: np.ndarray
    quantiles: np.ndarray
    ends: np.ndarray
    std_ratio: float
    valid_for: Mapping[str, Any]

    def of(self, hu: np.ndarray, scale: np.ndarray) -> VoxelIntervals:
        """Return the intervals of voxels of any shape, by their predicted ``hu`` and ``scale`` in HU."""
        looks_like = np.digitize(hu, HU_EDGES)
        return VoxelIntervals(self, hu, scale, SCALE_BINS * looks_like + _bins(scale, looks_like, self.scale_edges))

    def write(self, path: Path) -> None:
        """Write a JSON file."""
        rounded = {name: np.round(getattr(self, name), 4).tolist() for name in _TABLES}
        facts = {"valid_for": dict(self.valid_for), "std_ratio": round(self.std_ratio, 4)}
        write_text(path, strict_json(facts | rounded) + "\n")


@dataclass(frozen=True, eq=False)
class VoxelIntervals:
    """Intervals of voxels, which are grouped once.

    Attributes:
        intervals: the fitted ones.
        hu, scale: prediction and its scale in HU.
        group: number of each voxel's group, 0 to 23.
    """

    intervals: Intervals
    hu: np.ndarray
    scale: np.ndarray
    group: np.ndarray

    @property
    def std(self) -> np.ndarray:
        """Standard deviation of the error in HU: 68 % of all errors are at most as large."""
        return self.intervals.std_ratio * self.scale

    def quantile(self, probability: float) -> np.ndarray:
        """Return the HU that the truth stays below with this probability.

        Raises:
            ValueError: the probability is outside the fitted range.
        """
        lowest, highest = PROBABILITIES[0], PROBABILITIES[-1]
        if not lowest <= probability <= highest:
            raise ValueError(
                f"probability {probability:g}: quantiles are known from {lowest:g} to {highest:g}; ask for an "
                f"interval of at most {highest - lowest:g}"
            )
        return self._at(np.full(self.intervals.quantiles.shape[:2], probability))

    def bounds(self, level: float) -> tuple[np.ndarray, np.ndarray]:
        """Return the ends of the interval of ``level``.

        Raises:
            ValueError: the level is outside the fitted range.
        """
        require_level(level)
        low, high = np.moveaxis(make_interp_spline(LEVELS, self.intervals.ends, k=1)(level), -1, 0)
        return self._at(low), self._at(high)

    def _at(self, probability: np.ndarray) -> np.ndarray:
        """Return the quantile at each group's ``probability [6, 4]``."""
        rows = self.intervals.quantiles.reshape(-1, len(PROBABILITIES))
        pairs = zip(probability.flat, rows, strict=True)
        ratio = np.array([np.interp(p, PROBABILITIES, row) for p, row in pairs])
        return self.hu + self.scale * ratio[self.group]


def read_intervals(path: str | Path) -> Intervals:
    """Read a file of :meth:`Intervals.write`.

    Raises:
        ValueError: the file is missing or not of that kind.
    """
    stated = read_json(Path(path))
    try:
        tables = [np.array(stated[name], dtype=np.float64) for name in _TABLES]
        std_ratio, valid_for = float(stated["std_ratio"]), dict(stated["valid_for"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not a file of error intervals ({error}); make one with intervals.json") from error
    ranges = len(HU_EDGES) + 1
    groups = ranges, SCALE_BINS
    expected = [(ranges, SCALE_BINS - 1), (*groups, len(PROBABILITIES)), (len(LEVELS), *groups, 2)]
    shapes = [table.shape for table in tables]
    finite = all(np.isfinite(table).all() for table in tables) and math.isfinite(std_ratio)
    if shapes != expected or not finite or std_ratio <= 0:
        raise ValueError(
            f"{path}: error intervals must be finite tables of shapes {expected} and a positive std_ratio, got "
            f"{shapes} and {std_ratio:g}; make the file again with intervals.json"
        )
    edges, quantiles, ends = tables
    return Intervals(edges, quantiles, ends, std_ratio, valid_for)


def fit_intervals(
    hu: Sequence[np.ndarray], scale: Sequence[np.ndarray], truth: Sequence[np.ndarray], valid_for: Mapping[str, Any]
) -> Intervals:
    """Fit quantiles and ends to voxels ``[N]`` of several cases: predicted HU, predicted scale in HU, and true HU.

    Intervals hold less of a new patient than of those to whom they were fitted. Each level therefore gets the ends of
    the level at which intervals fitted to the other cases hold its share of the case left out, on average.

    Raises:
        ValueError: there are too few voxels.
    """
    cases = list(zip(hu, scale, truth, strict=True))
    fitted = _fit(cases, valid_for)
    if len(cases) < 2:
        return fitted
    held = np.mean([_held(_fit(cases[:i] + cases[i + 1 :], valid_for), *cases[i]) for i in range(len(cases))], axis=0)
    adjusted = np.interp(LEVELS, np.maximum.accumulate(held), LEVELS)
    return replace(fitted, ends=make_interp_spline(LEVELS, fitted.ends, k=1)(adjusted))


def _held(intervals: Intervals, hu: np.ndarray, scale: np.ndarray, truth: np.ndarray) -> list[float]:
    """Return the share of voxels inside the interval of each of :data:`LEVELS`."""
    bounds = map(intervals.of(hu, scale).bounds, LEVELS)
    return [float(((low <= truth) & (truth <= high)).mean()) for low, high in bounds]


def _fit(cases: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]], valid_for: Mapping[str, Any]) -> Intervals:
    predicted, b, true = (np.concatenate(each) for each in zip(*cases, strict=True))
    ratio = (true - predicted) / b
    if len(ratio) < FEWEST:
        raise ValueError(f"intervals need at least {FEWEST} voxels to fit, got {len(ratio)}; give more cases")
    looks_like = np.digitize(predicted, HU_EDGES)
    ranges = range(len(HU_EDGES) + 1)
    shares = np.arange(1, SCALE_BINS) / SCALE_BINS
    edges = np.array([np.quantile(_enough(b, looks_like == i, b), shares) for i in ranges])
    group = SCALE_BINS * looks_like + _bins(b, looks_like, edges)
    of_range = [_enough(ratio, looks_like == i, ratio) for i in ranges]
    chosen = [_enough(ratio, group == j, of_range[j // SCALE_BINS]) for j in range(len(ranges) * SCALE_BINS)]
    quantiles = np.array([np.quantile(ratios, PROBABILITIES) for ratios in chosen])
    ends = _fit_ends(quantiles, group, ratio, b, np.digitize(true, TISSUE_EDGES))
    grid = len(ranges), SCALE_BINS
    std_ratio = float(np.quantile(np.abs(ratio), STANDARD_LEVEL))
    return Intervals(edges, quantiles.reshape(*grid, -1), ends.reshape(-1, *grid, 2), std_ratio, valid_for)


def _fit_ends(
    quantiles: np.ndarray, group: np.ndarray, ratio: np.ndarray, scale: np.ndarray, tissue: np.ndarray
) -> np.ndarray:
    """Return the probabilities ``[20, 24, 2]`` of the ends of :func:`_shortest` for every level, nested.

    Args:
        quantiles: of the ratio error / scale by group, ``[24, 199]``.
        group, ratio, scale, tissue: of every voxel, ``[N]``.
    """
    groups, tissues = range(len(quantiles)), np.unique(tissue)
    size = np.bincount(group, minlength=len(groups))
    lengths = np.bincount(group, scale, minlength=len(groups))[:, None] / len(group) * quantiles
    below = np.array(
        [
            [np.searchsorted(np.sort(ratio[(tissue == i) & (group == j)]), quantiles[j], side="right") for j in groups]
            for i in tissues
        ]
    )
    of_group = np.eye(len(groups))[size >= FEWEST, :, None] * below.sum(0)
    sets = np.concatenate([below.sum(0, keepdims=True), below, of_group])
    totals = [len(group), *np.bincount(tissue)[tissues], *size[size >= FEWEST]]
    held = sets / np.array(totals)[:, None, None]
    wanted = np.array([1.0] + [PART] * (len(sets) - 1))
    level = np.array(LEVELS)[:, None]
    ends = np.array([_shortest(lengths, held, each * wanted) for each in level])
    central = np.stack([(1 - level) / 2, (1 + level) / 2], axis=-1)
    ends = np.where(size[:, None] >= FEWEST, ends, central)
    return np.stack([np.minimum.accumulate(ends[..., 0]), np.maximum.accumulate(ends[..., 1])], axis=-1)


def _shortest(lengths: np.ndarray, held: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Choose both ends of every group so that the intervals are shortest, and enough is held of several sets of voxels.

    Both are linear in the weights that each group gives to its possible ends: a linear programme, whose solution has a
    single end in most groups and is averaged in the others.

    Args:
        lengths: position of every possible end times the group's share of the voxels, ``[G, P]``.
        held: share of each set that is in the group and below the end, ``[C, G, P]``.
        wanted: share of each set that must lie between the ends of its group, ``[C]``.

    Returns:
        Probabilities of the lower end, at most 0.5, and of the upper end, at least that, ``[G, 2]``.
    """
    groups, middle = len(lengths), lengths.shape[1] // 2
    lower, upper = np.s_[..., : middle + 1], np.s_[..., middle:]
    cost = np.stack([-lengths[lower], lengths[upper]])
    share = np.stack([-held[lower], held[upper]], axis=1)
    possible = (held[..., -1] - held[..., 0]).sum(-1)
    one_end = np.kron(np.eye(2 * groups), np.ones(middle + 1))
    solved = linprog(
        cost.ravel(),
        A_ub=-share.reshape(len(held), -1),
        b_ub=-np.minimum(wanted, possible),
        A_eq=csr_array(one_end),
        b_eq=np.ones(2 * groups),
    )
    if not solved.success:
        raise ValueError(f"intervals: no ends found ({solved.message}); give more cases to fit on")
    weights, p = solved.x.reshape(2, groups, -1), np.array(PROBABILITIES)
    return np.stack([weights[0] @ p[lower], weights[1] @ p[upper]], axis=-1)


def _enough(values: np.ndarray, chosen: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
    return values[chosen] if chosen.sum() >= FEWEST else otherwise


def _bins(scale: np.ndarray, looks_like: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Return the group of each voxel by its predicted scale, 0 to 3, within its range of predicted HU."""
    return (scale[..., None] >= edges[looks_like]).sum(-1)
