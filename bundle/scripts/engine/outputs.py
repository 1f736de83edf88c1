"""What a reconstruction leaves behind: the CT, its spread, a picture and the record of how it was made."""

from __future__ import annotations

import json
import logging
import os
import platform
import re
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import monai
import torch
from ignite.engine import Engine, Events
from monai.data import MetaTensor
from torch import Tensor, nn

from scripts.intensity import hu_to_mu, network_to_radiograph
from scripts.io.digest import sha256
from scripts.io.nifti import write_volume

logger = logging.getLogger(__name__)
NOTICE = "Synthetic volume estimated from two radiographs. Research only; NOT FOR DIAGNOSTIC USE."


class SaveReconstructions:
    """Writes one folder per exam: ``ct.nii.gz``, ``result.json``, ``figure.png``, and ``std.nii.gz`` if sampled often.

    With several samples ``ct.nii.gz`` is their mean and ``std.nii.gz`` their voxel-wise standard deviation, both in HU.
    A folder appears whole or not at all, and replaces an earlier result of the same exam.

    Args:
        output_dir: parent of the folders.
        projector: line integrals of a volume in the exam's geometry, for the re-projection.
        provenance: how the volumes are made; see :func:`provenance`.
        draw: makes the picture: ``draw(path, hu, measured, reprojected, spacing_mm, title)``; None for no picture.
    """

    def __init__(
        self,
        output_dir: str | Path,
        projector: nn.Module,
        provenance: Mapping[str, Any],
        draw: Callable[..., None] | None = None,
    ) -> None:
        self.output_dir, self.projector = Path(output_dir), projector
        self.provenance, self.draw = dict(provenance), draw
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

    def save(self, image: MetaTensor, samples: MetaTensor, seconds: float) -> Path:
        """Write the folder of one exam.

        Args:
            image: radiographs ``[2, N, N]`` in network units, with the exam's ``meta``.
            samples: volumes ``[K, U, V, W]`` in HU, with the affine.
            seconds: time the reconstruction took.

        Returns:
            The folder.

        Raises:
            ValueError: the reconstruction holds NaN or infinity.
        """
        name = safe_name(str(image.meta["name"]))
        hu = samples.as_tensor().float().cpu()
        if not torch.isfinite(hu).all():
            raise ValueError(f"{name}: the reconstruction holds NaN or infinity; nothing was written for it")
        affine, mean = samples.affine.cpu().numpy(), hu.mean(dim=0)
        measured = network_to_radiograph(image.as_tensor().float().cpu())
        reprojected = self._reproject(mean)
        spacing_mm = self.projector.geometry.volume_spacing_mm
        record = self._record(image, hu, measured, reprojected, seconds)
        with folder_that_appears_whole(self.output_dir / name) as partial:
            write_volume(partial / "ct.nii.gz", mean.round().to(torch.int16).numpy(), affine)
            if len(hu) > 1:
                write_volume(partial / "std.nii.gz", hu.std(dim=0).numpy(), affine)
            (partial / "result.json").write_text(json.dumps(record, indent=2) + "\n")
            if self.draw is not None:
                self.draw(partial / "figure.png", mean.numpy(), measured.numpy(), reprojected.numpy(), spacing_mm, name)
        return self.output_dir / name

    def _reproject(self, hu: Tensor) -> Tensor:
        device = next(self.projector.buffers()).device
        return self.projector(hu_to_mu(hu[None, None]).to(device))[0].cpu()

    def _record(
        self, image: MetaTensor, hu: Tensor, measured: Tensor, reprojected: Tensor, seconds: float
    ) -> dict[str, Any]:
        misfit = ((reprojected - measured).flatten(1).norm(dim=1) / measured.flatten(1).norm(dim=1)).tolist()
        return {
            "notice": NOTICE,
            "exam": str(image.meta["name"]),
            "inputs_sha256": image.meta["files"],
            "geometry": asdict(self.projector.geometry),
            **self.provenance,
            "samples": len(hu),
            "seconds": round(seconds, 3),
            "reprojection_error": {"frontal": misfit[0], "lateral": misfit[1]},
            "reprojection_error_is": "relative L2 to the input line integrals; necessary, not sufficient",
            "warnings": warnings_of(hu, misfit),
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }


def warnings_of(hu: Tensor, misfit: list[float], limit: float = 0.1) -> list[str]:
    """What a reader of the result should be told: a poor re-projection (beyond ``limit``), or samples that disagree."""
    found = [
        f"the {view} re-projection differs from the input by {value:.1%} (relative L2; limit {limit:.0%})"
        for view, value in zip(("frontal", "lateral"), misfit, strict=True)
        if value > limit
    ]
    if len(hu) > 1 and (spread := float(hu.std(dim=0).mean())) > 200:
        found.append(f"the samples disagree by {spread:.0f} HU on average")
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


def safe_name(name: str) -> str:
    """A folder name made of a foreign name: letters, digits, dot, dash and underscore, and no way out of the folder."""
    return re.sub(r"[^\w.-]", "_", name).lstrip(".") or "exam"


class folder_that_appears_whole:
    """Context of a scratch folder that takes its final name when the block succeeds, replacing an older result.

    Args:
        folder: final path; its parent is made.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.partial = folder.with_name(f".partial-{folder.name}")
        self.old = folder.with_name(f".old-{folder.name}")

    def __enter__(self) -> Path:
        shutil.rmtree(self.partial, ignore_errors=True)
        self.partial.mkdir(parents=True)
        return self.partial

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            shutil.rmtree(self.old, ignore_errors=True)
            if self.folder.exists():
                os.rename(self.folder, self.old)
            os.rename(self.partial, self.folder)
        shutil.rmtree(self.partial, ignore_errors=True)
        shutil.rmtree(self.old, ignore_errors=True)
