"""Saving of reconstructions, each as a folder with the CT, its standard deviation, and a record of its provenance."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.data import MetaTensor
from torch import Tensor

from scripts.exam.exam import Exam, exam_of
from scripts.geometry import VIEWS, BiplanarGeometry
from scripts.intensity import EXPLAINED_MISFIT, hu_to_mu, hu_to_network, network_to_radiograph
from scripts.io.atomic import whole_folder
from scripts.io.folders import RESULT_FILE, sizes
from scripts.io.names import safe_name
from scripts.io.nifti import read_volume
from scripts.io.options import require_number
from scripts.io.text import strict_json
from scripts.metrics.protocol import measure
from scripts.results.place import place_of
from scripts.results.record import Record, Settings, read_record
from scripts.results.writing import Writing

logger = logging.getLogger(__name__)
MAX_MISFIT = 2 * EXPLAINED_MISFIT
"""Largest misfit of one view without a warning; radiographs that are trusted are met more closely."""
MAX_SPREAD_HU = 200.0
"""Mean standard deviation of the samples above which readers are warned."""


class PredictsError(Protocol):
    """Prediction of a volume's error; see :class:`~scripts.inference.predicted_error.PredictedError`."""

    def __call__(
        self, image: Tensor, hu: Tensor, level: float | None = None
    ) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray] | None]:
        """Return the standard deviation and the ends of the interval of ``level``, all ``[U, V, W]`` in HU."""
        ...

    def require_level(self, level: float) -> None:
        """Raise a ValueError if there is no interval of this level."""
        ...


class FindsSupport(Protocol):
    """Share of a volume that its films support; see :class:`~scripts.inference.support.Support`."""

    def __call__(self, image: Tensor, hu: Tensor) -> np.ndarray:
        """Return the share ``[U, V, W]``, 0 to 1, for ``hu [U, V, W]`` from ``image [2, N, N]``."""
        ...


class Projector(Protocol):
    """Map of attenuation ``[B, 1, U, V, W]`` in 1/mm to line integrals ``[B, 2, N, N]``, on its buffers' device."""

    geometry: BiplanarGeometry

    def __call__(self, mu: Tensor) -> Tensor:
        """Project one batch."""

    def buffers(self) -> Iterator[Tensor]:
        """Return the module's buffers, at least one."""


@dataclass(frozen=True, eq=False)
class Result:
    """One reconstruction, as passed to the writers.

    Attributes:
        name: name of the exam, safe for a file.
        mean: HU ``[U, V, W]`` float32, averaged over the samples.
        std: standard deviation in every voxel, of the samples or of the predicted error; None if neither is known.
        std_is: what ``std`` is, for readers: predicted, or of how many samples.
        interval: lower and upper end of the interval that was asked for, or None.
        support: share of ``mean`` that the films support, 0 to 1, or None if it was not asked for.
        affine: RAS voxel-to-mm affine ``[4, 4]``.
        spacing_mm: voxel spacing.
        measured: line integrals ``[2, N, N]`` that were used; 0 for a missing view.
        reprojected: line integrals of ``mean``.
        truth: the CT ``[U, V, W]`` in HU, or None if it is not known.
        exam: description of the inputs.
        record: content of ``result.json``.
    """

    name: str
    mean: np.ndarray
    std: np.ndarray | None
    std_is: str
    interval: tuple[np.ndarray, np.ndarray] | None
    support: np.ndarray | None
    affine: np.ndarray
    spacing_mm: float
    measured: np.ndarray
    reprojected: np.ndarray
    truth: np.ndarray | None
    exam: Exam
    record: Record


class SaveReconstructions:
    """Handler that writes one folder per exam, with ``result.json`` and the files of the writers.

    A folder appears complete or not at all. It replaces an earlier result of the same files, but nothing else.

    Args:
        output_dir: parent of the folders.
        projector: projector of the result's geometry, for the re-projection.
        provenance: provenance of the volumes; see :func:`~scripts.results.record.provenance`.
        writers: writers, called in turn as ``writer(folder, result)``; see :mod:`scripts.results.writers`.
        std_temperature: factor on the standard deviation of several samples, from a calibration.
        error: prediction of the error, or None if none is known for these volumes.
        interval: level of the interval to save, or None.
        writing: where an engine's results are written; None for this process.
        support: finds the share of a volume that the films support, or None to leave it out.
        film_check: finds warnings about an exam's films, or None; see :class:`~scripts.exam.film_check.CheckFilms`.

    Raises:
        ValueError: the temperature is not positive, or an interval is wanted, but no prediction of the error is known,
            or the level is not one.
    """

    def __init__(
        self,
        output_dir: str | Path,
        projector: Projector,
        provenance: Mapping[str, Any],
        writers: Sequence[Callable[[Path, Result], None]] = (),
        std_temperature: float = 1.0,
        error: PredictsError | None = None,
        interval: float | None = None,
        writing: Writing | None = None,
        support: FindsSupport | None = None,
        film_check: Callable[[MetaTensor], Sequence[str]] | None = None,
    ) -> None:
        require_number(std_temperature=std_temperature)
        if not 0 < std_temperature < math.inf:
            raise ValueError(f"--std_temperature must be positive and finite, got {std_temperature}; 1 changes nothing")
        if interval is not None:
            _require_interval(interval, error)
        self.output_dir, self.projector = Path(output_dir), projector
        self.provenance, self.writers = dict(provenance), list(writers)
        self.std_temperature, self.error, self.interval = std_temperature, error, interval
        self.writing = writing or Writing()
        self.support, self.film_check = support, film_check
        self.started = time.perf_counter()

    def attach(self, engine: Engine) -> None:
        """Save after every iteration of ``engine``."""
        engine.add_event_handler(Events.ITERATION_STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def _start(self, engine: Engine) -> None:
        self.started = time.perf_counter()

    def __call__(self, engine: Engine) -> None:
        """Save every exam of the batch that ``engine`` has just reconstructed, in the processes of ``writing``."""
        state: Any = engine.state
        seconds = (time.perf_counter() - self.started) / len(state.output)
        pairs = [(item["image"], output["pred"]) for item, output in zip(state.batch, state.output, strict=True)]
        for folder, result in [self._result(image, samples, seconds) for image, samples in pairs]:
            self.writing.submit(folder, write_result, result, self.writers)

    def named(self, image: MetaTensor) -> Path:
        """Return the folder with the name of the exam of ``image``, which may hold the result of another exam."""
        return self.output_dir / safe_name(exam_of(image).name)

    def folder(self, image: MetaTensor) -> Path:
        """Return the folder for the exam of ``image``; see :func:`~scripts.results.place.place_of`."""
        return place_of(self.named(image), exam_of(image).files.values())

    def found(self, image: MetaTensor) -> Record | None:
        """Return the record of a complete earlier result of the same inputs and settings, or None if there is none."""
        folder = self.folder(image)
        record = read_record(folder / RESULT_FILE, self._settings(exam_of(image)))
        return record if record is not None and sizes(folder).items() >= record.files.items() else None

    def save(self, image: MetaTensor, samples: MetaTensor, seconds: float) -> Path:
        """Write the folder of one exam.

        Args:
            image: radiographs ``[2, N, N]`` in network units, with their exam.
            samples: volumes ``[K, U, V, W]`` in HU, with the affine.
            seconds: duration of the reconstruction.

        Returns:
            The folder.

        Raises:
            ValueError: the reconstruction holds NaN or infinity, or the folder exists and is not a result.
        """
        folder, result = self._result(image, samples, seconds)
        write_result(folder, result, self.writers)
        return folder

    def _result(self, image: MetaTensor, samples: MetaTensor, seconds: float) -> tuple[Path, Result]:
        folder, exam = self.folder(image), exam_of(image)
        hu = samples.as_tensor().float().cpu()
        if not torch.isfinite(hu).all():
            raise ValueError(f"{folder.name}: the reconstruction holds NaN or infinity and was not written")
        mean, spread = hu.mean(dim=0), hu.std(dim=0) if len(hu) > 1 else None
        std, interval = self._uncertainty(image, mean, spread)
        measured, reprojected = network_to_radiograph(image.as_tensor().float().cpu()), self._reproject(mean)
        truth = None if exam.truth is None else torch.from_numpy(read_volume(exam.truth)[0])
        misfit = _misfit(reprojected, measured, exam.views)
        record = Record(
            exam=exam.name,
            settings=self._settings(exam),
            inputs=exam.inputs,
            seconds=round(seconds, 3),
            reprojection_error=misfit,
            metrics={} if truth is None else self._metrics(mean, truth, measured),
            warnings=(*exam.warnings, *self._of_films(image), *warnings_of(spread, misfit)),
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        )
        return folder, Result(
            name=folder.name,
            mean=mean.numpy(),
            std=std,
            std_is=self._std_is(len(hu)),
            interval=interval,
            support=None if self.support is None else self.support(image.as_tensor(), mean),
            affine=samples.affine.cpu().numpy(),
            spacing_mm=self.projector.geometry.volume_spacing_mm,
            measured=measured.numpy(),
            reprojected=reprojected.numpy(),
            truth=None if truth is None else truth.numpy(),
            exam=exam,
            record=record,
        )

    def _of_films(self, image: MetaTensor) -> Sequence[str]:
        return () if self.film_check is None else self.film_check(image)

    def _uncertainty(
        self, image: MetaTensor, hu: Tensor, spread: Tensor | None
    ) -> tuple[np.ndarray | None, tuple[np.ndarray, np.ndarray] | None]:
        if self.error is not None:
            return self.error(image.as_tensor(), hu, self.interval)
        return (None if spread is None else (spread * self.std_temperature).numpy()), None

    def _std_is(self, samples: int) -> str:
        if self.error is not None:
            return "predicted standard deviation of the error"
        factor = f", times {self.std_temperature:g}" if self.std_temperature != 1 else ""
        return f"standard deviation of {samples} samples{factor}"

    def _metrics(self, hu: Tensor, truth: Tensor, measured: Tensor) -> dict[str, float | None]:
        device = self._device
        predicted, true = (hu_to_network(volume[None, None]).to(device) for volume in (hu, truth))
        found = measure(predicted, true, measured[None].to(device), self.projector)
        return {name: value if math.isfinite(value) else None for name, value in found.items()}

    def _settings(self, exam: Exam) -> Settings:
        return Settings(
            inputs_sha256=exam.files,
            truth_sha256=exam.truth_sha256,
            options=exam.options,
            views=exam.views,
            geometry=self.projector.geometry,
            std_temperature=self.std_temperature,
            interval=self.interval,
            writers=tuple(sorted(type(writer).__name__ for writer in self.writers)),
            provenance=self.provenance,
        )

    def _reproject(self, hu: Tensor) -> Tensor:
        return self.projector(hu_to_mu(hu[None, None]).to(self._device))[0].cpu()

    @property
    def _device(self) -> torch.device:
        return next(self.projector.buffers()).device


def write_result(folder: Path, result: Result, writers: Sequence[Callable[[Path, Result], None]]) -> None:
    """Write the folder of one exam, which appears complete or not at all: the writers' files and ``result.json``.

    Raises:
        ValueError: the folder exists and is not a result.
    """
    with whole_folder(folder, RESULT_FILE) as partial:
        for write in writers:
            write(partial, result)
        record = replace(result.record, files=sizes(partial))
        (partial / RESULT_FILE).write_text(strict_json(record.to_dict()) + "\n")
    logger.info("%s", folder)


def _require_interval(level: float, error: PredictsError | None) -> None:
    if error is None:
        raise ValueError(
            f"--interval {level}: no error is predicted for these weights, this sampling and this grid; use the "
            "shipped ones, a single sample, --grid_factor 1 or 2 and no --consistency, or fit your own with "
            "error_scale.json and intervals.json (docs/uncertainty.md)"
        )
    require_number(interval=level)
    if not 0 < level < 1:
        raise ValueError(f"--interval must be a probability between 0 and 1, got {level}; give 0.9, for instance")
    error.require_level(level)


def warnings_of(spread: Tensor | None, misfit: Mapping[str, float]) -> list[str]:
    """Return warnings for readers about a poor re-projection and about samples that disagree."""
    found = [
        f"the {view} re-projection differs from the input by {value:.1%} (relative L2; limit {MAX_MISFIT:.0%}); "
        "detail is not taken from films that no body explains: check their geometry, and what they leave out"
        for view, value in misfit.items()
        if value > MAX_MISFIT
    ]
    if spread is not None and (mean := float(spread.mean())) > MAX_SPREAD_HU:
        found.append(f"the samples disagree by {mean:.0f} HU on average")
    return found


def _misfit(reprojected: Tensor, measured: Tensor, views: Sequence[str]) -> dict[str, float]:
    """Return the relative L2 errors of re-projections to input line integrals ``[2, N, N]`` for the views used."""
    errors = (reprojected - measured).flatten(1).norm(dim=1) / measured.flatten(1).norm(dim=1)
    return {view: error for view, error in zip(VIEWS, errors.tolist(), strict=True) if view in views}
