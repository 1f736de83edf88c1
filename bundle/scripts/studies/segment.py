"""The segmentation study: a segmenter's results in the reconstructions, compared with those in the true CTs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from scripts.intensity import NETWORK_HU_RANGE
from scripts.io.atomic import require_writable
from scripts.io.case import CT_FILE, LABELS_FILE, Case
from scripts.io.names import safe_name
from scripts.io.nifti import read_volume
from scripts.metrics.overlap import NOTES, measure_overlap
from scripts.metrics.tables import summarise, to_markdown
from scripts.studies.account import Account
from scripts.studies.cases import read_with_ct
from scripts.studies.label_maps import Ids
from scripts.studies.segmenters import Segmenter
from scripts.studies.summary import Text

ORACLE = "oracle"
"""Name of the true CT as a method, which measures the segmenter itself without reconstruction."""
AGAINST_CT = "against the true CT"
AGAINST_LABELS = "against labels"
TEXT = Text(
    "Segmentation study",
    "Mean ± standard deviation over cases. *oracle* is the segmenter on the true CT; *against the true CT* compares "
    "with its segmentation there, *against labels* with the data set's own. All volumes are clipped to "
    "[{:g}, {:g}] HU.".format(*NETWORK_HU_RANGE),
    NOTES,
)
Masks = dict[str, Tensor]


class SegmentationStudy:
    """Study that segments every reconstruction and its true CT alike, and writes Dice and HD95 of each structure.

    A reconstruction is compared with the segmentation of the true CT and, if the case has labels that the label map
    explains, with these. The oracle, the segmentation of the true CT against the labels, comes first, as it limits the
    significance of the other numbers. If any method lacks a case, the case is excluded for all.

    It writes to ``output_dir``, each file atomically: ``cases.csv`` (a row per case, method and comparison),
    ``summary.csv`` and ``summary.json`` (mean, standard deviation, n) and ``summary.md``.

    Args:
        folders: case folders with the true CTs.
        segmenter: see :func:`scripts.studies.segmenters.load_segmenter`.
        volumes: folder of each method's reconstructions, ``<case>.nii.gz`` in HU on the true CT's grid.
        output_dir: output folder, created if needed.
        settings: JSON-ready facts about the run, for the summaries.

    Raises:
        ValueError: there are no reconstructions to segment, or a method's folder does not exist.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        segmenter: Segmenter,
        volumes: Mapping[str, str | Path],
        output_dir: str | Path,
        settings: Mapping[str, Any],
    ) -> None:
        if not isinstance(volumes, Mapping) or not volumes:
            raise ValueError(
                f"volumes: folders of reconstructions by method, got {volumes!r}; add --volumes "
                "\"{'diffux2ct': 'RUN/evaluation/volumes'}\""
            )
        if ORACLE in volumes:
            raise ValueError(f"volumes: {ORACLE!r} is the name of the true CT's row; give the method another name")
        self.volumes = {method: Path(folder) for method, folder in volumes.items()}
        for method, folder in self.volumes.items():
            if not folder.is_dir():
                raise ValueError(f"{folder}: no such folder; correct the entry for {method!r} in --volumes")
        self.folders, self.segmenter = list(folders), segmenter
        self.output_dir, self.settings = Path(output_dir), dict(settings)
        require_writable(self.output_dir)
        self.account = Account()

    def __call__(self) -> None:
        """Measure every case, write the tables and print the summary.

        Raises:
            ValueError: no case could be measured.
            SomeFailed: some cases failed.
        """
        account = self.account
        for folder in tqdm(self.folders, desc="segment", unit="case"):
            with account.case(folder.name):
                account.rows += self._measure(folder)
        account.require(account.rows)
        account.rows.sort(key=lambda row: row["method"] != ORACLE)
        summary, facts = summarise(account.rows), self._facts()
        headline = f"oracle: {facts['oracle']}\n{account.measured} cases"
        account.publish(self.output_dir, TEXT, facts, summary, to_markdown(summary), headline)
        account.close()

    def _measure(self, folder: Path) -> list[dict[str, Any]]:
        """Return the rows of one case, the oracle's first."""
        case, ct = read_with_ct(folder)
        found = {method: self._reconstruction(method, case) for method in self.volumes}
        labels = self._labels(folder / LABELS_FILE, case)
        truth = self._segment(ct, case.affine)
        compared = [(ORACLE, AGAINST_LABELS, truth, labels)]
        for method, hu in found.items():
            structures = self._segment(hu, case.affine)
            compared.append((method, AGAINST_CT, structures, truth))
            if labels:
                compared.append((method, AGAINST_LABELS, structures, labels))
        spacing_mm = nib.affines.voxel_sizes(case.affine).tolist()
        return [
            {"case": case.name, "method": method, "estimate": against} | measure_overlap(ours, theirs, spacing_mm)
            for method, against, ours, theirs in compared
        ]

    def _segment(self, hu: np.ndarray, affine: np.ndarray) -> Masks:
        """Segment a volume ``[U, V, W]``, clipped like all reconstructions."""
        return _masks(self.segmenter(np.clip(hu, *NETWORK_HU_RANGE), affine), self.segmenter.description.labels)

    def _reconstruction(self, method: str, case: Case) -> np.ndarray:
        path = self.volumes[method] / f"{safe_name(case.name)}.nii.gz"
        if not path.is_file():
            raise ValueError(
                f"{path}: no reconstruction of case {case.name!r} by {method!r}; evaluate the method on this split, or "
                "take it out of --volumes"
            )
        hu = _read_on_grid(path, case)
        if not np.isfinite(hu).all():
            raise ValueError(f"{path}: {int((~np.isfinite(hu)).sum())} voxels are NaN or infinite; reconstruct again")
        return hu

    def _labels(self, path: Path, case: Case) -> Masks:
        """Read the structures in the data set's own labels; empty if it has none, or the label map ignores them."""
        meanings = self.segmenter.description.dataset_labels
        return _masks(_read_on_grid(path, case), meanings) if meanings and path.is_file() else {}

    def _facts(self) -> dict[str, Any]:
        """Return JSON-ready facts about the run, for the summaries."""
        description = self.segmenter.description
        return {
            "oracle": self._oracle(),
            **self.settings,
            **self.segmenter.record,
            "structures": {name: list(ids) for name, ids in description.labels.items()},
            "dataset_labels": {name: list(ids) for name, ids in description.dataset_labels.items()},
            "volumes": {method: str(folder) for method, folder in self.volumes.items()},
        }

    def _oracle(self) -> str:
        """Return on how many cases the segmenter itself was checked or, if on none, why."""
        checked = sum(row["method"] == ORACLE and not np.isnan(row["missed"]) for row in self.account.rows)
        if checked:
            return f"measured on {checked} of {self.account.measured} cases"
        if not self.segmenter.description.dataset_labels:
            return "not measured: the label map has no dataset_labels"
        return f"not measured: no case has {LABELS_FILE}"


def _masks(labels: np.ndarray, structures: Mapping[str, Ids]) -> Masks:
    """Return the mask ``[1, 1, U, V, W]`` of each structure in labels ``[U, V, W]``."""
    return {name: torch.from_numpy(np.isin(labels, ids))[None, None] for name, ids in structures.items()}


def _read_on_grid(path: Path, case: Case) -> np.ndarray:
    """Read voxels ``[U, V, W]`` of a file, which must have the grid of the case's CT."""
    voxels, affine = read_volume(path)
    shape = case.geometry.volume_shape
    if voxels.shape != shape or not np.allclose(affine, case.affine, atol=1e-3):
        raise ValueError(
            f"{path}: shape {voxels.shape} and affine {affine.tolist()}, but the case's {CT_FILE} has {shape} and "
            f"{case.affine.tolist()}; reconstruct this case, or resample the volume to its grid"
        )
    return voxels
