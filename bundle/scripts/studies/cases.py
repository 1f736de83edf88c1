"""Data for an evaluation: the cases of a split, none skipped silently, and the mean training volume."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import ignite.distributed as idist
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Subset
from tqdm import tqdm

from scripts.cases.manifest import case_folders
from scripts.data.datasets import PreparedCases
from scripts.geometry import BiplanarGeometry
from scripts.intensity import hu_to_network, network_to_hu
from scripts.io.case import CT_FILE, Case, read_case
from scripts.io.nifti import read_volume, write_volume
from scripts.io.processes import block, gathered
from scripts.io.text import write_text

logger = logging.getLogger(__name__)


def read_with_ct(folder: Path) -> tuple[Case, np.ndarray]:
    """Read a case and its true CT ``[U, V, W]`` in HU.

    Raises:
        ValueError: as for :func:`~scripts.io.case.read_case`, or the case has no CT.
    """
    case = read_case(folder)
    if case.ct is None:
        raise ValueError(f"{folder / CT_FILE}: not found; the study needs the true CT of every case")
    return case, case.ct[0].numpy()


class ReadableCases(Subset):
    """Readable cases of a split.

    Attributes:
        failures: errors of all other cases by name.
    """

    def __init__(self, cases: PreparedCases, failures: dict[str, str]) -> None:
        super().__init__(cases, [i for i, folder in enumerate(cases.folders) if Path(folder).name not in failures])
        self.failures = failures


def readable_cases(dataset_dir: str | Path, split: str, geometry: BiplanarGeometry) -> ReadableCases:
    """Read every case of a split once before the evaluation, so that a bad one does not affect the others.

    Several processes of a launcher get a share of the cases each.

    Raises:
        ValueError: as for :func:`case_folders`, or no case can be read.
    """
    cases = PreparedCases(block(case_folders(dataset_dir, split)), geometry)
    failures: dict[str, str] = {}
    for index, folder in enumerate(tqdm(cases.folders, desc=f"check {split} cases", unit="case")):
        try:
            cases[index]
        except ValueError as error:
            failures[folder.name] = str(error)
    lost = [error for errors in gathered(list(failures.values())) for error in errors]
    if len(lost) == (count := sum(gathered(len(cases)))):
        raise ValueError(f"{dataset_dir}: none of the {count} cases of split {split!r} can be used; {lost[0]}")
    return ReadableCases(cases, failures)


def mean_training_volume(dataset_dir: str | Path, geometry: BiplanarGeometry, path: str | Path) -> Tensor:
    """Return the mean of the training cases, clipped to the network's range, and save it as NIfTI.

    The file holds HU, float32; ``<path without suffixes>.json`` records the averaged cases. A file of the same cases,
    by the digest of their CTs and the geometry, is reused, also by the other processes of a launcher.

    Args:
        dataset_dir: prepared data set with the train split to average.
        geometry: geometry of the cases.
        path: the NIfTI file.

    Returns:
        ``[1, U, V, W]`` in network range.

    Raises:
        ValueError: there is no train split, or a case is unreadable or has another geometry.
    """
    path = Path(path)
    try:
        folders = case_folders(dataset_dir, "train")
    except ValueError as error:
        raise ValueError(
            f"mean training volume: {error}. Give --training_dir, the data the network was trained on, or --baselines "
            "'{}' to go without"
        ) from None
    with idist.one_rank_first():
        _save_mean(folders, geometry, path)
    return hu_to_network(torch.from_numpy(read_volume(path)[0]))[None]  # the same bits as in every later run


def _save_mean(folders: Sequence[Path], geometry: BiplanarGeometry, path: Path) -> None:
    record = path.with_name(path.name.split(".")[0] + ".json")
    made_of = json.dumps({"cases": [f.name for f in folders], "sha256": _digest(folders, geometry)}, indent=2)
    if path.is_file() and record.is_file() and record.read_text() == made_of:
        logger.info("mean training volume: reusing %s", path)
        return
    mean = _mean(PreparedCases(folders, geometry))
    path.parent.mkdir(parents=True, exist_ok=True)
    record.unlink(missing_ok=True)  # the old record must not be taken for that of the new volume
    write_volume(path, network_to_hu(mean)[0].numpy(), geometry.volume_affine())
    write_text(record, made_of)


def _mean(cases: PreparedCases) -> Tensor:
    total = torch.zeros(1, *cases.geometry.volume_shape, dtype=torch.float64)
    for index in tqdm(range(len(cases)), desc="mean training volume", unit="case"):
        total += hu_to_network(cast(Tensor, cases[index]["hu"]))
    return (total / len(cases)).float()


def _digest(folders: Sequence[Path], geometry: BiplanarGeometry) -> str:
    """Return a SHA-256 over a geometry and the names and CT files of cases; a missing file counts as empty."""
    digest = hashlib.sha256(geometry.to_json().encode())
    for folder in folders:
        path = folder / CT_FILE
        digest.update(folder.name.encode() + b"\0" + (path.read_bytes() if path.is_file() else b""))
    return digest.hexdigest()
