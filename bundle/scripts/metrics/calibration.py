"""Calibration: whether the spread of several samples predicts the error of their mean.

All values are in HU. ``samples`` are ``[K, N]``, K reconstructions of N voxels, and ``truth`` is ``[N]``. *Gaussian*
means that the truth is assumed to be normal around the samples' mean, with the samples' standard deviation times a
*temperature*: one factor for all voxels, 1 to leave the samples unchanged.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import torch
from scipy.stats import spearmanr
from torch import Tensor

from scripts.metrics.volume import TISSUES_HU, tissue_masks

LEVELS = (0.5, 0.8, 0.9, 0.95)
"""Nominal coverages of the central intervals that are measured."""
CURVE_LEVELS = (*(i / 20 for i in range(1, 20)), 0.99)
"""Nominal coverages of a reliability diagram."""
SHOWN_LEVEL = 0.9
"""Level at which the width of the interval and the coverage by tissue are measured."""
MIN_STD_HU = 1.0
"""Smallest standard deviation used in densities, since CT numbers are integers."""
NOTES = (
    "*body*: the voxels of the patient in the true CT, with everything inside the skin; *everywhere* adds the air "
    "around, which is easy.",
    "`coverage_50` to `coverage_95`: share of voxels with the truth in the central Gaussian interval of that level, "
    "mean ± z · temperature · standard deviation; `calibration_error`: mean absolute difference between these shares "
    "and their levels.",
    "`samples_coverage_50` to `_95`: the same for the intervals between order statistics of the samples, which assume "
    "no Gaussian, stretched around the mean by the temperature; empty above (K - 1)/(K + 1), which K samples cannot "
    "reach.",
    "`width_90_hu`: mean width of the 90 % interval (sharpness; the 50, 80 and 95 % ones are 0.41, 0.78 and 1.19 times "
    "as wide); `mae_hu`: mean absolute error of the samples' mean.",
    "`crps_hu`, `nll`: continuous ranked probability score, and negative log likelihood in nats per voxel (density per "
    f"HU), of the Gaussian with a standard deviation of at least {MIN_STD_HU:g} HU; smaller is better.",
    "`rank_correlation`: Spearman's, of absolute error and standard deviation: 1 if the spread orders the errors "
    "perfectly, 0 if it says nothing about them. No temperature changes it.",
    "`own_temperature`: the further factor on the standard deviation that would make this case's mean coverage "
    "nominal; 1 is calibrated.",
    "By tissue, chosen by the true HU: "
    + "; ".join(f"{name} [{low:g}, {high:g})" for name, (low, high) in TISSUES_HU.items())
    + ". Nominal coverage can be expected only for all voxels together, or for voxels selected by the reconstruction: "
    "selecting by the truth favours voxels with errors in its direction.",
)
"""Explanations of the columns, for readers of a table."""


class Spread(NamedTuple):
    """Error of the samples' mean in every voxel, truth minus mean, and their standard deviation, both ``[N]``."""

    error: Tensor
    std: Tensor

    def tempered(self, temperature: float) -> Spread:
        """Return the same errors with ``temperature`` times the standard deviation."""
        return Spread(self.error, temperature * self.std)


def spread_of(samples: Tensor, truth: Tensor) -> Spread:
    """Return the error of the samples' mean and their sample standard deviation (over K - 1).

    Raises:
        ValueError: there are fewer than two samples, or samples and truth differ in their number of voxels.
    """
    if samples.ndim != 2 or len(samples) < 2 or samples.shape[1:] != truth.shape:
        raise ValueError(
            f"samples must be [K, N] with K >= 2 and truth [N], got {list(samples.shape)} and {list(truth.shape)}; "
            "reconstruct with --samples 2 or more"
        )
    return Spread(truth - samples.mean(0), samples.std(0))


def half_width(level: float) -> float:
    """Return half the width of the central interval of a standard normal at ``level``: 1.96 for 0.95."""
    return NormalDist().inv_cdf((1 + level) / 2)


def coverage(spread: Spread, levels: Sequence[float] = LEVELS) -> list[float]:
    """Return the share of voxels in the central Gaussian interval of each level, ends included."""
    distance = spread.error.abs()
    return [float((distance <= half_width(level) * spread.std).double().mean()) for level in levels]


def samples_interval(samples: Tensor, level: float) -> tuple[Tensor, Tensor] | None:
    """Return the central interval ``[N]``, ``[N]`` between order statistics; None if K samples cannot reach the level.

    It lies between the r-th smallest and the r-th largest sample, r = (K + 1)(1 - level)/2. A truth that is
    exchangeable with the samples is in it with probability ``level``, exactly if r is whole (19 samples: 50, 80 and
    90 %; 39 also 95 %), and interpolated between neighbours if not.
    """
    rank = round((len(samples) + 1) * (1 - level) / 2, 9)  # 0.9999999999999998 is 1
    if rank < 1:
        return None
    ordered, below, part = samples.sort(dim=0).values, int(rank), rank - int(rank)
    low, high = (torch.lerp(o[below - 1], o[min(below, len(o) - 1)], part) for o in (ordered, ordered.flip(0)))
    return low, high


def samples_coverage(
    samples: Tensor, truth: Tensor, temperature: float = 1.0, levels: Sequence[float] = LEVELS
) -> list[float]:
    """Return the share of voxels in :func:`samples_interval` of each level, stretched around the mean, or NaN."""
    mean, shares = samples.mean(0), []
    for level in levels:
        interval = samples_interval(samples, level)
        if interval is None:
            shares.append(math.nan)
            continue
        low, high = (mean + temperature * (end - mean) for end in interval)
        shares.append(float(((low <= truth) & (truth <= high)).double().mean()))
    return shares


def calibration_error(shares: Sequence[float], levels: Sequence[float] = LEVELS) -> float:
    """Return the mean absolute difference between covered shares and levels."""
    return sum(abs(share - level) for share, level in zip(shares, levels, strict=True)) / len(levels)


def fit_temperature(spreads: Sequence[Spread], levels: Sequence[float] = LEVELS) -> float:
    """Return the temperature at which the mean coverage over all voxels and ``levels`` equals the mean level.

    A voxel enters the interval of a level at the temperature |error| / (z std), so the answer is a quantile of these
    numbers, pooled over levels: exact and unique. The maximum-likelihood temperature, the root mean square of
    error / std, is the same if the model holds. It is not used because errors are heavy-tailed and the standard
    deviation of a few samples can be small by chance: the worst voxels would dominate it and widen all other intervals.

    Returns:
        A positive number; 0 or infinity if no temperature fits, because too many voxels have no error, or an error but
        no spread.
    """
    ratios = torch.cat([(spread.error.abs() / spread.std).nan_to_num(0.0, posinf=math.inf) for spread in spreads])
    thresholds = torch.cat([ratios / half_width(level) for level in levels]).sort().values
    return float(thresholds[math.ceil(sum(levels) / len(levels) * len(thresholds)) - 1])


def gaussian_nll(spread: Spread) -> float:
    """Return the mean of -log N(truth; mean, std²) in nats, std at least ``MIN_STD_HU``."""
    std = spread.std.double().clamp(min=MIN_STD_HU)
    return float((0.5 * (spread.error / std) ** 2 + std.log()).mean() + 0.5 * math.log(2 * math.pi))


def gaussian_crps(spread: Spread) -> float:
    """Return the mean CRPS in HU of N(mean, std²), std at least ``MIN_STD_HU``.

    Closed form: Gneiting & Raftery 2007, doi:10.1198/016214506000001437, eq (21).
    """
    std = spread.std.double().clamp(min=MIN_STD_HU)
    z = spread.error / std
    density = torch.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)
    # z (2Φ(z) - 1) = z erf(z/√2)
    return float((std * (z * torch.erf(z / math.sqrt(2)) + 2 * density - 1 / math.sqrt(math.pi))).mean())


def rank_correlation(spread: Spread) -> float:
    """Return Spearman's correlation of absolute error and standard deviation; NaN if either is constant."""
    if spread.std.min() == spread.std.max() or spread.error.abs().min() == spread.error.abs().max():
        return math.nan
    return float(spearmanr(spread.error.abs().numpy(), spread.std.numpy()).statistic)


def measure_calibration(samples: Tensor, truth: Tensor, temperature: float = 1.0) -> dict[str, float]:
    """Return all measurements of one case's voxels by column name; NaN where the case has no value.

    Args:
        samples: ``[K, N]`` on the CPU.
        truth: ``[N]``.
        temperature: factor on the standard deviation.

    Raises:
        ValueError: as for :func:`spread_of`.
    """
    spread = spread_of(samples, truth).tempered(temperature)
    shares, percent = coverage(spread), [f"{level:.0%}".rstrip("%") for level in LEVELS]
    row = {f"coverage_{p}": share for p, share in zip(percent, shares, strict=True)}
    row["calibration_error"] = calibration_error(shares)
    counted = samples_coverage(samples, truth, temperature)
    row |= {f"samples_coverage_{p}": share for p, share in zip(percent, counted, strict=True)}
    row |= {
        "width_90_hu": 2 * half_width(SHOWN_LEVEL) * float(spread.std.mean()),
        "mae_hu": float(spread.error.abs().mean()),
        "crps_hu": gaussian_crps(spread),
        "nll": gaussian_nll(spread),
        "rank_correlation": rank_correlation(spread),
        "own_temperature": fit_temperature([spread]),
    }
    return row | _by_tissue(spread, truth)


def _by_tissue(spread: Spread, truth: Tensor) -> dict[str, float]:
    row = {}
    for tissue, mask in tissue_masks(truth).items():
        part = Spread(spread.error[mask], spread.std[mask])
        row[f"coverage_90_{tissue}"] = coverage(part, [SHOWN_LEVEL])[0]
        row[f"width_90_{tissue}_hu"] = 2 * half_width(SHOWN_LEVEL) * float(part.std.mean())
    return row
