"""The study of error intervals: fits them on one split, and measures their coverage on another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from scripts.inference.intervals import PROBABILITIES, fit_intervals
from scripts.inference.measured import prepare_measured
from scripts.intensity import HU_PER_UNIT, NETWORK_HU_RANGE, network_to_hu
from scripts.io.atomic import require_writable
from scripts.metrics.calibration import CURVE_LEVELS
from scripts.metrics.coverage import NOTES, coverage_curves, measure_intervals
from scripts.metrics.tables import summarise, to_markdown
from scripts.metrics.volume import TISSUES_HU
from scripts.studies.account import Account
from scripts.studies.summary import Text

TEXT = Text(
    "Error intervals",
    "Mean ± standard deviation over cases. Truth and volumes are clipped to [{:g}, {:g}] HU.".format(*NETWORK_HU_RANGE),
    NOTES,
)


class Voxels(NamedTuple):
    """Voxels ``[N]`` in the body of one case, in HU: reconstruction, predicted scale of its error, and truth."""

    hu: np.ndarray
    scale: np.ndarray
    truth: np.ndarray

    @property
    def regions(self) -> dict[str, np.ndarray]:
        """Return the masks ``[N]`` of the reliability diagram by name."""
        bone_hu = TISSUES_HU["bone"][0]
        return {
            "body": np.ones(self.truth.shape, dtype=bool),
            "bone in the reconstruction": self.hu >= bone_hu,
            "bone in the truth": self.truth >= bone_hu,
        }


class IntervalStudy:
    """Study that fits quantiles of error / scale in the bodies of one split's cases, and measures another split.

    It writes ``intervals.json``, which reconstructions use, ``cases.csv``, ``summary.csv``, ``summary.json``,
    ``summary.md`` and the picture ``reliability.png`` to ``output_dir``, each atomically.

    Args:
        network: network that predicts the scale.
        inferer: ``inferer(image, network)`` returns volume and scale ``[1, 2, U, V, W]`` in network range.
        device: device of the network.
        fit_split: name of the split to fit on.
        fitting: cases of that split, with ``name``, ``line_integrals`` and ``hu``.
        split: name of the split to measure.
        measured: cases of that split, with the same entries.
        failures: errors of cases of either split that have already failed, by name.
        body: maps true HU ``[U, V, W]`` to the patient's voxels.
        output_dir: output folder, created if needed.
        valid_for: provenance that a reconstruction must have for the intervals to hold.
        settings: JSON-ready facts about the run, for the summaries.
        draw: draws the picture: ``draw(path, levels, coverages, title)``.
        prepare: makes the network's image from a batch, and a target that is not used.

    Raises:
        ValueError: the splits are the same.
    """

    def __init__(
        self,
        network: nn.Module,
        inferer: Callable[[Tensor, nn.Module], Tensor],
        device: torch.device,
        fit_split: str,
        fitting: Iterable[Mapping[str, Any]],
        split: str,
        measured: Iterable[Mapping[str, Any]],
        failures: Mapping[str, str],
        body: Callable[[np.ndarray], np.ndarray],
        output_dir: str | Path,
        valid_for: Mapping[str, Any],
        settings: Mapping[str, Any],
        draw: Callable[..., None],
        prepare: Callable[..., tuple[Tensor, Tensor | None]] = prepare_measured,
    ) -> None:
        if fit_split == split:
            raise ValueError(f"split {split!r} is both fitted on and measured; choose another --fit_split or --split")
        self.network, self.inferer, self.device, self.body = network.eval(), inferer, device, body
        self.fit_split, self.fitting, self.split, self.measured = fit_split, fitting, split, measured
        self.account, self.output_dir = Account(failures), Path(output_dir)
        require_writable(self.output_dir)
        self.valid_for, self.settings = dict(valid_for), dict(settings)
        self.draw, self.prepare = draw, prepare

    def __call__(self) -> None:
        """Fit, measure, write the files, and print the summary.

        Raises:
            ValueError: no case could be fitted, or none measured.
            SomeFailed: some cases failed.
        """
        fitting = [voxels for _, voxels in self._reconstruct(self.fit_split, self.fitting)]
        self.account.require(fitting, f"no case of split {self.fit_split!r} could be used")
        hu, scale, truth = zip(*fitting, strict=True)
        intervals = fit_intervals(hu, scale, truth, self.valid_for)
        self.output_dir.mkdir(parents=True, exist_ok=True)
        intervals.write(self.output_dir / "intervals.json")
        curves: dict[str, list[list[float]]] = {}
        for name, voxels in self._reconstruct(self.split, self.measured):
            known = intervals.of(voxels.hu, voxels.scale)
            measures = measure_intervals(
                known.bounds, known.quantile, known.std, voxels.hu, voxels.truth, PROBABILITIES
            )
            self.account.rows.append({"case": name, "method": "intervals", "estimate": "body"} | measures)
            regions = {region: mask for region, mask in voxels.regions.items() if mask.any()}
            for region, curve in coverage_curves(known.bounds, voxels.truth, regions, CURVE_LEVELS).items():
                curves.setdefault(region, []).append(curve)
        self.account.require(self.account.rows, f"no case of split {self.split!r} could be used")
        summary = summarise(self.account.rows)
        headline = f"fitted on {self.fit_split}; {self.account.measured} {self.split} cases measured"
        self.account.publish(self.output_dir, TEXT, self.settings, summary, to_markdown(summary), headline)
        title = f"{self.account.measured} {self.split} cases, fitted on {self.fit_split}"
        self.draw(self.output_dir / "reliability.png", CURVE_LEVELS, curves, title)
        self.account.close()

    def _reconstruct(self, split: str, cases: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, Voxels]]:
        """Yield name and voxels of every case."""
        return self.account.each(cases, f"reconstruct {split}", self._voxels)

    @torch.no_grad()
    def _voxels(self, case: Mapping[str, Any]) -> Voxels:
        image, _ = self.prepare({"line_integrals": case["line_integrals"][None]}, self.device)
        volume, scale = self.inferer(image, self.network)[0].double().cpu().numpy()
        if not (np.isfinite(volume).all() and np.isfinite(scale).all()):
            raise ValueError("the reconstruction or its scale holds NaN or infinity; check the weights")
        truth = case["hu"][0]
        body = self.body(truth.numpy())
        true_hu = truth.clamp(*NETWORK_HU_RANGE).double().numpy()
        hu = network_to_hu(torch.from_numpy(volume)).numpy()
        return Voxels(hu[body], HU_PER_UNIT * scale[body], true_hu[body])
