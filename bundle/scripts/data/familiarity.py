"""What the radiographs that a network was trained on look like, and how unlike them another one is.

Per view a :class:`ViewStatistics` knows the mean of 16 x 16 pixels, the directions in which such pictures vary most,
how much the thickest parts attenuate, and the distribution of the patients' line integrals in each of 16 x 16 cells.
All are pooled over random deformations of every training patient; at 25 mm per pixel they identify nobody.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy.special import stdtrit
from torch import nn
from tqdm import tqdm

from scripts.data.datasets import RandomViews
from scripts.data.films import match_quantiles, open_beam
from scripts.geometry import VIEWS, BiplanarGeometry
from scripts.intensity import hu_to_mu
from scripts.io.text import write_text

CELLS = 16
"""Cells along each side of a view: coarse enough that the variance between a few dozen patients can be learnt."""
COMPONENTS = 16
"""Directions of variation. With 8 to 16, exchanged views are further off than the true ones for every patient left out;
with more, a patient's own peculiarities are learnt."""
SAMPLES = 3
"""Pixels along each side of a cell that its distribution is made from."""
KNOTS = (np.arange(21) + 0.5) / 21
"""Probabilities of a cell's quantiles: the middles of equal shares, so that those of many cells can be pooled."""
PROBABILITIES = np.linspace(0, 1, 101)
"""Of the quantiles of a whole view."""
BODY = 0.1
"""Least line integral of a patient: 5 mm of water."""
LEVEL_QUANTILE = 0.98
"""Of a view's line integrals: its thickest parts."""
DISTANCE_QUANTILE = 0.95
"""Of the views of one patient left out; the limit is the largest such quantile of any patient."""
LEVEL_RISK = 0.0125
"""That a new patient's level exceeds its limit, if levels are log-normal. A largest level of ten patients would be
exceeded by one new patient in eleven."""


@dataclass(frozen=True, eq=False)
class ViewStatistics:
    """One view of the training radiographs, as line integrals.

    Attributes:
        mean: ``[256]`` mean of the cells' means.
        components: ``[K, 256]`` orthonormal directions of their largest variance.
        variances: ``[K]`` along these.
        residual_variance: mean variance along each of the other directions.
        level_mean: mean of the logarithm of the :data:`LEVEL_QUANTILE` quantile of a view.
        level_std: its standard deviation.
        distance_limit: that :data:`DISTANCE_QUANTILE` of the views of each patient do not exceed, if left out.
        level_limit: in standard deviations; exceeded by a new patient with a probability of :data:`LEVEL_RISK`.
        cells: ``[256, 21]`` quantiles of the pixels in each cell that show a patient, at :data:`KNOTS`.
        occupied: ``[256]`` share of the pixels in each cell that do.
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
        """Mahalanobis distance ``[...]`` of ``[..., 256]`` under probabilistic principal components.

        d^2 = sum_k z_k^2 / variance_k + |rest|^2 / residual_variance (Tipping and Bishop 1999).
        """
        offset = cell_means - self.mean
        along = offset @ self.components.T
        rest = np.maximum((offset**2).sum(-1) - (along**2).sum(-1), 0)  # the file's components are rounded
        return np.sqrt((along**2 / self.variances).sum(-1) + rest / self.residual_variance)

    def deviation(self, level: np.ndarray) -> np.ndarray:
        """How many standard deviations the logarithmic ``level`` is off."""
        return np.abs(level - self.level_mean) / self.level_std

    @property
    def usual_levels(self) -> tuple[float, float]:
        """The range of line integrals of the thickest parts."""
        spread = self.level_limit * self.level_std
        return math.exp(self.level_mean - spread), math.exp(self.level_mean + spread)


@dataclass(frozen=True, eq=False)
class Reference:
    """The training radiographs of a network, in statistics.

    Attributes:
        geometry: of the network.
        patients: how many there were.
        views: by name.
    """

    geometry: BiplanarGeometry
    patients: int
    views: Mapping[str, ViewStatistics]

    def adapted(self, view: str, image: np.ndarray, covered: np.ndarray) -> np.ndarray:
        """A film of unknown scale with the values of training radiographs, the air around the patient at 0.

        See :func:`~scripts.data.films.match_quantiles` for what this destroys. For training patients left out, line
        integrals come out wrong by 0.3 to 0.4 on average, by more where a film shows only a part of the field.

        Args:
            view: its name.
            image: ``[N, N]`` in the network's frame, growing with attenuation.
            covered: bool ``[N, N]``, where it is known.

        Returns:
            ``[N, N]`` float32.
        """
        air = open_beam(image, covered)
        shown = covered & ~air
        return np.where(air, np.float32(0), match_quantiles(image, shown, self.quantiles(view, shown)))

    def quantiles(self, view: str, shown: np.ndarray) -> np.ndarray:
        """Of the training patients' line integrals, at :data:`PROBABILITIES`, in the cells that a film shows.

        Air does not count, and every cell as much as it is shown and occupied: a film has less air than the training
        radiographs, beside the patient because it is smaller, above and below because a CT ends there. Matched with
        their air, its lungs would become air.

        Args:
            view: its name.
            shown: bool ``[N, N]``, where a film shows the patient.
        """
        share = F.adaptive_avg_pool2d(torch.from_numpy(shown).float()[None], CELLS).numpy().ravel()
        known = self.views[view]
        weights = np.repeat(share * known.occupied, len(KNOTS))
        return _quantiles(known.cells.ravel(), weights, PROBABILITIES)

    def score(self, images: np.ndarray) -> dict[str, float]:
        """How unlike the training radiographs each view is: 1 is the limit, see :class:`ViewStatistics`.

        The larger one of two ratios to their limits: the distance of its layout, and how far its thickest parts are
        from the usual attenuation. It finds what is no radiograph of a trunk, and a wrong scale; with a few dozen
        patients it does not find radiographs that are upside down, mirrored, or off by a constant.

        Args:
            images: line integrals ``[2, N, N]`` in the network's frame.

        Raises:
            ValueError: images of another shape.
        """
        return {
            view: max(self._ratios(view, pixels)) for view, pixels in zip(VIEWS, self._checked(images), strict=True)
        }

    def warnings(self, images: np.ndarray, views: Sequence[str] = VIEWS) -> list[str]:
        """What a reader of the result should know; empty if the views look familiar.

        Args:
            images: as in :meth:`score`.
            views: those that there are.
        """
        found = []
        known = dict(zip(VIEWS, self._checked(images), strict=True))
        for view, pixels in ((view, known[view]) for view in views):
            layout, level = self._ratios(view, pixels)
            if level > 1:
                low, high = self.views[view].usual_levels
                found.append(
                    f"{view} view: the thickest parts attenuate {math.exp(_level(pixels)):.2f} (line integral), those "
                    f"of training radiographs {low:.2f} to {high:.2f}; check the scale of the pixels, the unattenuated "
                    "beam and the tube voltage"
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
        """Write JSON for :func:`read_reference`, four significant digits; appears whole or not at all."""
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
        layout = known.distance(_cell_means(pixels)) / known.distance_limit
        return float(layout), float(known.deviation(_level(pixels)) / known.level_limit)

    def _is_familiar(self, images: np.ndarray) -> bool:
        return all(self._ratios(view, pixels)[0] <= 1 for view, pixels in zip(VIEWS, images, strict=True))

    def _distance(self, images: np.ndarray) -> float:
        """Of both views together."""
        return math.hypot(*(self.views[view].distance(_cell_means(x)) for view, x in zip(VIEWS, images, strict=True)))


def read_reference(path: str | Path, geometry: BiplanarGeometry | None = None) -> Reference:
    """Read what :meth:`Reference.write` wrote.

    Args:
        path: the JSON file.
        geometry: of the network; None accepts any.

    Raises:
        ValueError: missing, damaged, or made for another geometry.
    """
    path = Path(path)
    remedy = "make it with reference.json from the training data"
    if not path.is_file():
        raise ValueError(f"{path}: no statistics of the training radiographs; {remedy}")
    try:
        record = json.loads(path.read_text())
        stated = {k: math.inf if v == "inf" else v for k, v in record["geometry"].items()}
        views = {name: _checked_statistics(record["views"][name]) for name in VIEWS}
        reference = Reference(BiplanarGeometry(**stated), int(record["patients"]), views)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: damaged statistics of the training radiographs ({error!r}); {remedy}") from error
    if geometry not in (None, reference.geometry):
        raise ValueError(f"{path}: made for {reference.geometry}, but the network has {geometry}; {remedy}")
    return reference


def make_reference(
    dataset: RandomViews, projector: nn.Module, geometry: BiplanarGeometry, views_per_patient: int
) -> Reference:
    """Statistics of random views of every training patient, with limits from leaving out one patient at a time.

    A patient's views are weighted as the data set draws them.

    Args:
        dataset: gives the patients and their deformations and contrasts.
        projector: mu in 1/mm ``[B, 1, U, V, W]`` to line integrals ``[B, 2, N, N]``.
        geometry: of the network, for the record.
        views_per_patient: of either view.

    Raises:
        ValueError: too few patients or views.
    """
    drawn_from = dataset.patients.weights.nonzero().flatten().tolist()
    patients = len(drawn_from)
    if patients < 3 or (patients - 1) * views_per_patient < 2 * COMPONENTS:
        raise ValueError(
            f"reference radiographs: {COMPONENTS} components need 3 patients and {2 * COMPONENTS} views without one of "
            f"them, got {patients} patients with {views_per_patient} views each; add cases or raise --views_per_patient"
        )
    progress = tqdm(drawn_from, "reference", unit="patient")
    drawn = [_draw(dataset, projector, source, views_per_patient) for source in progress]
    patient = np.repeat(np.arange(patients), views_per_patient)
    weights = np.repeat(dataset.patients.weights[drawn_from].double().numpy(), views_per_patient)
    views = {}
    for number, view in enumerate(VIEWS):
        columns = (np.concatenate([getattr(group, name)[:, number] for group in drawn]) for name in _Views._fields)
        views[view] = _statistics(_Views(*columns), patient, weights)
    return Reference(geometry, patients, views)


def write_reference(output: str | Path, **options: Any) -> None:
    """:func:`make_reference` as a command.

    Args:
        output: the JSON file to write; its folder is made if needed.
        **options: of :func:`make_reference`.

    Raises:
        ValueError: as :func:`make_reference`.
    """
    output = Path(output)
    reference = make_reference(**options)
    output.parent.mkdir(parents=True, exist_ok=True)
    reference.write(output)
    print(f"reference: {reference.patients} patients in {output}")


class _Views(NamedTuple):
    """Of n random views: means ``[n, ..., 256]`` and pixels ``[n, ..., 256, 9]`` of cells, and levels ``[n, ...]``."""

    means: np.ndarray
    pixels: np.ndarray
    levels: np.ndarray


def _draw(dataset: RandomViews, projector: nn.Module, index: int, count: int) -> _Views:
    """``count`` random views of one patient, frontal and lateral."""
    body = dataset.patients.sources[index](0)
    generator = torch.Generator().manual_seed(dataset.seed * 1_000_003 + index)
    views = []
    for _ in range(count):
        images = projector(hu_to_mu(dataset.draw([body], [generator])))[0].numpy()
        views.append(_Views(_cell_means(images), _cell_pixels(images), _level(images)))
    return _Views(*(np.stack(values) for values in zip(*views, strict=True)))


def _statistics(views: _Views, patient: np.ndarray, weights: np.ndarray) -> ViewStatistics:
    """Of one view, with limits that allow for few patients."""
    largest = []
    for left_out in np.unique(patient):
        own = patient == left_out
        others = _fit(views.means[~own], views.levels[~own], weights[~own])
        largest.append(np.quantile(others.distance(views.means[own]), DISTANCE_QUANTILE))
    by_patient = np.bincount(patient, weights)
    pixels = views.pixels.swapaxes(0, 1).reshape(CELLS**2, -1)
    of_body = np.where(pixels > BODY, np.repeat(weights, SAMPLES**2), 0)
    occupied = of_body.sum(axis=1) / (weights.sum() * SAMPLES**2)
    cells = np.zeros((CELLS**2, len(KNOTS)))
    for cell in occupied.nonzero()[0]:
        cells[cell] = _quantiles(pixels[cell], of_body[cell], KNOTS)
    return replace(
        _fit(views.means, views.levels, weights),
        distance_limit=float(max(largest)),
        level_limit=_prediction_limit(by_patient.sum() ** 2 / (by_patient**2).sum()),
        cells=cells,
        occupied=occupied,
    )


def _prediction_limit(patients: float) -> float:
    """Standard deviations beyond which one more of so many normal variates lies with :data:`LEVEL_RISK`, either way."""
    return float(stdtrit(patients - 1, 1 - LEVEL_RISK / 2) * math.sqrt(1 + 1 / patients))


def _fit(means: np.ndarray, levels: np.ndarray, weights: np.ndarray) -> ViewStatistics:
    """Weighted principal components of cell means ``[n, 256]`` and moments of levels ``[n]``."""
    weights = weights / weights.sum()
    mean, level_mean = weights @ means, weights @ levels
    offset = means - mean
    variances, directions = np.linalg.eigh((offset * weights[:, None]).T @ offset)
    level_std = math.sqrt(weights @ (levels - level_mean) ** 2)
    return ViewStatistics(
        mean,
        directions[:, : -COMPONENTS - 1 : -1].T,
        variances[: -COMPONENTS - 1 : -1],
        float(variances[:-COMPONENTS].mean()),
        float(level_mean),
        level_std,
    )


def _cell_means(images: np.ndarray) -> np.ndarray:
    """``[..., 256]`` of ``[..., N, N]``."""
    flat = torch.from_numpy(np.ascontiguousarray(images, dtype=np.float32)).reshape(1, -1, *images.shape[-2:])
    return F.adaptive_avg_pool2d(flat, CELLS).numpy().astype(np.float64).reshape(*images.shape[:-2], CELLS**2)


def _cell_pixels(images: np.ndarray) -> np.ndarray:
    """Evenly spread pixels ``[C, 256, 9]`` of each cell of ``[C, N, N]``."""
    pixels = F.interpolate(torch.from_numpy(images)[None], size=CELLS * SAMPLES, mode="nearest-exact")[0].numpy()
    split = pixels.reshape(-1, CELLS, SAMPLES, CELLS, SAMPLES).swapaxes(2, 3)
    return split.reshape(-1, CELLS**2, SAMPLES**2)


def _level(images: np.ndarray) -> np.ndarray:
    """Logarithm ``[...]`` of what the thickest parts of ``[..., N, N]`` attenuate."""
    return np.log(np.maximum(np.quantile(images, LEVEL_QUANTILE, axis=(-2, -1)), 1e-3))


def _quantiles(values: np.ndarray, weights: np.ndarray, probabilities: np.ndarray | float) -> np.ndarray:
    """Of values ``[n]`` that occur with these weights ``[n]``; linear between the middles of their shares."""
    order = np.argsort(values)
    values, weights = values[order], weights[order]
    occurs = weights > 0
    reached = np.cumsum(weights[occurs])
    return np.interp(probabilities, (reached - weights[occurs] / 2) / reached[-1], values[occurs])


def _rounded(value: float | np.ndarray) -> Any:
    """JSON-ready, to five significant digits."""
    if isinstance(value, np.ndarray):
        return [_rounded(entry) for entry in value]
    return float(f"{value:.5g}")


def _checked_statistics(record: Mapping[str, Any]) -> ViewStatistics:
    """Statistics as they stand in a file.

    Raises:
        ValueError: numbers that no radiographs have; TypeError: missing or unknown ones.
    """
    known = ViewStatistics(**{k: np.asarray(v, dtype=np.float64) for k, v in record.items()})
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
