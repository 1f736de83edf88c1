"""Export of an evaluation's volumes, for pictures and other tools."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events

from scripts.intensity import network_to_hu
from scripts.io.names import safe_name
from scripts.io.nifti import write_volume


class SaveVolumes:
    """Handler that writes the reconstructed volume of every case as ``<case>.nii.gz``: int16 HU, the true CT's affine.

    Args:
        output_dir: output folder, created if needed.
    """

    def __init__(self, output_dir: str | Path) -> None:
        self.output_dir = Path(output_dir)

    def attach(self, engine: Engine) -> None:
        """Write after every iteration of ``engine``, a MONAI evaluator with ``decollate=False``."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    @torch.no_grad()
    def __call__(self, engine: Engine) -> None:
        """Write the first sample of every case of the batch, and nothing for one that holds NaN or infinity."""
        self.output_dir.mkdir(parents=True, exist_ok=True)
        state: Any = engine.state  # MONAI's evaluator adds attributes
        batch, volumes = state.batch, state.output["pred"][:, 0].float()
        for name, volume, affine in zip(batch["name"], volumes, batch["affine"], strict=True):
            path = self.output_dir / f"{safe_name(name)}.nii.gz"
            if not volume.isfinite().all():  # which integers cannot say
                path.unlink(missing_ok=True)
                continue
            write_volume(path, network_to_hu(volume).round().cpu().numpy().astype(np.int16), affine.cpu().numpy())
