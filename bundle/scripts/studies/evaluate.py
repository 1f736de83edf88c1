"""Evaluation of a method and its baselines by the same metrics, on the same cases, in one run."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from ignite.engine import Engine, Events
from monai.engines import IterationEvents
from torch import Tensor, nn

from scripts.intensity import network_to_hu, network_to_radiograph
from scripts.io.processes import gathered
from scripts.metrics.perceptual import NOTES as PERCEPTUAL_NOTES
from scripts.metrics.perceptual import Perceptual, SliceFeatures
from scripts.metrics.protocol import NOTES, measure
from scripts.metrics.tables import SINGLE, Statistic, Summary, summarise, to_markdown
from scripts.resolution import coarsened
from scripts.studies.account import Account, named
from scripts.studies.summary import Text

SPREAD_NOTE = (
    "`spread_hu`: the standard deviation of the samples, averaged over the volume; only where there are several."
)


class Estimate(NamedTuple):
    """Volumes ``[B, 1, U, V, W]`` in network range, with their method, kind of estimate, and seconds per volume.

    ``spread_hu [B]`` is the samples' standard deviation, averaged over the volume, for a mean of samples; else NaN.
    """

    method: str
    estimate: str
    volumes: Tensor
    seconds: float
    spread_hu: Tensor


class CompareMethods:
    """Handler that measures the predictions of the evaluator and of baselines, case by case, and writes the tables.

    The primary estimate is a ``single`` volume, the first of several samples. Their mean is measured separately:
    averaging raises PSNR and lowers sharpness, so the two are never mixed. If one method fails on a case, the case is
    excluded for all, so that all are compared on the same cases.

    :meth:`finish` writes to ``output_dir``, each file atomically: ``cases.csv`` (a row per case, method and estimate),
    ``summary.csv`` and ``summary.json`` (mean, standard deviation, n) and ``summary.md``.

    MONAI's ``MetricsSaver`` is not used: it writes one file per metric, and supports only one method.

    Args:
        output_dir: output folder, created if needed.
        projector: maps attenuation in 1/mm to line integrals, in the geometry of the cases; ``factor`` times as coarse.
        method: name of the evaluator's network in the tables.
        baselines: further networks by name, called as ``network(image)`` for volumes ``[B, 1, U, V, W]``.
        failures: errors of cases that have already failed, by name.
        settings: JSON-ready facts about the run, for the summaries.
        lpips: measure of every case; by default nothing is measured, and its columns stay empty.
        fid: measure of all cases together, only in the summaries; by default nothing is measured.
        factor: voxels and pixels per side that are averaged before measuring.
    """

    def __init__(
        self,
        output_dir: str | Path,
        projector: nn.Module,
        method: str,
        baselines: Mapping[str, nn.Module],
        failures: Mapping[str, str],
        settings: Mapping[str, Any],
        lpips: Perceptual | None = None,
        fid: SliceFeatures | None = None,
        factor: int = 1,
    ) -> None:
        if method in baselines:
            raise ValueError(f"method {method!r} is also the name of a baseline; choose another with --method")
        self.output_dir, self.projector = Path(output_dir), projector
        self.method, self.baselines = method, {name: network.eval() for name, network in baselines.items()}
        self.account, self.settings = Account(failures), dict(settings)
        self.lpips, self.fid = lpips or Perceptual(), fid or SliceFeatures()
        self.factor = factor
        self.started = self.seconds = 0.0

    def attach(self, engine: Engine) -> None:
        """Measure after every iteration of ``engine``, a MONAI evaluator with ``decollate=False``."""
        engine.add_event_handler(Events.ITERATION_STARTED, self._start)
        engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self._stop)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._publish)

    @torch.no_grad()
    def __call__(self, engine: Engine) -> None:
        """Measure every case of the batch that ``engine`` has just reconstructed."""
        state: Any = engine.state  # MONAI's evaluator adds attributes
        image, target, samples = (state.output[key].float() for key in ("image", "label", "pred"))
        estimates = [e._replace(volumes=coarsened(e.volumes, self.factor)) for e in self._estimates(image, samples)]
        target, image = coarsened(target, self.factor), coarsened(image, self.factor)
        projector, line_integrals = self.projector.to(image.device), network_to_radiograph(image)
        for i, case in enumerate(state.batch["name"]):
            one = slice(i, i + 1)
            with self.account.case(case), named(case):
                rows = [
                    {"case": case, "method": e.method, "estimate": e.estimate}
                    | measure(e.volumes[one], target[one], line_integrals[one], projector)
                    | self.lpips.measure(e.volumes[one], target[one])
                    | {"spread_hu": float(e.spread_hu[i]), "seconds": e.seconds}
                    for e in estimates
                ]
                self.fid.add(target[one], {(e.method, e.estimate): e.volumes[one] for e in estimates})
                self.account.rows += rows

    def finish(self) -> None:
        """Write the tables of the cases of all processes and print the summary.

        Raises:
            ValueError: no case was measured.
            SomeFailed: some cases failed.
        """
        self.account.gather()
        self.fid.join(gathered(self.fid.features))
        self.account.require(self.account.rows, "no case could be evaluated")
        text = Text(
            f"Evaluation of {self.method}",
            "Mean ± standard deviation over cases.",
            (*NOTES, SPREAD_NOTE, *PERCEPTUAL_NOTES),
        )
        summary = self._summary()
        self.account.publish(self.output_dir, text, self.settings, summary, to_markdown(summary))
        self.account.close()

    def _summary(self) -> Summary:
        """Return the statistics over cases, and FID, which is computed over all cases together."""
        distances, cases = self.fid.finish(), self.account.measured
        return {
            key: statistics | {name: _of_all(value, cases) for name, value in distances[key].items()}
            for key, statistics in summarise(self.account.rows).items()
        }

    def _estimates(self, image: Tensor, samples: Tensor) -> list[Estimate]:
        seconds, count = self.seconds / len(image), samples.shape[1]
        none = torch.full((len(image),), math.nan)
        estimates = [Estimate(self.method, SINGLE, samples[:, :1], seconds / count, none)]
        if count > 1:
            mean, spread_hu = samples.mean(dim=1, keepdim=True), network_to_hu(samples).std(dim=1).flatten(1).mean(1)
            estimates.append(Estimate(self.method, f"mean of {count} samples", mean, seconds, spread_hu))
        for name, network in self.baselines.items():
            volumes, elapsed = _timed(network.to(image.device), image)
            estimates.append(Estimate(name, SINGLE, volumes, elapsed / len(image), none))
        return estimates

    def _start(self, engine: Engine) -> None:
        self.started = _now(_device(engine))

    def _stop(self, engine: Engine) -> None:
        self.seconds = _now(_device(engine)) - self.started

    def _publish(self, engine: Engine) -> None:
        """Set the method's means as the engine's metrics, for its loggers."""
        statistics = summarise(self.account.rows).get((self.method, SINGLE), {})
        engine.state.metrics |= {metric: statistic.mean for metric, statistic in statistics.items()}


def _of_all(value: float, cases: int) -> Statistic:
    return Statistic(value, math.nan, 0 if math.isnan(value) else cases)


def _timed(network: Callable[[Tensor], Tensor], image: Tensor) -> tuple[Tensor, float]:
    started = _now(image.device)
    volumes = network(image)
    return volumes, _now(image.device) - started


def _device(engine: Engine) -> torch.device:
    state: Any = engine.state
    return state.device


def _now(device: torch.device) -> float:
    """Return the time in seconds after synchronising the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
