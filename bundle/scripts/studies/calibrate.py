"""The calibration study: whether the spread of samples predicts the error of their mean, and a corrective factor."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.inferers import Inferer
from torch import Tensor, nn

from scripts.inference.measured import prepare_measured
from scripts.intensity import NETWORK_HU_RANGE, hu_to_network, network_to_hu
from scripts.io.atomic import require_writable
from scripts.io.processes import gathered, is_first
from scripts.metrics.calibration import (
    CURVE_LEVELS,
    NOTES,
    Spread,
    coverage,
    fit_temperature,
    measure_calibration,
    spread_of,
)
from scripts.metrics.tables import summarise, to_markdown
from scripts.studies.account import Account
from scripts.studies.summary import Text

RAW, TEMPERED = "raw", "tempered"
BODY, EVERYWHERE = "body", "everywhere"
TEXT = Text(
    "Calibration",
    "Mean ± standard deviation over cases. *raw* uses the samples' standard deviation, *tempered* multiplies it by the "
    "temperature below. Truth and samples are clipped to [{:g}, {:g}] HU.".format(*NETWORK_HU_RANGE),
    NOTES,
)


class Voxels(NamedTuple):
    """Voxels of one case in HU: samples ``[K, N]`` and truth ``[N]``."""

    samples: Tensor
    truth: Tensor

    @property
    def spread(self) -> Spread:
        """Return the error of the samples' mean and their standard deviation."""
        return spread_of(*self)


class CalibrationStudy:
    """Study that fits a temperature on one split and measures coverage on another, without and with it.

    The temperature is fitted in the bodies of the first split's cases, with equal weight for every voxel; see
    :func:`~scripts.metrics.calibration.fit_temperature`. The study then measures the second split's cases, in their
    bodies and everywhere.

    It writes to ``output_dir``, each file atomically: ``cases.csv`` (a row per case, temperature and region),
    ``summary.csv`` and ``summary.json`` (mean, standard deviation, n; the temperature), ``summary.md`` and
    ``reliability.png``.

    Args:
        network: network that makes the samples through ``inferer``.
        inferer: ``inferer(image, network)`` returns samples ``[1, K, U, V, W]`` in network range, K at least 2.
        device: device of the network.
        fit_split: name of the split to fit on.
        fitting: cases of that split, with ``name``, ``line_integrals`` and ``hu``.
        split: name of the split to measure.
        measured: cases of that split, with the same entries.
        failures: errors of cases of either split that have already failed, by name.
        body: maps true HU ``[U, V, W]`` to the patient's voxels ``[U, V, W]``.
        output_dir: output folder, created if needed.
        settings: JSON-ready facts about the run, for the summaries.
        draw: draws the picture: ``draw(path, levels, coverages, title)``; None for no picture.
        prepare: makes the network's image from a batch, and a target that is not used.

    Raises:
        ValueError: the splits are the same.
    """

    def __init__(
        self,
        network: nn.Module,
        inferer: Inferer,
        device: torch.device,
        fit_split: str,
        fitting: Iterable[Mapping[str, Any]],
        split: str,
        measured: Iterable[Mapping[str, Any]],
        failures: Mapping[str, str],
        body: Callable[[np.ndarray], np.ndarray],
        output_dir: str | Path,
        settings: Mapping[str, Any],
        draw: Callable[..., None] | None = None,
        prepare: Callable[..., tuple[Tensor, Tensor | None]] = prepare_measured,
    ) -> None:
        if fit_split == split:
            raise ValueError(f"split {split!r} is both fitted on and measured; choose another --fit_split or --split")
        self.network, self.inferer, self.device, self.body = network.eval(), inferer, device, body
        self.fit_split, self.fitting, self.split, self.measured = fit_split, fitting, split, measured
        self.account, self.settings = Account(failures), dict(settings)
        self.output_dir, self.draw, self.prepare = Path(output_dir), draw, prepare
        require_writable(self.output_dir)

    def __call__(self) -> None:
        """Sample all cases, write the tables and the picture, and print the summary.

        Raises:
            ValueError: no case could be fitted, or none measured.
            SomeFailed: some cases failed.
        """
        sampled = {name: voxels[BODY].spread for name, voxels in self._sample(self.fit_split, self.fitting)}
        fitted = {name: spread for share in gathered(sampled) for name, spread in share.items()}
        temperature = self._fit(list(fitted.values()))
        factors = {RAW: 1.0, TEMPERED: temperature}
        curves: dict[str, list[list[float]]] = {method: [] for method in factors}
        for name, voxels in self._sample(self.split, self.measured):
            self.account.rows += [
                {"case": name, "method": method, "estimate": region} | measure_calibration(*chosen, factor)
                for region, chosen in voxels.items()
                for method, factor in factors.items()
            ]
            for method, factor in factors.items():
                curves[method].append(coverage(voxels[BODY].spread.tempered(factor), CURVE_LEVELS))
        self.account.gather()
        curves = {method: [curve for share in gathered(curves) for curve in share[method]] for method in factors}
        self._require(self.account.rows, self.split)
        of_each = {name: fit_temperature([spread]) for name, spread in fitted.items()}
        self._publish(temperature, {name: value if math.isfinite(value) else None for name, value in of_each.items()})
        if self.draw is not None and is_first():
            title = f"{len(curves[RAW])} {self.split} cases, voxels in the body; temperature {temperature:.2f}"
            self.draw(self.output_dir / "reliability.png", CURVE_LEVELS, curves, title)
        self.account.close()

    def _sample(self, split: str, cases: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, dict[str, Voxels]]]:
        """Yield name and voxels by region of every case."""
        return self.account.each(cases, f"sample {split}", self._voxels)

    def _voxels(self, case: Mapping[str, Any]) -> dict[str, Voxels]:
        """Return samples and truth in the body and everywhere, on the CPU."""
        batch = {key: case[key][None] for key in ("line_integrals", "hu")}
        image, _ = self.prepare(batch, self.device)
        samples = network_to_hu(self.inferer(image, self.network)[0].float()).flatten(1).cpu()
        if not torch.isfinite(samples).all():
            raise ValueError("the samples hold NaN or infinity; check the weights, or switch --amp off")
        truth = network_to_hu(hu_to_network(batch["hu"].to(self.device))).flatten().cpu()
        body = torch.from_numpy(self.body(case["hu"][0].numpy())).flatten()
        return {BODY: Voxels(samples[:, body], truth[body]), EVERYWHERE: Voxels(samples, truth)}

    def _fit(self, spreads: list[Spread]) -> float:
        self._require(spreads, self.fit_split)
        temperature = fit_temperature(spreads)
        if not 0 < temperature < math.inf:
            raise ValueError(
                f"no temperature fits split {self.fit_split!r}: the samples are all the same, or the truth itself, in "
                "too many voxels; choose a sampler or weights whose samples vary"
            )
        return temperature

    def _require(self, found: Collection[Any], split: str) -> None:
        self.account.require(found, f"no case of split {split!r} could be used")

    def _publish(self, temperature: float, of_each: Mapping[str, float | None]) -> None:
        summary = summarise(self.account.rows)
        facts = {"temperature": temperature, "temperature_of_each_fitted_case_alone": of_each, **self.settings}
        headline = (
            f"temperature {temperature:.3f}, fitted on {self.fit_split}; {self.account.measured} {self.split} cases "
            "measured"
        )
        self.account.publish(self.output_dir, TEXT, facts, summary, to_markdown(summary), headline)
