"""Intervals for every voxel: quantiles of the error, in units of its predicted scale, by group of voxels.

A predicted scale orders errors but need not have the right size, and errors have a sign: bone that was missed is
always too faint. Quantiles of error / scale are therefore taken from reconstructions of patients that were not trained
on, separately for groups of voxels that are formed by the prediction alone (locally weighted and Mondrian conformal
prediction; Lei et al. 2018, doi:10.1080/01621459.2017.1307116; Vovk et al. 2005). Voxels of one patient are not
exchangeable with those of another, so coverage is approximate; a study measures it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from scripts.io.text import read_json, strict_json, write_text

HU_EDGES = (-900.0, -500.0, 0.0, 100.0, 200.0)
"""Predicted HU between air, lung, fat, soft tissue, suspected bone and bone."""
SCALE_BINS = 4
"""Groups of equal size by predicted scale, for each of those."""
PROBABILITIES = tuple(round(p, 4) for p in np.linspace(0.005, 0.995, 199))
FEWEST = 500
"""Voxels in a group; smaller groups use the quantiles of their tissue, or of all voxels."""


@dataclass(frozen=True, eq=False)
class Intervals:
    """Quantiles of error / scale by group.

    Attributes:
        scale_edges: predicted scales in HU between the groups of each tissue, ``[6, 3]``.
        quantiles: ``[6, 4, 199]``, at :data:`PROBABILITIES`.
        valid_for: what made the reconstructions that they were fitted to.
    """

    scale_edges: np.ndarray
    quantiles: np.ndarray
    valid_for: Mapping[str, Any]

    def quantile(self, hu: np.ndarray, scale: np.ndarray, probability: float) -> np.ndarray:
        """Return the HU that the truth stays below with this probability, for predicted ``hu`` and ``scale`` in HU.

        Raises:
            ValueError: the probability is outside the fitted range.
        """
        lowest, highest = PROBABILITIES[0], PROBABILITIES[-1]
        if not lowest <= probability <= highest:
            raise ValueError(
                f"probability {probability:g}: quantiles are known from {lowest:g} to {highest:g}; ask for an "
                f"interval of at most {highest - lowest:g}"
            )
        ratio = np.array([[np.interp(probability, PROBABILITIES, row) for row in rows] for rows in self.quantiles])
        tissue = np.digitize(hu, HU_EDGES)
        return hu + scale * ratio[tissue, _bins(scale, tissue, self.scale_edges)]

    def bounds(self, hu: np.ndarray, scale: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
        """Return the ends of the central interval of ``level``.

        Raises:
            ValueError: as for :meth:`quantile`.
        """
        return self.quantile(hu, scale, (1 - level) / 2), self.quantile(hu, scale, (1 + level) / 2)

    def write(self, path: Path) -> None:
        """Write a JSON file."""
        rounded = {name: np.round(getattr(self, name), 4).tolist() for name in ("scale_edges", "quantiles")}
        write_text(path, strict_json({"valid_for": dict(self.valid_for), **rounded}) + "\n")


def read_intervals(path: str | Path) -> Intervals:
    """Read a file of :meth:`Intervals.write`.

    Raises:
        ValueError: the file is missing or not of that kind.
    """
    stated = read_json(Path(path))
    try:
        edges, quantiles = (np.array(stated[name], dtype=np.float64) for name in ("scale_edges", "quantiles"))
        valid_for = dict(stated["valid_for"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not a file of error intervals ({error}); make one with intervals.json") from error
    tissues = len(HU_EDGES) + 1
    expected = (tissues, SCALE_BINS - 1), (tissues, SCALE_BINS, len(PROBABILITIES))
    if (edges.shape, quantiles.shape) != expected or not (np.isfinite(edges).all() and np.isfinite(quantiles).all()):
        raise ValueError(
            f"{path}: error intervals must be finite tables of shapes {expected}, got {edges.shape} and "
            f"{quantiles.shape}; make the file again with intervals.json"
        )
    return Intervals(edges, quantiles, valid_for)


def fit_intervals(
    hu: Sequence[np.ndarray], scale: Sequence[np.ndarray], truth: Sequence[np.ndarray], valid_for: Mapping[str, Any]
) -> Intervals:
    """Fit quantiles to voxels ``[N]`` of several cases: predicted HU, predicted scale in HU, and true HU.

    Raises:
        ValueError: there are too few voxels.
    """
    predicted, b = np.concatenate(hu), np.concatenate(scale)
    ratio = (np.concatenate(truth) - predicted) / b
    if len(ratio) < FEWEST:
        raise ValueError(f"intervals need at least {FEWEST} voxels to fit, got {len(ratio)}; give more cases")
    tissue = np.digitize(predicted, HU_EDGES)
    tissues = range(len(HU_EDGES) + 1)
    shares = np.arange(1, SCALE_BINS) / SCALE_BINS
    edges = np.array([np.quantile(_enough(b, tissue == i, b), shares) for i in tissues])
    group = _bins(b, tissue, edges)
    of_tissue = [_enough(ratio, tissue == i, ratio) for i in tissues]
    chosen = [[_enough(ratio, (tissue == i) & (group == j), of_tissue[i]) for j in range(SCALE_BINS)] for i in tissues]
    quantiles = np.array([[np.quantile(ratios, PROBABILITIES) for ratios in row] for row in chosen])
    return Intervals(edges, quantiles, valid_for)


def _enough(values: np.ndarray, chosen: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
    return values[chosen] if chosen.sum() >= FEWEST else otherwise


def _bins(scale: np.ndarray, tissue: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Return the group of each voxel by its predicted scale, 0 to 3."""
    return (scale[..., None] >= edges[tissue]).sum(-1)
