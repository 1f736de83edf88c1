"""What a reconstruction leaves behind: a folder with the CT, its spread, and the record of how it was made."""

from __future__ import annotations

import json
import logging
import math
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import monai
import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.data import MetaTensor
from torch import Tensor, nn

from scripts.geometry import VIEWS
from scripts.intensity import hu_to_mu, hu_to_network, network_to_radiograph
from scripts.io.atomic import whole_folder
from scripts.io.digest import sha256
from scripts.io.names import safe_name
from scripts.io.nifti import read_volume
from scripts.io.text import strict_json
from scripts.metrics.protocol import measure

logger = logging.getLogger(__name__)
NOTICE = "Synthetic volume estimated from {}. Research only; NOT FOR DIAGNOSTIC USE."
RECORD_FILE = "result.json"
_DIFFERS_BY_RUN = ("device", "software")
"""What of the provenance may differ between two runs whose results are the same to a reader."""


@dataclass(frozen=True, eq=False)
class Result:
    """One reconstruction, as the writers get it.

    Attributes:
        name: of the exam, fit for a file name.
        mean: HU ``[U, V, W]`` float32, of several samples their mean.
        std: their voxel-wise standard deviation, or None for a single sample.
        affine: RAS voxel-to-mm ``[4, 4]``.
        spacing_mm: of the voxels.
        measured: line integrals ``[2, N, N]`` that the network saw; 0 for a view that was not given.
        reprojected: those of ``mean``.
        truth: the CT ``[U, V, W]`` in HU, or None where it is not known.
        films: by view, the radiographs ``[rows, columns]`` as they were read; empty where line integrals were given.
        exam: what :class:`~scripts.exam.load.LoadExamd` found out about the inputs.
        record: what ``result.json`` says.
    """

    name: str
    mean: np.ndarray
    std: np.ndarray | None
    affine: np.ndarray
    spacing_mm: float
    measured: np.ndarray
    reprojected: np.ndarray
    truth: np.ndarray | None
    films: Mapping[str, np.ndarray]
    exam: Mapping[str, Any]
    record: Mapping[str, Any]


class SaveReconstructions:
    """Writes one folder per exam: ``result.json`` and whatever the writers add.

    A folder appears whole or not at all, and replaces an earlier result of the same exam, but nothing else.

    Args:
        output_dir: parent of the folders.
        projector: line integrals of a volume in the network's geometry, for the re-projection.
        provenance: how the volumes are made; see :func:`provenance`.
        writers: called as ``writer(folder, result)`` in turn; see :mod:`scripts.results.writers`.
        std_temperature: factor on the standard deviation, from a calibration.
    """

    def __init__(
        self,
        output_dir: str | Path,
        projector: nn.Module,
        provenance: Mapping[str, Any],
        writers: Sequence[Callable[[Path, Result], None]] = (),
        std_temperature: float = 1.0,
    ) -> None:
        self.output_dir, self.projector = Path(output_dir), projector
        self.provenance, self.writers = dict(provenance), list(writers)
        self.std_temperature = std_temperature
        self.started = time.perf_counter()

    def attach(self, engine: Engine) -> None:
        """Save after every iteration of ``engine``."""
        engine.add_event_handler(Events.ITERATION_STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def _start(self, engine: Engine) -> None:
        self.started = time.perf_counter()

    def __call__(self, engine: Engine) -> None:
        """Save every exam of the batch that ``engine`` has just reconstructed."""
        seconds = (time.perf_counter() - self.started) / len(engine.state.output)
        for item, output in zip(engine.state.batch, engine.state.output, strict=True):
            folder = self.save(item["image"], output["pred"], seconds)
            logger.info("%s", folder)

    def folder(self, image: MetaTensor) -> Path:
        """Where the exam of ``image`` goes."""
        return self.output_dir / safe_name(str(image.meta["name"]))

    def found(self, image: MetaTensor) -> dict[str, Any] | None:
        """The record of an earlier result that the same inputs and settings gave; None if there is none."""
        try:
            record = json.loads((self.folder(image) / RECORD_FILE).read_text())
        except (OSError, ValueError):
            return None
        expected = json.loads(strict_json(self._settings(exam_of(image))))
        comparable = {k: v for k, v in expected.items() if k not in _DIFFERS_BY_RUN}
        return record if {k: record.get(k) for k in comparable} == comparable else None

    def save(self, image: MetaTensor, samples: MetaTensor, seconds: float) -> Path:
        """Write the folder of one exam.

        Args:
            image: radiographs ``[2, N, N]`` in network units, with the exam's ``meta``.
            samples: volumes ``[K, U, V, W]`` in HU, with the affine.
            seconds: time the reconstruction took.

        Returns:
            The folder.

        Raises:
            ValueError: the reconstruction holds NaN or infinity, or the folder is something else than a result.
        """
        folder = self.folder(image)
        hu = samples.as_tensor().float().cpu()
        if not torch.isfinite(hu).all():
            raise ValueError(f"{folder.name}: the reconstruction holds NaN or infinity; nothing was written for it")
        result = self._result(folder.name, image, hu, samples.affine.cpu().numpy(), seconds)
        with whole_folder(folder, RECORD_FILE) as partial:
            (partial / RECORD_FILE).write_text(strict_json(result.record) + "\n")
            for write in self.writers:
                write(partial, result)
        return folder

    def _result(self, name: str, image: MetaTensor, hu: Tensor, affine: np.ndarray, seconds: float) -> Result:
        exam, mean = exam_of(image), hu.mean(dim=0)
        spread = hu.std(dim=0) if len(hu) > 1 else None
        std = None if spread is None else spread * self.std_temperature
        measured, reprojected = network_to_radiograph(image.as_tensor().float().cpu()), self._reproject(mean)
        truth = None if exam["truth"] is None else torch.from_numpy(read_volume(exam["truth"])[0])
        errors = ((reprojected - measured).flatten(1).norm(dim=1) / measured.flatten(1).norm(dim=1)).tolist()
        views = exam["views"]
        misfit = {view: error for view, error in zip(VIEWS, errors, strict=True) if view in views}
        record = {
            "notice": NOTICE.format("two radiographs" if len(views) > 1 else f"the {views[0]} radiograph alone"),
            "exam": str(image.meta["name"]),
            **self._settings(exam),
            "inputs": exam["inputs"],
            "seconds": round(seconds, 3),
            "reprojection_error": misfit,
            "reprojection_error_is": "relative L2 to the input line integrals; necessary, not sufficient",
            "metrics": {} if truth is None else self._metrics(mean, truth, measured),
            "warnings": [*exam["warnings"], *warnings_of(spread, misfit)],
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }
        return Result(
            name=name,
            mean=mean.numpy(),
            std=None if std is None else std.numpy(),
            affine=affine,
            spacing_mm=self.projector.geometry.volume_spacing_mm,
            measured=measured.numpy(),
            reprojected=reprojected.numpy(),
            truth=None if truth is None else truth.numpy(),
            films={view: np.asarray(image.meta[key]) for view in VIEWS if (key := f"film_{view}") in image.meta},
            exam=exam,
            record=record,
        )

    def _metrics(self, hu: Tensor, truth: Tensor, measured: Tensor) -> dict[str, float | None]:
        device = next(self.projector.buffers()).device
        volumes = (hu_to_network(volume[None, None]).to(device) for volume in (hu, truth))
        found = measure(*volumes, measured[None].to(device), self.projector)
        return {name: value if math.isfinite(value) else None for name, value in found.items()}

    def _settings(self, exam: Mapping[str, Any]) -> dict[str, Any]:
        """What decides the result: equal settings and inputs give an equal volume, and an equal truth equal metrics."""
        return {
            "inputs_sha256": exam["files"],
            "truth_sha256": exam["truth"] and sha256(exam["truth"]),
            "options": exam["options"],
            "views": exam["views"],
            "geometry": asdict(self.projector.geometry),
            "std_temperature": self.std_temperature,
            "writers": sorted(type(writer).__name__ for writer in self.writers),
            **self.provenance,
        }

    def _reproject(self, hu: Tensor) -> Tensor:
        device = next(self.projector.buffers()).device
        return self.projector(hu_to_mu(hu[None, None]).to(device))[0].cpu()


def exam_of(image: MetaTensor) -> dict[str, Any]:
    """What is known of the inputs; it travels through MONAI's collation as JSON text."""
    return json.loads(image.meta["exam"])


def warnings_of(spread: Tensor | None, misfit: Mapping[str, float], limit: float = 0.1) -> list[str]:
    """What a reader of the result should be told: a poor re-projection (beyond ``limit``), or samples that disagree."""
    found = [
        f"the {view} re-projection differs from the input by {value:.1%} (relative L2; limit {limit:.0%})"
        for view, value in misfit.items()
        if value > limit
    ]
    if spread is not None and (mean := float(spread.mean())) > 200:
        found.append(f"the samples disagree by {mean:.0f} HU on average")
    return found


def provenance(bundle_root: str | Path, weights: str | Path, **choices: Any) -> dict[str, Any]:
    """How a run makes its volumes: bundle version, weights, sampler, seed and software.

    Args:
        bundle_root: folder with ``configs/metadata.json``.
        weights: file that was loaded.
        choices: sampler, steps, seed and whatever else decides the result; one that is None does not apply.
    """
    metadata = json.loads((Path(bundle_root) / "configs" / "metadata.json").read_text())
    return {
        "bundle": {"name": metadata["name"], "version": metadata["version"]},
        "weights_sha256": sha256(weights),
        **{k: v if isinstance(v, (int, float, bool)) else str(v) for k, v in choices.items() if v is not None},
        "software": {"python": platform.python_version(), "torch": torch.__version__, "monai": monai.__version__},
    }
