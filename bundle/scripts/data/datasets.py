"""Data sets over prepared case folders: endless random views for training, fixed cases for everything else."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset
from torch.utils.data.distributed import DistributedSampler

from scripts.data.augment import RandomDeformation, grid_points_mm, resample_volume
from scripts.data.contrast import RandomContrast
from scripts.geometry import BiplanarGeometry
from scripts.io.case import SOURCE_FILE, read_case
from scripts.io.nifti import read_volume


def split_folders(dataset_dir: str | Path, split: str) -> list[Path]:
    """Case folders of one split of a prepared data set.

    Args:
        dataset_dir: output of ``prepare.json``, with ``splits.json`` and ``cases/``.
        split: ``train``, ``val`` or ``test``.

    Raises:
        ValueError: not a prepared data set, or a split without cases.
    """
    path = Path(dataset_dir) / "splits.json"
    if not path.is_file():
        raise ValueError(f"{path}: not found; dataset_dir must be the output folder of prepare.json")
    names = json.loads(path.read_text()).get(split, [])
    folders = [Path(dataset_dir) / "cases" / name for name in names]
    present = [folder for folder in folders if folder.is_dir()]
    if not present:
        raise ValueError(f"{path}: split {split!r} has no prepared case; its list is {names}")
    return present


class PreparedCases(Dataset):
    """Prepared cases: ``name``, ``image [2, N, N]`` (line integrals), ``hu [1, U, V, W]``, ``affine [4, 4]`` (RAS, mm).

    Raises:
        ValueError: a case without CT, or of another geometry than the one asked for.
    """

    def __init__(self, folders: Sequence[str | Path], geometry: BiplanarGeometry) -> None:
        self.folders, self.geometry = list(folders), geometry

    def __len__(self) -> int:
        return len(self.folders)

    def __getitem__(self, index: int) -> dict[str, str | Tensor]:
        case = read_case(self.folders[index])
        if case.ct is None:
            raise ValueError(f"{self.folders[index]}: has no ct.nii.gz; training and evaluation need the true CT")
        if case.geometry != self.geometry:
            raise ValueError(
                f"{self.folders[index]}: geometry {case.geometry} differs from the network's {self.geometry}; "
                "prepare the data with the network's geometry"
            )
        return {"name": case.name, "image": case.image, "hu": case.ct, "affine": torch.as_tensor(case.affine)}


class RandomViews(Dataset):
    """Random deformations and contrasts of whole CTs on the network's grid: ``{"hu": [1, U, V, W]}``.

    Item i depends on ``seed`` and i alone, so that any run, on any number of processes, resumed or not, sees the same
    data. The CTs are kept in memory, averaged once over cubes as wide as the network's voxels so that sampling them on
    that grid does not alias.

    Args:
        sets: prepared data sets as ``{folder: weight}``; their train splits are drawn from in these proportions.
        geometry: gives the grid.
        deformation: distribution of poses and shapes.
        contrast: distribution of tissues' HU.
        length: items per epoch.
        seed: of everything random.

    Raises:
        ValueError: weights that are no proportions, or a data set without training cases.
    """

    def __init__(
        self,
        sets: dict[str, float],
        geometry: BiplanarGeometry,
        deformation: RandomDeformation,
        contrast: RandomContrast,
        length: int,
        seed: int = 0,
    ) -> None:
        self.deformation, self.contrast, self.length, self.seed = deformation, contrast, length, seed
        _check_weights(sets)
        self.points_mm = grid_points_mm(geometry)
        folders = {path: split_folders(path, "train") for path in sets}
        with ThreadPoolExecutor() as pool:
            files = [folder / SOURCE_FILE for group in folders.values() for folder in group]
            self.sources = list(pool.map(lambda f: _load_source(f, geometry.volume_spacing_mm), files))
        self.weights = torch.tensor([sets[path] / len(group) for path, group in folders.items() for _ in group])

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + index)
        choice = int(torch.multinomial(self.weights, 1, generator=generator))
        hu, spacing_mm = self.sources[choice]
        points_mm = self.deformation.draw(generator)(self.points_mm)
        curve = self.contrast.draw(generator)
        return {"hu": curve(resample_volume(hu, spacing_mm, points_mm))[None]}


def _check_weights(sets: dict[str, float]) -> None:
    numbers = isinstance(sets, dict) and all(isinstance(w, (int, float)) and 0 <= w < math.inf for w in sets.values())
    if not numbers or not any(sets.values()):
        raise ValueError(
            "training_sets are the prepared folders and their proportions, of which one at least is positive, like "
            f"\"{{'data/real': 0.85, 'data/phantom': 0.15}}\"; got {sets!r}"
        )


def _load_source(path: Path, grid_spacing_mm: float) -> tuple[Tensor, float]:
    voxels, affine = read_volume(path)
    spacing_mm = float(abs(affine[0, 0]))
    hu = torch.as_tensor(voxels, dtype=torch.float32)
    width = max(1, round(grid_spacing_mm / spacing_mm))
    if width > 1:
        hu = F.avg_pool3d(hu[None, None], width, stride=1)[0, 0]
    return hu, spacing_mm


class StreamSampler(DistributedSampler):
    """Numbers the items of all epochs consecutively and deals them out over the processes.

    Epoch e yields e * length, ..., (e + 1) * length - 1, so that a data set whose item i depends on i alone is an
    endless stream that can be resumed at any epoch. MONAI's engines set the epoch of every ``DistributedSampler``.
    """

    def __init__(self, dataset: Dataset, num_replicas: int = 1, rank: int = 0) -> None:
        super().__init__(dataset, num_replicas=num_replicas, rank=rank, shuffle=False, drop_last=True)

    def __iter__(self) -> Iterator[int]:
        start = self.epoch * len(self.dataset)
        return (start + i for i in super().__iter__())
