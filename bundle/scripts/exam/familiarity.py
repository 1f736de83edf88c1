"""Statistics of a network's training radiographs, and the deviation of other radiographs from them.

For each view, :class:`ViewStatistics` holds the mean of 16 x 16 pixels, the principal directions of their variation,
the attenuation of the thickest parts, and the distribution of the patients' line integrals in each of 16 x 16 cells.
All are pooled over random deformations of every training patient; at 25 mm per pixel they identify nobody.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from scripts.exam.film_values import match_quantiles, open_beam
from scripts.geometry import VIEWS, BiplanarGeometry
from scripts.io.text import write_text

CELLS = 16
"""Cells along each side of a view: coarse enough to estimate the variance from a few dozen patients."""
COMPONENTS = 16
"""Directions of variation. With 8 to 16, exchanged views deviate more than the true ones for every left-out patient;
with more, they fit the peculiarities of individual patients."""
KNOTS = (np.arange(21) + 0.5) / 21
"""Probabilities of a cell's quantiles: the middles of equal shares, so that quantiles of many cells can be pooled."""
PROBABILITIES = np.linspace(0, 1, 101)
"""Probabilities of the quantiles of a whole view."""
BODY = 0.1
"""Smallest line integral that counts as patient: 5 mm of water."""
LEVEL_QUANTILE = 0.98
"""Quantile of a view's line integrals that represents its thickest parts."""


@dataclass(frozen=True, eq=False)
class ViewStatistics:
    """One view of the training radiographs, as line integrals.

    Attributes:
        mean: ``[256]`` mean of the cells' means.
        components: ``[K, 256]`` orthonormal directions of their largest variance.
        variances: ``[K]`` variances along the components.
        residual_variance: mean variance along each of the other directions.
        level_mean: mean of the logarithm of the :data:`LEVEL_QUANTILE` quantile of a view.
        level_std: standard deviation of that logarithm.
        distance_limit: distance not exceeded by :data:`DISTANCE_QUANTILE` of the views of each left-out patient.
        level_limit: limit in standard deviations, exceeded by a new patient with probability :data:`LEVEL_RISK`.
        cells: ``[256, 21]`` quantiles of the patient's pixels in each cell, at :data:`KNOTS`.
        occupied: ``[256]`` fraction of the pixels in each cell that show a patient.
    """

    mean: np.ndarray
    components: np.ndarray
    variances: np.ndarray
    residual_variance: float
    level_mean: float
    level_std: float
    distance_limit: float = math.inf
    level_limit: float = math.inf
    cells: np.ndarray = field(default_factory=lambda: np.zeros((CELLS**2, len(KNOTS))))
    occupied: np.ndarray = field(default_factory=lambda: np.zeros(CELLS**2))

    def distance(self, cell_means: np.ndarray) -> np.ndarray:
        """Return the Mahalanobis distance ``[...]`` of ``[..., 256]`` under probabilistic principal components.

        d^2 = sum_k z_k^2 / variance_k + |rest|^2 / residual_variance (Tipping and Bishop 1999).
        """
        offset = cell_means - self.mean
        along = offset @ self.components.T
        rest = np.maximum((offset**2).sum(-1) - (along**2).sum(-1), 0)  # components from a file are rounded
        return np.sqrt((along**2 / self.variances).sum(-1) + rest / self.residual_variance)

    def deviation(self, level: np.ndarray) -> np.ndarray:
        """Return the deviation of the logarithmic ``level`` in standard deviations."""
        return np.abs(level - self.level_mean) / self.level_std

    @property
    def usual_levels(self) -> tuple[float, float]:
        """Return the usual range of line integrals of the thickest parts."""
        spread = self.level_limit * self.level_std
        return math.exp(self.level_mean - spread), math.exp(self.level_mean + spread)


@dataclass(frozen=True, eq=False)
class Reference:
    """Statistics of the training radiographs of a network.

    Attributes:
        geometry: geometry of the network.
        patients: number of patients.
        views: statistics by view.
    """

    geometry: BiplanarGeometry
    patients: int
    views: Mapping[str, ViewStatistics]

    def adapted(self, view: str, image: np.ndarray, covered: np.ndarray) -> np.ndarray:
        """Map a film of unknown scale to the values of training radiographs, with 0 in the air around the patient.

        See :func:`~scripts.exam.film_values.match_quantiles` for the information this destroys. For left-out training
        patients, the mean error of line integrals is 0.3 to 0.4, and more where a film shows only part of the field.

        Args:
            view: name of the view.
            image: ``[N, N]`` in the network's frame, increasing with attenuation.
            covered: bool ``[N, N]``, where the image is known.

        Returns:
            ``[N, N]`` float32.
        """
        air = open_beam(image, covered)
        shown = covered & ~air
        return np.where(air, np.float32(0), match_quantiles(image, shown, self.quantiles(view, shown)))

    def quantiles(self, view: str, shown: np.ndarray) -> np.ndarray:
        """Return quantiles of training line integrals in the cells that a film shows, at :data:`PROBABILITIES`.

        A cell is weighted by how much of it the film shows and patients occupy. Air does not count, because a film has
        less of it than the training radiographs: at the sides because the film is smaller, above and below because a CT
        ends there. Matching it with their air would turn its lungs into air.

        Args:
            view: name of the view.
            shown: bool ``[N, N]``, where a film shows the patient.
        """
        share = F.adaptive_avg_pool2d(torch.from_numpy(shown).float()[None], CELLS).numpy().ravel()
        known = self.views[view]
        weights = np.repeat(share * known.occupied, len(KNOTS))
        return weighted_quantiles(known.cells.ravel(), weights, PROBABILITIES)

    def warnings(self, images: np.ndarray, views: Sequence[str] = VIEWS) -> list[str]:
        """Return warnings for readers of the result; empty if the views look familiar.

        Two quantities are compared with their limits (see :class:`ViewStatistics`): the distance of a view's layout,
        and the deviation of its thickest parts from the usual attenuation. This detects images other than radiographs
        of a trunk, and a wrong scale. With a few dozen patients it does not detect radiographs that are upside down,
        mirrored, or off by a constant.

        Args:
            images: line integrals ``[2, N, N]`` in the network's frame.
            views: views that are present.

        Raises:
            ValueError: the images have another shape.
        """
        found = []
        known = dict(zip(VIEWS, self._checked(images), strict=True))
        for view, pixels in ((view, known[view]) for view in views):
            layout, level = self._ratios(view, pixels)
            if level > 1:
                low, high = self.views[view].usual_levels
                found.append(
                    f"{view} view: the thickest parts attenuate {math.exp(level_of(pixels)):.2f} (line integral), "
                    f"those of training radiographs {low:.2f} to {high:.2f}; check the scale of the pixels, the "
                    "unattenuated beam and the tube voltage"
                )
            if layout > 1:
                found.append(
                    f"{view} view: unlike the training radiographs, {layout:.2f} times as far from them as they are "
                    "from each other; the reconstruction may be wrong: check view, orientation, centre, magnification"
                )
        if len(views) < len(VIEWS):
            return found
        exchanged = images[::-1]
        if self._distance(exchanged) < self._distance(images) and self._is_familiar(exchanged):
            found.append("the two views look more like the training radiographs when exchanged; check which is which")
        return found

    def write(self, path: str | Path) -> None:
        """Write JSON for :func:`read_reference` atomically, with five significant digits."""
        views = {name: {k: _rounded(v) for k, v in asdict(view).items()} for name, view in self.views.items()}
        record = {"geometry": json.loads(self.geometry.to_json()), "patients": self.patients, "views": views}
        write_text(Path(path), json.dumps(record, separators=(",", ":")))

    def _checked(self, images: np.ndarray) -> np.ndarray:
        expected = (len(VIEWS), *[self.geometry.detector_pixels] * 2)
        if np.shape(images) != expected:
            raise ValueError(f"reference radiographs: made for images {expected}, got {np.shape(images)}")
        return images

    def _ratios(self, view: str, pixels: np.ndarray) -> tuple[float, float]:
        known = self.views[view]
        layout = known.distance(cell_means(pixels)) / known.distance_limit
        return float(layout), float(known.deviation(level_of(pixels)) / known.level_limit)

    def _is_familiar(self, images: np.ndarray) -> bool:
        return all(self._ratios(view, pixels)[0] <= 1 for view, pixels in zip(VIEWS, images, strict=True))

    def _distance(self, images: np.ndarray) -> float:
        """Return the combined distance of both views."""
        return math.hypot(*(self.views[view].distance(cell_means(x)) for view, x in zip(VIEWS, images, strict=True)))


def read_reference(path: str | Path, geometry: BiplanarGeometry | None = None) -> Reference:
    """Read a file written by :meth:`Reference.write`.

    Args:
        path: the JSON file.
        geometry: geometry of the network; None accepts any.

    Raises:
        ValueError: the file is missing, damaged, or made for another geometry.
    """
    path = Path(path)
    remedy = "make it with reference.json from the training data"
    if not path.is_file():
        raise ValueError(f"{path}: no statistics of the training radiographs; {remedy}")
    try:
        record = json.loads(path.read_text())
        views = {name: _checked_statistics(record["views"][name]) for name in VIEWS}
        reference = Reference(BiplanarGeometry.from_dict(record["geometry"]), int(record["patients"]), views)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: damaged statistics of the training radiographs ({error!r}); {remedy}") from error
    if geometry not in (None, reference.geometry):
        raise ValueError(f"{path}: made for {reference.geometry}, but the network has {geometry}; {remedy}")
    return reference


def cell_means(images: np.ndarray) -> np.ndarray:
    """Return the mean pixel of each cell, ``[..., 256]``, of images ``[..., N, N]``."""
    flat = torch.from_numpy(np.ascontiguousarray(images, dtype=np.float32)).reshape(1, -1, *images.shape[-2:])
    return F.adaptive_avg_pool2d(flat, CELLS).numpy().astype(np.float64).reshape(*images.shape[:-2], CELLS**2)


def level_of(images: np.ndarray) -> np.ndarray:
    """Return the logarithm ``[...]`` of the attenuation of the thickest parts of ``[..., N, N]``."""
    return np.log(np.maximum(np.quantile(images, LEVEL_QUANTILE, axis=(-2, -1)), 1e-3))


def weighted_quantiles(values: np.ndarray, weights: np.ndarray, probabilities: np.ndarray | float) -> np.ndarray:
    """Return quantiles of values ``[n]`` with weights ``[n]``, linear between the middles of their shares."""
    order = np.argsort(values)
    values, weights = values[order], weights[order]
    occurs = weights > 0
    reached = np.cumsum(weights[occurs])
    return np.interp(probabilities, (reached - weights[occurs] / 2) / reached[-1], values[occurs])


def _rounded(value: float | np.ndarray) -> Any:
    """Return a JSON-ready value, rounded to five significant digits."""
    if isinstance(value, np.ndarray):
        return [_rounded(entry) for entry in value]
    return float(f"{value:.5g}")


def _checked_statistics(record: Mapping[str, Any]) -> ViewStatistics:
    """Check and convert the statistics in a file.

    Raises:
        ValueError: numbers are impossible for radiographs.
        TypeError: entries are missing or unknown.
    """
    arrays: dict[str, Any] = {k: np.asarray(v, dtype=np.float64) for k, v in record.items()}
    known = ViewStatistics(**arrays)
    shapes = {"mean": (CELLS**2,), "components": (COMPONENTS, CELLS**2), "variances": (COMPONENTS,)}
    shapes |= {"cells": (CELLS**2, len(KNOTS)), "occupied": (CELLS**2,)}
    for name, value in asdict(known).items():
        if value.shape != shapes.get(name, ()) or not np.isfinite(value).all():
            raise ValueError(f"{name}: expected {shapes.get(name, ())} finite numbers, got {value.shape}")
    if (np.diff(known.cells) < 0).any():
        raise ValueError("cells: the quantiles fall")
    if known.occupied.min() < 0 or not known.occupied.any():
        raise ValueError("occupied: a negative share, or no cell")
    for name in ("variances", "residual_variance", "level_std", "distance_limit", "level_limit"):
        if (getattr(known, name) <= 0).any():
            raise ValueError(f"{name}: not positive")
    return known
