"""Statistics of a network's training radiographs, from random views of its training patients."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy.special import stdtrit
from torch import nn
from tqdm import tqdm

from scripts.data.datasets import RandomViews
from scripts.exam.familiarity import (
    BODY,
    CELLS,
    COMPONENTS,
    KNOTS,
    Reference,
    ViewStatistics,
    cell_means,
    level_of,
    weighted_quantiles,
)
from scripts.geometry import VIEWS, BiplanarGeometry
from scripts.intensity import hu_to_mu
from scripts.io.atomic import require_writable

SAMPLES = 3
"""Pixels along each side of a cell that represent its distribution."""

DISTANCE_QUANTILE = 0.95
"""Quantile of the distances of a left-out patient's views; the limit is the largest of all patients."""

LEVEL_RISK = 0.0125
"""Probability that a new patient's level exceeds its limit, if levels are log-normal. One new patient in eleven would
exceed the largest level of ten patients."""


def make_reference(
    dataset: RandomViews, projector: nn.Module, geometry: BiplanarGeometry, views_per_patient: int
) -> Reference:
    """Compute statistics of random views of every training patient, with limits by leaving out one patient at a time.

    A patient's views are weighted by the data set's proportions.

    Args:
        dataset: data set with the patients, deformations and contrasts.
        projector: maps mu in 1/mm ``[B, 1, U, V, W]`` to line integrals ``[B, 2, N, N]``.
        geometry: geometry of the network, for the record.
        views_per_patient: number of frontal and of lateral views per patient.

    Raises:
        ValueError: there are too few patients or views.
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
    """Run :func:`make_reference` and write its result.

    Args:
        output: the JSON file to write; its folder is created if needed.
        **options: arguments of :func:`make_reference`.

    Raises:
        ValueError: as for :func:`make_reference`.
    """
    output = Path(output)
    require_writable(output.parent)
    reference = make_reference(**options)
    output.parent.mkdir(parents=True, exist_ok=True)
    reference.write(output)
    print(f"reference: {reference.patients} patients in {output}")


class _Views(NamedTuple):
    """Means ``[n, ..., 256]`` and pixels ``[n, ..., 256, 9]`` of the cells of n random views, and their levels."""

    means: np.ndarray
    pixels: np.ndarray
    levels: np.ndarray


def _draw(dataset: RandomViews, projector: nn.Module, index: int, count: int) -> _Views:
    """Draw ``count`` random views of one patient, frontal and lateral."""
    body = dataset.patients.sources[index](0)
    generator = torch.Generator().manual_seed(dataset.seed * 1_000_003 + index)
    views = []
    for _ in range(count):
        images = projector(hu_to_mu(dataset.draw([body], [generator])))[0].numpy()
        views.append(_Views(cell_means(images), _cell_pixels(images), level_of(images)))
    return _Views(*(np.stack(values) for values in zip(*views, strict=True)))


def _statistics(views: _Views, patient: np.ndarray, weights: np.ndarray) -> ViewStatistics:
    """Compute the statistics of one view, with limits that allow for few patients."""
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
        cells[cell] = weighted_quantiles(pixels[cell], of_body[cell], KNOTS)
    return replace(
        _fit(views.means, views.levels, weights),
        distance_limit=float(max(largest)),
        level_limit=_prediction_limit(by_patient.sum() ** 2 / (by_patient**2).sum()),
        cells=cells,
        occupied=occupied,
    )


def _prediction_limit(patients: float) -> float:
    """Return the standard deviations that one more of so many normal variates exceeds with :data:`LEVEL_RISK`."""
    return float(stdtrit(patients - 1, 1 - LEVEL_RISK / 2) * math.sqrt(1 + 1 / patients))


def _fit(means: np.ndarray, levels: np.ndarray, weights: np.ndarray) -> ViewStatistics:
    """Fit weighted principal components of cell means ``[n, 256]`` and moments of levels ``[n]``."""
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


def _cell_pixels(images: np.ndarray) -> np.ndarray:
    """Return evenly spread pixels ``[C, 256, 9]`` of each cell of ``[C, N, N]``."""
    pixels = F.interpolate(torch.from_numpy(images)[None], size=CELLS * SAMPLES, mode="nearest-exact")[0].numpy()
    split = pixels.reshape(-1, CELLS, SAMPLES, CELLS, SAMPLES).swapaxes(2, 3)
    return split.reshape(-1, CELLS**2, SAMPLES**2)
