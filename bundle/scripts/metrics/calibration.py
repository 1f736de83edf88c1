"""Does the spread of several samples say how far their mean is from the truth: calibration of a reconstruction.

All values are in HU. ``samples`` are ``[K, N]``, K reconstructions of N voxels, and ``truth`` is ``[N]``. *Gaussian*
means that the truth is taken to be normal around the samples' mean, with the samples' standard deviation times a
*temperature*: one factor for all voxels, 1 for the samples as they are.
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
SHOWN_LEVEL = 0.9
"""The one whose interval is measured by its width and by tissue."""
MIN_STD_HU = 1.0
"""CT numbers are integers: no standard deviation is taken to be smaller where a density is needed."""
NOTES = (
    "*body*: the voxels of the patient in the true CT, with all that the skin encloses; *everywhere* adds the air "
    "around, which is easy.",
    "`coverage_50` to `coverage_95`: share of voxels whose truth is in the central Gaussian interval of that level, "
    "mean ± z · temperature · standard deviation; `calibration_error`: mean absolute difference between these shares "
    "and their levels.",
    "`samples_coverage_50` to `_95`: the same of the intervals between order statistics of the samples, which assume "
    "no Gaussian, stretched around the mean by the temperature. K samples have none above (K - 1)/(K + 1): empty.",
    "`width_90_hu`: mean width of the 90 % interval (sharpness; the 50, 80 and 95 % ones are 0.41, 0.78 and 1.19 times "
    "as wide); `mae_hu`: mean absolute error of the samples' mean.",
    "`crps_hu`, `nll`: continuous ranked probability score, and negative log likelihood in nats per voxel (density per "
    f"HU), of the Gaussian with a standard deviation of at least {MIN_STD_HU:g} HU; smaller is better.",
    "`rank_correlation`: Spearman's, of absolute error and standard deviation: 1 if the spread orders the errors "
    "perfectly, 0 if it says nothing about them. No temperature changes it.",
    "`own_temperature`: what the standard deviation must still be multiplied with to make this case's mean coverage "
    "nominal; 1 is calibrated.",
    "By tissue, chosen by the true HU: "
    + "; ".join(f"{name} [{low:g}, {high:g})" for name, (low, high) in TISSUES_HU.items())
    + ". Only all voxels together, or voxels chosen by the reconstruction, can be expected to be covered nominally: "
    "the truth chooses the voxels that are off in its own direction.",
)
"""What the columns mean, for the reader of a table."""


class Spread(NamedTuple):
    """The error of the samples' mean in every voxel, truth minus mean, and their standard deviation, both ``[N]``."""

    error: Tensor
    std: Tensor

    def tempered(self, temperature: float) -> Spread:
        """The same errors, with ``temperature`` times the standard deviation."""
        return Spread(self.error, temperature * self.std)


def spread_of(samples: Tensor, truth: Tensor) -> Spread:
    """Mean and sample standard deviation (over K - 1) against the truth.

    Raises:
        ValueError: fewer than two samples, or another number of voxels than the truth.
    """
    if samples.ndim != 2 or len(samples) < 2 or samples.shape[1:] != truth.shape:
        raise ValueError(
            f"samples must be [K, N] with K >= 2 and truth [N], got {list(samples.shape)} and {list(truth.shape)}; "
            "reconstruct with --samples 2 or more"
        )
    return Spread(truth - samples.mean(0), samples.std(0))


def half_width(level: float) -> float:
    """Half the central interval of a standard normal that has probability ``level``: 1.96 for 0.95."""
    return NormalDist().inv_cdf((1 + level) / 2)


def coverage(spread: Spread, levels: Sequence[float] = LEVELS) -> list[float]:
    """Share of voxels in the central Gaussian interval of each level, its ends included."""
    distance = spread.error.abs()
    return [float((distance <= half_width(level) * spread.std).double().mean()) for level in levels]


def samples_interval(samples: Tensor, level: float) -> tuple[Tensor, Tensor] | None:
    """The central interval ``[N]``, ``[N]`` between order statistics; None if K samples cannot reach the level.

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
    """Share of voxels in :func:`samples_interval` of each level, stretched around the mean; NaN where there is none."""
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
    """Mean absolute difference between shares covered and levels."""
    return sum(abs(share - level) for share, level in zip(shares, levels, strict=True)) / len(levels)


def fit_temperature(spreads: Sequence[Spread], levels: Sequence[float] = LEVELS) -> float:
    """The temperature that makes the mean coverage over ``levels`` and all voxels their mean.

    A voxel is in the interval of a level from the temperature |error| / (z std) on, so the answer is a quantile of
    these numbers, pooled over levels: exact and unique. The maximum-likelihood temperature, the root mean square of
    error / std, is the same if the model holds. It is not used because errors are heavy-tailed and the standard
    deviation of few samples is small by chance: the worst voxels would decide it, and all other intervals be too wide.

    Returns:
        A positive number; 0 or infinite if too many voxels have no error, or an error but no spread, so that no
        temperature fits.
    """
    ratios = torch.cat([(spread.error.abs() / spread.std).nan_to_num(0.0, posinf=math.inf) for spread in spreads])
    thresholds = torch.cat([ratios / half_width(level) for level in levels]).sort().values
    return float(thresholds[math.ceil(sum(levels) / len(levels) * len(thresholds)) - 1])


def gaussian_nll(spread: Spread) -> float:
    """Mean of -log N(truth; mean, std²) in nats, std at least ``MIN_STD_HU``."""
    std = spread.std.double().clamp(min=MIN_STD_HU)
    return float((0.5 * (spread.error / std) ** 2 + std.log()).mean() + 0.5 * math.log(2 * math.pi))


def gaussian_crps(spread: Spread) -> float:
    """Mean CRPS in HU of N(mean, std²), std at least ``MIN_STD_HU``.

    Closed form: Gneiting & Raftery 2007, doi:10.1198/016214506000001437, eq (21).
    """
    std = spread.std.double().clamp(min=MIN_STD_HU)
    z = spread.error / std
    density = torch.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)
    # z (2Φ(z) - 1) = z erf(z/√2)
    return float((std * (z * torch.erf(z / math.sqrt(2)) + 2 * density - 1 / math.sqrt(math.pi))).mean())


def rank_correlation(spread: Spread) -> float:
    """Spearman's correlation of absolute error and standard deviation; NaN if either does not vary."""
    if spread.std.min() == spread.std.max() or spread.error.abs().min() == spread.error.abs().max():
        return math.nan
    return float(spearmanr(spread.error.abs().numpy(), spread.std.numpy()).statistic)


def measure_calibration(samples: Tensor, truth: Tensor, temperature: float = 1.0) -> dict[str, float]:
    """All measurements of one case's voxels, by column name; what the case does not have is NaN.

    Args:
        samples: ``[K, N]`` on the CPU.
        truth: ``[N]``.
        temperature: factor on the standard deviation.

    Raises:
        ValueError: as :func:`spread_of`.
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
