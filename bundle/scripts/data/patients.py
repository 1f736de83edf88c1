"""Patients for training: prepared data sets and endless phantoms."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from multiprocessing.pool import AsyncResult, Pool
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from scripts.cases.body import bounding_box
from scripts.cases.manifest import case_folders
from scripts.cases.phantoms import PhantomScan, has_metal
from scripts.data.augment import WholeBody
from scripts.io.case import SOURCE_FILE
from scripts.io.nifti import read_volume
from scripts.io.options import require_number, require_whole
from scripts.phantom.canvas import Label

FIRST_SEED = 2**31
"""First of the 2**31 seeds of training phantoms. ``prepare.json`` takes the seeds below it, so that its phantoms
differ. A generator uses only the last 32 bits of a seed, so larger seeds would repeat small ones."""


class Source(Protocol):
    """Source of the patient of each item, always the same one for the same item."""

    def __call__(self, index: int) -> WholeBody:
        """Return the patient of item ``index``."""
        ...


@dataclass(frozen=True)
class Always:
    """Source with one patient for all items.

    Attributes:
        body: the patient.
    """

    body: WholeBody

    def __call__(self, index: int) -> WholeBody:
        """Return the patient, whatever the item."""
        return self.body


class Shelf:
    """Reads prepared CTs and keeps those used last in memory.

    Args:
        kept: number of CTs to keep.
        grid_spacing_mm: spacing of the network's voxels; see :func:`mixture`.
        device: device that holds the CTs.
    """

    def __init__(self, kept: int, grid_spacing_mm: float, device: torch.device | str = "cpu") -> None:
        self.kept, self.grid_spacing_mm, self.device = kept, grid_spacing_mm, device
        self.bodies: dict[Path, WholeBody] = {}

    def __call__(self, file: Path) -> WholeBody:
        """Return the CT of a file."""
        body = self.bodies.pop(file, None) or _load(file, self.grid_spacing_mm, self.device)
        if self.kept:
            while len(self.bodies) >= self.kept:
                del self.bodies[next(iter(self.bodies))]  # dictionaries keep the order: the first was used longest ago
            self.bodies[file] = body
        return body


@dataclass(frozen=True)
class Stored:
    """Source with one patient for all items, who is read when drawn.

    Attributes:
        file: the CT.
        shelf: reads it.
    """

    file: Path
    shelf: Shelf

    def __call__(self, index: int) -> WholeBody:
        """Return the patient, whatever the item."""
        return self.shelf(self.file)


@dataclass(frozen=True)
class Mixture:
    """Random choice among sources.

    Attributes:
        sources: N sources.
        weights: proportions of the sources, ``[N]``.
    """

    sources: Sequence[Source]
    weights: Tensor

    def draw(self, index: int, generator: Generator) -> WholeBody:
        """Return the patient of item ``index``; the generator chooses the source."""
        choice = int(torch.multinomial(self.weights, 1, generator=generator))
        return self.sources[choice](index)


class EndlessPhantoms:
    """Source of procedural torsos, a new one every ``reuse`` items, so that a network never memorises one.

    The phantom of item i depends only on ``seed`` and i. ``at_once`` phantoms take turns. After every ``reuse`` items a
    new one replaces the oldest, so that each is shown ``reuse`` times if all items come from here.

    Phantoms are drawn on a field of 450 x 350 x 450 mm and centred on their bounding boxes, as ``prepare.json`` centres
    patients.

    Args:
        spacing_mm: voxel spacing; a phantom takes half a second of one core at 5 mm, 0.8 s at 4 mm.
        seed: seed of all phantoms.
        reuse: items of the stream per new phantom.
        at_once: phantoms that take turns and are kept in memory (1 to 2 MB each at 5 mm).
        metal_fraction: share of the phantoms with spinal implants.
        workers: processes that draw phantoms ahead; with 0, phantoms are drawn when needed.
        device: device that holds the phantoms.

    Raises:
        ValueError: an argument is not a number, or leaves nothing to draw.
    """

    def __init__(
        self,
        spacing_mm: float,
        seed: int = 0,
        reuse: int = 4,
        at_once: int = 16,
        metal_fraction: float = 0.1,
        workers: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        require_whole(phantom_reuse=reuse, phantoms_at_once=at_once, phantom_workers=workers)
        if min(reuse, at_once) < 1 or workers < 0:
            raise ValueError(
                "endless phantoms: need phantom_reuse >= 1, phantoms_at_once >= 1 and phantom_workers >= 0, got "
                f"{reuse}, {at_once} and {workers}"
            )
        self.spacing_mm, self.seed, self.reuse, self.at_once = spacing_mm, seed, reuse, at_once
        self.metal_fraction, self.workers, self.device = metal_fraction, workers, device
        self.bodies: dict[int, WholeBody] = {}
        self.awaited: dict[int, AsyncResult] = {}
        self.pool: Pool | None = None

    def __call__(self, index: int) -> WholeBody:
        """Return the patient of item ``index``."""
        newest = index // self.reuse
        self._prepare(range(newest - self.at_once + 1, newest + 1 + 2 * self.workers))
        number = self.number(index)
        if number not in self.bodies:
            drawn = self.awaited.pop(number).get() if number in self.awaited else draw_phantom(self.scan(number))
            self.bodies[number] = WholeBody.of(torch.from_numpy(drawn), self.spacing_mm, self.device)
        return self.bodies[number]

    def number(self, index: int) -> int:
        """Return the number of item ``index``'s phantom, one of the ``at_once`` newest; early ones are negative."""
        newest = index // self.reuse
        return newest - (newest - index) % self.at_once

    def scan(self, number: int) -> PhantomScan:
        """Return the scan of phantom ``number``."""
        seed = FIRST_SEED + (self.seed * 1_000_003 + number) % 2**31
        return PhantomScan(seed, self.spacing_mm, has_metal(seed, self.metal_fraction))

    def _prepare(self, numbers: range) -> None:
        """Keep only these phantoms, and have the workers draw the missing ones."""
        self.bodies = {number: body for number, body in self.bodies.items() if number in numbers}
        if not self.workers:
            return
        self.awaited = {number: drawn for number, drawn in self.awaited.items() if number in numbers}
        if self.pool is None:
            # The state of a GPU's driver does not survive a fork.
            self.pool = get_context("spawn").Pool(self.workers, partial(torch.set_num_threads, 1))
        for number in numbers:
            if number not in self.bodies and number not in self.awaited:
                self.awaited[number] = self.pool.apply_async(draw_phantom, (self.scan(number),))


def draw_phantom(scan: PhantomScan) -> np.ndarray:
    """Return int16 HU ``[U, V, W]`` in the bounding box of a phantom's body, plus a voxel around it."""
    volume = scan.read()
    low, high = bounding_box(np.asarray(volume.labels) != Label.AIR)
    box = tuple(slice(max(a - 1, 0), b + 1) for a, b in zip(low, high, strict=True))
    return np.rint(volume.hu[box]).astype(np.int16)


def mixture(
    sets: Mapping[str, float],
    grid_spacing_mm: float,
    phantoms: EndlessPhantoms | None = None,
    phantom_share: float = 0.0,
    device: torch.device | str = "cpu",
    split: str = "train",
    kept: int | None = None,
) -> Mixture:
    """Build a mixture of prepared data sets and endless phantoms.

    The CTs are averaged over cubes as wide as the network's voxels so that sampling them on that grid does not alias.

    Args:
        sets: prepared data sets as ``{folder: weight}``; their cases are sampled in these proportions.
        grid_spacing_mm: spacing of the network's voxels.
        phantoms: source of the phantoms.
        phantom_share: fraction of all items that are phantoms; the rest comes from the sets.
        device: device that holds the CTs.
        split: split of the sets.
        kept: number of CTs that are kept in memory, the others being read when drawn; None keeps all.

    Raises:
        ValueError: weights are not proportions, a number is impossible, or a data set has no such cases.
    """
    _check_weights(sets)
    require_number(phantom_share=phantom_share)
    if kept is not None:
        require_whole(kept_cts=kept)
        if kept < 0:
            raise ValueError(f"kept_cts must be a number of CTs, 0 or more, or null for all, got {kept}")
    if not 0 <= phantom_share <= 1:
        raise ValueError(f"phantom_share must be a fraction of all items, 0 to 1, got {phantom_share}")
    folders = {path: case_folders(path, split) for path in sets} if phantom_share < 1 else {}
    files = [folder / SOURCE_FILE for group in folders.values() for folder in group]
    sources: list[Source]
    if kept is None:
        with ThreadPoolExecutor() as pool:
            sources = list(pool.map(lambda file: Always(_load(file, grid_spacing_mm, device)), files))
    else:
        shelf = Shelf(kept, grid_spacing_mm, device)
        sources = [Stored(file, shelf) for file in files]
    weights = [sets[path] / len(group) for path, group in folders.items() for _ in group]
    if phantom_share:
        if phantoms is None:
            raise ValueError(f"phantom_share is {phantom_share}, but there are no phantoms; give some, or a share of 0")
        total = sum(sets.values())
        weights = [(1 - phantom_share) * weight / total for weight in weights] + [phantom_share]
        sources.append(phantoms)
    return Mixture(sources, torch.tensor(weights))


def _check_weights(sets: Mapping[str, float]) -> None:
    numbers = isinstance(sets, dict) and all(isinstance(w, (int, float)) and 0 <= w < math.inf for w in sets.values())
    if not numbers or not any(sets.values()):
        raise ValueError(
            "training_sets must give each prepared folder a proportion, at least one of them positive, like "
            f"\"{{'data/real': 0.85, 'data/phantom': 0.15}}\"; got {sets!r}"
        )


def _load(path: Path, grid_spacing_mm: float, device: torch.device | str) -> WholeBody:
    voxels, affine = read_volume(path)
    spacing_mm = float(abs(affine[0, 0]))
    hu = torch.as_tensor(voxels, dtype=torch.float32)
    width = max(1, round(grid_spacing_mm / spacing_mm))
    if width > 1:
        hu = F.avg_pool3d(hu[None, None], width, stride=1)[0, 0]
    return WholeBody.of(hu, spacing_mm, device)
