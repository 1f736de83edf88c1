"""Pictures of a comparison: reconstructions of every case with the truth, and a page to look through them."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scripts.io.atomic import whole_file
from scripts.io.names import safe_name
from scripts.io.nifti import read_volume
from scripts.metrics.comparison import SHOWN, numbers
from scripts.metrics.tables import SINGLE
from scripts.studies.cases import read_with_ct

PAGE_CASES = 6
"""Largest number of cases on the page: of each it carries every method's volume."""


class DrawComparison:
    """Drawing of each case of a sweep: ``pictures/<case>_panel.png``, ``_rendering.png`` and ``_skeletons.png``.

    Of the first :data:`PAGE_CASES` cases, ``comparison.html`` carries the volumes, beside the measurements in
    ``cases.csv``.

    Args:
        dataset_dir: prepared data set with the true CTs.
        panel: ``panel(path, image, truth_hu, reconstructions, spacing_mm, title)``.
        rendering: ``rendering(path, volumes, spacing_mm)``, with the true CT among the volumes.
        skeletons: ``skeletons(path, volumes, spacing_mm)``, with the true CT among the volumes.
        page: ``page(path, cases, affine, rows, columns)``, see
            :func:`scripts.report.comparison_page.write_comparison_page`; None for no page.
    """

    def __init__(
        self,
        dataset_dir: str | Path,
        panel: Callable[..., Any],
        rendering: Callable[..., Any],
        skeletons: Callable[..., Any],
        page: Callable[..., Any] | None = None,
    ) -> None:
        self.dataset_dir, self.panel, self.page = Path(dataset_dir), panel, page
        self.of_volumes = {"rendering": rendering, "skeletons": skeletons}

    def __call__(self, output_dir: Path, methods: Sequence[str]) -> None:
        """Draw every case that all ``methods`` have reconstructed."""
        folders = {method: output_dir / method / "evaluation" / "volumes" for method in methods}
        pictures = output_dir / "pictures"
        pictures.mkdir(parents=True, exist_ok=True)
        drawn = []
        for folder in sorted((self.dataset_dir / "cases").iterdir()):
            files = {method: path / f"{safe_name(folder.name)}.nii.gz" for method, path in folders.items()}
            if all(file.is_file() for file in files.values()):
                self._draw(folder, _volumes(files), pictures)
                drawn.append((folder, files))
        if self.page is not None and drawn:
            _write_page(self.page, output_dir, drawn[:PAGE_CASES])

    def _draw(self, folder: Path, volumes: Mapping[str, np.ndarray], pictures: Path) -> None:
        case, truth = read_with_ct(folder)
        spacing_mm = case.geometry.volume_spacing_mm
        self.panel(
            pictures / f"{case.name}_panel.png", case.line_integrals.numpy(), truth, volumes, spacing_mm, case.name
        )
        for name, draw in self.of_volumes.items():
            draw(pictures / f"{case.name}_{name}.png", {**volumes, "truth": truth}, spacing_mm)


def _write_page(page: Callable[..., Any], output_dir: Path, drawn: Sequence[tuple[Path, Mapping[str, Path]]]) -> None:
    cases = {}
    for folder, files in drawn:
        case, truth = read_with_ct(folder)
        cases[case.name] = {**_volumes(files), "truth": truth}
    with (output_dir / "cases.csv").open(newline="") as file:
        rows = [row for row in numbers(list(csv.DictReader(file))) if row["estimate"] == SINGLE]
    with whole_file(output_dir / "comparison.html") as partial:
        page(partial, cases, case.geometry.volume_affine(), rows, SHOWN)


def _volumes(files: Mapping[str, Path]) -> dict[str, np.ndarray]:
    return {method: read_volume(file)[0] for method, file in files.items()}
