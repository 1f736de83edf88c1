"""The segmentation study: what a segmenter finds in the reconstructions, against what it finds in the true CTs."""

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
"""The method that is the true CT itself: how well the segmenter does where nothing was reconstructed."""
AGAINST_CT = "against the true CT"
AGAINST_LABELS = "against labels"
TEXT = Text(
    "Segmentation study",
    "Mean ± standard deviation over cases. *oracle* is the segmenter on the true CT; *against the true CT* is against "
    "its segmentation there, *against labels* against the data set's own. All volumes are clipped to "
    "[{:g}, {:g}] HU.".format(*NETWORK_HU_RANGE),
    NOTES,
)
Masks = dict[str, Tensor]


class SegmentationStudy:
    """Segments every reconstruction and its true CT alike, and writes Dice and HD95 of each structure.

    A reconstruction is compared with the segmentation of the true CT and, where the case has labels and the label map
    says what they mean, with these. The oracle, the segmentation of the true CT against the labels, comes first: it
    bounds what the other numbers can say. A case that any method lacks counts for none.

    Writes into ``output_dir``, each file atomically: ``cases.csv`` (a row per case, method and what it is compared
    with), ``summary.csv`` and ``summary.json`` (mean, standard deviation, n) and ``summary.md``.

    Args:
        folders: case folders, with the true CTs.
        segmenter: see :func:`scripts.studies.segmenters.load_segmenter`.
        volumes: folder of each method's reconstructions, ``<case>.nii.gz`` in HU on the true CT's grid.
        output_dir: made if needed.
        settings: JSON-ready facts about the run, for the summaries.

    Raises:
        ValueError: no reconstructions to segment, or a method's folder that does not exist.
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
            raise ValueError(f"volumes: {ORACLE!r} names the true CT's own row; give the method another name")
        self.volumes = {method: Path(folder) for method, folder in volumes.items()}
        for method, folder in self.volumes.items():
            if not folder.is_dir():
                raise ValueError(f"{folder}: no such folder; --volumes gives it for the reconstructions of {method!r}")
        self.folders, self.segmenter = list(folders), segmenter
        self.output_dir, self.settings = Path(output_dir), dict(settings)
        self.account = Account()

    def __call__(self) -> None:
        """Measure every case, write the tables and print the summary.

        Raises:
            ValueError: no case could be measured.
            SomeFailed: some cases were lost.
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
        """The rows of one case, the oracle's first."""
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
        """The structures in a volume ``[U, V, W]``, clipped as all reconstructions are."""
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
        """The structures in the data set's own labels; none if it has none, or if nothing says what they mean."""
        meanings = self.segmenter.description.dataset_labels
        return _masks(_read_on_grid(path, case), meanings) if meanings and path.is_file() else {}

    def _facts(self) -> dict[str, Any]:
        """JSON-ready facts about the run, for the summaries."""
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
        """On how many cases the segmenter itself could be checked, and if on none, why."""
        checked = sum(row["method"] == ORACLE and not np.isnan(row["missed"]) for row in self.account.rows)
        if checked:
            return f"measured on {checked} of {self.account.measured} cases"
        if not self.segmenter.description.dataset_labels:
            return "not measured: the label map has no dataset_labels"
        return f"not measured: no case has {LABELS_FILE}"


def _masks(labels: np.ndarray, structures: Mapping[str, Ids]) -> Masks:
    """The mask ``[1, 1, U, V, W]`` of each structure in labels ``[U, V, W]``."""
    return {name: torch.from_numpy(np.isin(labels, ids))[None, None] for name, ids in structures.items()}


def _read_on_grid(path: Path, case: Case) -> np.ndarray:
    """Voxels ``[U, V, W]`` of a file, which must have the grid of the case's CT."""
    voxels, affine = read_volume(path)
    shape = case.geometry.volume_shape
    if voxels.shape != shape or not np.allclose(affine, case.affine, atol=1e-3):
        raise ValueError(
            f"{path}: shape {voxels.shape} and affine {affine.tolist()}, but the case's {CT_FILE} has {shape} and "
            f"{case.affine.tolist()}; reconstruct this case, or resample the volume to its grid"
        )
    return voxels
