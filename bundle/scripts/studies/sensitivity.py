"""The sensitivity study: the loss of accuracy if radiographs deviate from the network's assumptions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.inferers import Inferer
from torch import Tensor, nn
from tqdm import tqdm

from scripts.geometry import VIEWS, BiplanarGeometry
from scripts.inference.measured import KeepViews
from scripts.intensity import hu_to_network
from scripts.io.atomic import require_writable
from scripts.metrics.protocol import DATA_RANGE
from scripts.metrics.tables import SINGLE, Summary, summarise
from scripts.metrics.volume import psnr, ssim3d
from scripts.physics.detector import expose
from scripts.physics.raymarch import RayMarchProjector, rotate_pose, view_pose
from scripts.studies.account import Account, named
from scripts.studies.summary import Text
from scripts.training.prepare_batch import PrepareSimulated

TEXT = Text("Sensitivity", "Means over cases; all radiographs are simulated from the prepared CT by one ray march.")
UNPERTURBED = "unperturbed"
METRICS = {"psnr3d_db": psnr, "ssim3d": ssim3d}


class Perturbed(nn.Module):
    """Projector of radiographs that deviate from the network's assumptions.

    Args:
        projector: maps mu in 1/mm to line integrals, in the true poses.
        gain: factor on all line integrals, as from another beam energy.
        exposure: factor on the open beam.
    """

    def __init__(self, projector: nn.Module, gain: float = 1.0, exposure: float = 1.0) -> None:
        super().__init__()
        self.projector, self.gain, self.exposure = projector, gain, exposure

    def forward(self, mu: Tensor) -> Tensor:
        """Return line integrals ``[B, 2, N, N]`` of ``mu [B, 1, U, V, W]``."""
        return expose(self.gain * self.projector(mu), self.exposure)


def perturbations(
    geometry: BiplanarGeometry,
    device: torch.device,
    turns_deg: Sequence[float],
    exposures: Sequence[float],
    gains: Sequence[float],
) -> dict[str, Perturbed]:
    """Return single perturbations by name, the unperturbed radiographs first, all by the same ray march.

    Args:
        geometry: geometry that the network assumes.
        device: device of the projections.
        turns_deg: rotations of the lateral view, and of both views as if the patient were turned, right-handed about w.
        exposures: factors on the open beam.
        gains: factors on the line integrals.
    """
    straight = RayMarchProjector(geometry).to(device)
    found = {UNPERTURBED: Perturbed(straight)}
    for name, turned in (("lateral view", VIEWS[1:]), ("both views", VIEWS)):
        for turn in turns_deg:
            frontal, lateral = (
                rotate_pose(view_pose(geometry, view), (0.0, 0.0, math.radians(turn) if view in turned else 0.0))
                for view in VIEWS
            )
            projector = RayMarchProjector(geometry, (frontal, lateral)).to(device)
            found[f"{name} turned by {turn:+g} deg"] = Perturbed(projector)
    found |= {f"exposure x {factor:.3g}": Perturbed(straight, exposure=factor) for factor in exposures}
    return found | {f"gain x {factor:.3g}": Perturbed(straight, gain=factor) for factor in gains}


class SensitivityStudy:
    """Study that reconstructs every case from radiographs of its CT, unperturbed and perturbed, with the same seed.

    The tables of :func:`~scripts.studies.summary.write_tables` in ``output_dir`` have a row per case and perturbation,
    and statistics over the cases, including differences from the unperturbed radiographs.

    Args:
        network: network that makes the volumes through ``inferer``.
        inferer: ``inferer(image, network)`` returns volumes ``[1, K, U, V, W]`` in network range; the first is used.
        device: device of the network.
        perturbations: maps from mu in 1/mm to line integrals ``[1, 2, N, N]`` by name, including the unperturbed one.
        views: views that the network sees.
        cases: cases with ``name`` and ``hu``.
        failures: errors of cases that have already failed, by name.
        output_dir: output folder, created if needed.
        settings: facts about the run.
    """

    def __init__(
        self,
        network: nn.Module,
        inferer: Inferer,
        device: torch.device,
        perturbations: Mapping[str, nn.Module],
        views: Sequence[str],
        cases: Iterable[Mapping[str, Any]],
        failures: Mapping[str, str],
        output_dir: str | Path,
        settings: Mapping[str, Any],
    ) -> None:
        self.network, self.inferer, self.device = network.eval(), inferer, device
        self.prepare = {name: KeepViews(views, PrepareSimulated(seen)) for name, seen in perturbations.items()}
        self.cases, self.account, self.settings = cases, Account(failures), dict(settings)
        self.output_dir = Path(output_dir)
        require_writable(self.output_dir)

    def __call__(self) -> None:
        """Reconstruct, write the tables and print the summary.

        Raises:
            ValueError: no case could be used.
            SomeFailed: some cases failed.
        """
        for case in tqdm(self.cases, desc="sensitivity", unit="case"):
            with self.account.case(case["name"]), named(case["name"]):
                self.account.rows += self._measure(case)
        self.account.require(self.account.rows, "no case could be used")
        summary = summarise(self.account.rows)
        self.account.publish(self.output_dir, TEXT, self.settings, summary, _table(summary))
        self.account.close()

    def _measure(self, case: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return a row per perturbation."""
        measured, hu = {}, case["hu"][None]
        target = hu_to_network(hu.to(self.device))
        for name, prepare in self.prepare.items():
            image, _ = prepare({"hu": hu}, self.device)
            volume = self.inferer(image, self.network)[:, :1].float()
            if not torch.isfinite(volume).all():
                raise ValueError("the volume holds NaN or infinity; check the weights, or switch --amp off")
            measured[name] = {metric: of(volume, target, DATA_RANGE).item() for metric, of in METRICS.items()}
        usual = measured[UNPERTURBED]
        return [
            {"case": case["name"], "method": name, "estimate": SINGLE}
            | values
            | {f"{metric}_change": value - usual[metric] for metric, value in values.items()}
            for name, values in measured.items()
        ]


def _table(summary: Summary) -> str:
    lines = ["| radiographs | PSNR3D (dB) | change | SSIM3D | change |", "| --- | ---: | ---: | ---: | ---: |"]
    for (name, _), found in summary.items():
        value, change, similarity, its_change = (
            found[key].mean for metric in METRICS for key in (metric, f"{metric}_change")
        )
        lines.append(f"| {name} | {value:.2f} | {change:+.2f} | {similarity:.3f} | {its_change:+.3f} |")
    return "\n".join(lines)
