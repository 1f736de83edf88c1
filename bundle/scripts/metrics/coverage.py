"""Quality of predicted intervals, in HU, for one case's voxels ``[N]``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from scipy.stats import spearmanr

from scripts.metrics.calibration import LEVELS, SHOWN_LEVEL, calibration_error
from scripts.metrics.volume import TISSUES_HU, tissue_masks

NOTES = (
    "*body*: the voxels of the patient in the true CT, with everything inside the skin.",
    "`coverage_50` to `coverage_95`: share of voxels with the truth in the interval of that level; "
    "`calibration_error`: mean absolute difference between these shares and their levels.",
    "`width_90_hu`: mean width of the 90 % interval; `crps_hu`: continuous ranked probability score of the predicted "
    "quantiles; `mae_hu`: mean absolute error of the volume. Smaller is better.",
    "`rank_correlation`: Spearman's, of absolute error and predicted standard deviation.",
    "By tissue, chosen by the true HU: "
    + "; ".join(f"{name} [{low:g}, {high:g})" for name, (low, high) in TISSUES_HU.items())
    + ". Nominal coverage can be expected only for all voxels together, or for voxels selected by the reconstruction.",
)
"""Explanations of the columns, for readers of a table."""


def measure_intervals(
    bounds: Callable[[float], tuple[np.ndarray, np.ndarray]],
    quantile: Callable[[float], np.ndarray],
    std: np.ndarray,
    hu: np.ndarray,
    truth: np.ndarray,
    probabilities: Sequence[float],
) -> dict[str, float]:
    """Return all measurements by column name; NaN where the case has no voxel of a tissue.

    Args:
        bounds: returns both ends of every voxel's interval for a level.
        quantile: returns the predicted quantile of every voxel for a probability.
        std: predicted standard deviation of the error.
        hu: the reconstruction.
        truth: true HU.
        probabilities: where the CRPS is integrated, evenly spaced.
    """
    tissues = {name: mask.numpy() for name, mask in tissue_masks(torch.from_numpy(truth)).items()}
    shares, row = [], {}
    for level in LEVELS:
        low, high = bounds(level)
        inside = (low <= truth) & (truth <= high)
        shares.append(float(inside.mean()))
        row[f"coverage_{100 * level:.0f}"] = shares[-1]
        if level == SHOWN_LEVEL:
            row["width_90_hu"] = float((high - low).mean())
            row |= {f"coverage_90_{name}": _mean(inside[mask]) for name, mask in tissues.items()}
            row |= {f"width_90_{name}_hu": _mean((high - low)[mask]) for name, mask in tissues.items()}
    error = np.abs(truth - hu)
    return row | {
        "calibration_error": calibration_error(shares),
        "mae_hu": float(error.mean()),
        "crps_hu": quantile_crps(quantile, truth, probabilities),
        "rank_correlation": float(spearmanr(error, std).statistic),
    }


def coverage_curves(
    bounds: Callable[[float], tuple[np.ndarray, np.ndarray]],
    truth: np.ndarray,
    regions: Mapping[str, np.ndarray],
    levels: Sequence[float],
) -> dict[str, list[float]]:
    """Return the coverage of the interval of every level, by region.

    Args:
        bounds, truth: see :func:`measure_intervals`.
        regions: masks ``[N]`` by name, each with voxels.
        levels: nominal coverages.
    """
    curves: dict[str, list[float]] = {name: [] for name in regions}
    for level in levels:
        low, high = bounds(level)
        inside = (low <= truth) & (truth <= high)
        for name, mask in regions.items():
            curves[name].append(float(inside[mask].mean()))
    return curves


def quantile_crps(quantile: Callable[[float], np.ndarray], truth: np.ndarray, probabilities: Sequence[float]) -> float:
    """Return the mean CRPS, twice the pinball loss averaged over evenly spaced ``probabilities``.

    Gneiting and Ranjan 2011, doi:10.1198/jbes.2010.08110, eq (11).
    """
    losses = []
    for p in probabilities:
        rest = truth - quantile(p)
        losses.append(np.maximum(p * rest, (p - 1) * rest).mean())
    return float(2 * np.mean(losses))


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else float("nan")
