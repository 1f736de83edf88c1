"""Pictures of a comparison: every case's reconstructions beside the truth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scripts.io.case import read_case
from scripts.io.names import safe_name
from scripts.io.nifti import read_volume


class DrawComparison:
    """Draws ``pictures/<case>_panel.png`` and ``pictures/<case>_rendering.png`` from the volumes of a sweep.

    Args:
        dataset_dir: prepared data set with the true CTs.
        panel: ``panel(path, image, truth_hu, reconstructions, spacing_mm, title)``.
        rendering: ``rendering(path, volumes, spacing_mm)``.
    """

    def __init__(self, dataset_dir: str | Path, panel: Callable[..., Any], rendering: Callable[..., Any]) -> None:
        self.dataset_dir, self.panel, self.rendering = Path(dataset_dir), panel, rendering

    def __call__(self, output_dir: Path, methods: Sequence[str]) -> None:
        """Draw every case that all ``methods`` have reconstructed."""
        folders = {method: output_dir / method / "evaluation" / "volumes" for method in methods}
        pictures = output_dir / "pictures"
        pictures.mkdir(parents=True, exist_ok=True)
        for folder in sorted((self.dataset_dir / "cases").iterdir()):
            files = {method: path / f"{safe_name(folder.name)}.nii.gz" for method, path in folders.items()}
            if all(file.is_file() for file in files.values()):
                case, volumes = read_case(folder), {m: np.asarray(read_volume(f)[0]) for m, f in files.items()}
                truth, spacing_mm = case.ct[0].numpy(), case.geometry.volume_spacing_mm
                self.panel(
                    pictures / f"{folder.name}_panel.png", case.image.numpy(), truth, volumes, spacing_mm, case.name
                )
                self.rendering(pictures / f"{folder.name}_rendering.png", {**volumes, "truth": truth}, spacing_mm)
