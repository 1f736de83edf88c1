"""Exams to reconstruct: finding them, checking them, and reading them as MONAI transforms."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from monai.data import MetaTensor
from monai.transforms import MapTransform

from scripts.geometry import BiplanarGeometry
from scripts.intensity import network_to_hu, radiograph_to_network
from scripts.io.case import GEOMETRY_FILE, IMAGE_FILES, read_case, read_exam
from scripts.io.digest import sha256

logger = logging.getLogger(__name__)


def find_exams(
    input: str | Path | None = None,
    frontal: str | Path | None = None,
    lateral: str | Path | None = None,
    geometry_file: str | Path | None = None,
) -> list[dict[str, Any]]:
    """Exams as items for a MONAI data set, each under the key ``image``.

    Args:
        input: a case folder, or a folder of case folders.
        frontal: one frontal radiograph, instead of ``input``.
        lateral: its lateral radiograph.
        geometry_file: the geometry of that pair, JSON.

    Raises:
        ValueError: nothing to reconstruct, or half a pair; the message says what is missing.
    """
    pair = {"frontal": frontal, "lateral": lateral, "geometry_file": geometry_file}
    given = [name for name, path in pair.items() if path]
    if input and given:
        raise ValueError(f"give --input or a pair of files, not both: got input={str(input)!r} and {given}")
    if given and len(given) < len(pair):
        missing = [f"--{name}" for name in pair if name not in given]
        raise ValueError(f"one exam needs --frontal, --lateral and --geometry_file; missing {' and '.join(missing)}")
    if given:
        return [{"image": {name: str(path) for name, path in pair.items()}}]
    if not input:
        raise ValueError("nothing to reconstruct: give --input FOLDER, or --frontal, --lateral and --geometry_file")
    folder = Path(input)
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder; --input is a case folder or a folder of case folders")
    if any((folder / name).exists() for name in (*IMAGE_FILES.values(), GEOMETRY_FILE)):
        return [{"image": str(folder)}]
    cases = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not cases:
        needed = ", ".join((*IMAGE_FILES.values(), GEOMETRY_FILE))
        raise ValueError(f"{folder}: holds no case; a case folder has {needed}")
    return [{"image": str(p)} for p in cases]


class LoadExamd(MapTransform):
    """Reads an exam into network units: an image ``[2, N, N]`` whose ``meta`` carries everything else about it.

    The value under each key is a case folder or a mapping ``{frontal, lateral, geometry_file}``. ``meta`` holds
    ``name``, ``volume_affine`` (RAS, of the volume to reconstruct), and ``files`` (path to sha256).

    Args:
        keys: where the paths are, normally ``image``.
        geometry: the exam the network was trained for; another one is refused.

    Raises:
        ValueError: unreadable, incomplete or implausible radiographs, or another geometry.
    """

    def __init__(self, keys: Hashable | list[Hashable], geometry: BiplanarGeometry) -> None:
        super().__init__(keys)
        self.geometry = geometry

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Replace the paths by images."""
        result = dict(data)
        for key in self.keys:
            result[key] = self._load(data[key])
        return result

    def _load(self, source: str | Path | Mapping[str, str]) -> MetaTensor:
        if isinstance(source, Mapping):
            case, files = read_exam(**source), [Path(p) for p in source.values()]
        else:
            case = read_case(source)
            files = [Path(source) / name for name in (*IMAGE_FILES.values(), GEOMETRY_FILE)]
        if case.geometry != self.geometry:
            raise ValueError(
                f"{case.name}: taken with {case.geometry}, but the network was trained for {self.geometry}; "
                "use weights trained for this geometry, or resample the radiographs to the network's"
            )
        meta = {
            "name": case.name,
            "volume_affine": np.asarray(case.affine, dtype=np.float64),
            "files": {str(path): sha256(path) for path in files},
        }
        return MetaTensor(radiograph_to_network(case.image), meta=meta)


class ToHounsfieldd(MapTransform):
    """Predictions from network range to HU, with the affine that the exam's image carries.

    Args:
        keys: predictions ``[K, U, V, W]``, normally ``pred``.
        reference: key of the exam's image.
    """

    def __init__(self, keys: Hashable | list[Hashable] = "pred", reference: Hashable = "image") -> None:
        super().__init__(keys)
        self.reference = reference

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Replace each prediction by a ``MetaTensor`` in HU."""
        result = dict(data)
        affine = np.asarray(data[self.reference].meta["volume_affine"]).reshape(4, 4)
        for key in self.keys:
            result[key] = MetaTensor(network_to_hu(data[key]), affine=affine)
        return result


def readable_exams(items: list[dict[str, Any]], transform: LoadExamd) -> ReadableExams:
    """Sort exams into readable and broken ones before the first is reconstructed; see :class:`ReadableExams`."""
    failures: dict[str, str] = {}
    good = []
    for item in items:
        try:
            transform(item)
            good.append(item)
        except ValueError as error:
            if len(items) == 1:
                raise
            logger.error("skipped: %s", error)
            failures[str(item["image"])] = str(error)
    if not good:
        raise ValueError("no exam can be reconstructed:\n" + "\n".join(failures.values()))
    return ReadableExams(good, failures)


class ReadableExams(list):
    """Items that can be read, and why the others cannot.

    Attributes:
        failures: path of each broken exam to its error.
    """

    def __init__(self, items: list[dict[str, Any]], failures: dict[str, str]) -> None:
        super().__init__(items)
        self.failures = failures

    def finish(self) -> None:
        """End the run: if an exam was skipped, name it again and exit with status 1."""
        if self.failures:
            lines = "\n".join(self.failures.values())
            raise SystemExit(f"{len(self.failures)} of {len(self) + len(self.failures)} exams were skipped:\n{lines}")
