"""Pictures of a comparison: reconstructions of every case with the truth."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scripts.io.names import safe_name
from scripts.io.nifti import read_volume
from scripts.studies.cases import read_with_ct


class DrawComparison:
    """Drawing of each case of a sweep: ``pictures/<case>_panel.png``, ``_rendering.png`` and ``_skeletons.png``.

    Args:
        dataset_dir: prepared data set with the true CTs.
        panel: ``panel(path, image, truth_hu, reconstructions, spacing_mm, title)``.
        rendering: ``rendering(path, volumes, spacing_mm)``, with the true CT among the volumes.
        skeletons: ``skeletons(path, volumes, spacing_mm)``, with the true CT among the volumes.
    """

    def __init__(
        self,
        dataset_dir: str | Path,
        panel: Callable[..., Any],
        rendering: Callable[..., Any],
        skeletons: Callable[..., Any],
    ) -> None:
        self.dataset_dir, self.panel = Path(dataset_dir), panel
        self.of_volumes = {"rendering": rendering, "skeletons": skeletons}

    def __call__(self, output_dir: Path, methods: Sequence[str]) -> None:
        """Draw every case that all ``methods`` have reconstructed."""
        folders = {method: output_dir / method / "evaluation" / "volumes" for method in methods}
        pictures = output_dir / "pictures"
        pictures.mkdir(parents=True, exist_ok=True)
        for folder in sorted((self.dataset_dir / "cases").iterdir()):
            files = {method: path / f"{safe_name(folder.name)}.nii.gz" for method, path in folders.items()}
            if all(file.is_file() for file in files.values()):
                self._draw(folder, {method: read_volume(file)[0] for method, file in files.items()}, pictures)

    def _draw(self, folder: Path, volumes: Mapping[str, np.ndarray], pictures: Path) -> None:
        case, truth = read_with_ct(folder)
        spacing_mm = case.geometry.volume_spacing_mm
        self.panel(
            pictures / f"{case.name}_panel.png", case.line_integrals.numpy(), truth, volumes, spacing_mm, case.name
        )
        for name, draw in self.of_volumes.items():
            draw(pictures / f"{case.name}_{name}.png", {**volumes, "truth": truth}, spacing_mm)
