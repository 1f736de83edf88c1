"""Data sets: endless random views of patients for training, and prepared cases for everything else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torch.utils.data.distributed import DistributedSampler

from scripts.data.augment import RandomDeformation, WholeBody, resample
from scripts.data.contrast import RandomContrast, map_piecewise
from scripts.data.patients import Mixture
from scripts.geometry import BiplanarGeometry
from scripts.io.case import read_case


class PreparedCases(Dataset):
    """Prepared cases: ``name``, ``line_integrals [2, N, N]``, ``hu [1, U, V, W]`` and ``affine [4, 4]`` (RAS, mm).

    Raises:
        ValueError: a case has no CT, or its geometry differs from the requested one.
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
        affine = torch.as_tensor(case.affine)
        return {"name": case.name, "line_integrals": case.line_integrals, "hu": case.ct, "affine": affine}


class RandomViews(Dataset):
    """Random deformations and contrasts of whole bodies on the network's grid: ``{"hu": [1, U, V, W]}``.

    Item i depends only on ``seed`` and i, so that any run, on any number of processes, resumed or not, and up to
    rounding on any device, sees the same data. Items are made on the device that holds the patients.

    Args:
        patients: sources of patients.
        geometry: geometry with the grid.
        deformation: distribution of poses and shapes.
        contrast: distribution of tissue HU.
        length: items per epoch.
        seed: seed of everything random except the patients themselves.
    """

    def __init__(
        self,
        patients: Mixture,
        geometry: BiplanarGeometry,
        deformation: RandomDeformation,
        contrast: RandomContrast,
        length: int,
        seed: int = 0,
    ) -> None:
        self.patients, self.geometry, self.deformation, self.contrast = patients, geometry, deformation, contrast
        self.length, self.seed = length, seed

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Tensor]]:
        """Return the items of a batch, made together; PyTorch's data loader prefers this method."""
        generators = [torch.Generator().manual_seed(self.seed * 1_000_003 + index) for index in indices]
        bodies = [self.patients.draw(*each) for each in zip(indices, generators, strict=True)]
        return [{"hu": hu} for hu in self.draw(bodies, generators)]

    def draw(self, bodies: Sequence[WholeBody], generators: Sequence[torch.Generator]) -> Tensor:
        """Draw one view of each body with its own generator, ``[B, 1, U, V, W]`` on the bodies' device."""
        drawn = [(self.deformation.draw(g), self.contrast.draw(g)) for g in generators]
        nodes_mm = torch.stack([deformation.nodes_mm(self.geometry) for deformation, _ in drawn])
        values_hu = torch.stack([curve.values_hu for _, curve in drawn])
        hu = resample(bodies, nodes_mm, self.geometry.volume_shape)
        return map_piecewise(hu, drawn[0][1].nodes_hu, values_hu)[:, None]


class StreamSampler(DistributedSampler):
    """Sampler that numbers the items of all epochs consecutively and distributes them over the processes.

    Epoch e yields e * length, ..., (e + 1) * length - 1, so that a data set with items that depend only on their index
    is an endless stream that can be resumed at any epoch. MONAI sets the epoch of every ``DistributedSampler``.
    """

    def __init__(self, dataset: RandomViews, num_replicas: int = 1, rank: int = 0) -> None:
        super().__init__(dataset, num_replicas=num_replicas, rank=rank, shuffle=False, drop_last=True)
        self.items = len(dataset)

    def __iter__(self) -> Iterator[int]:
        start = self.epoch * self.items
        return (start + i for i in super().__iter__())
