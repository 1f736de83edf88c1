"""Exams to reconstruct: finding them, checking them, and reading them as MONAI transforms."""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.data import MetaTensor
from monai.transforms import MapTransform

from scripts.geometry import VIEWS, BiplanarGeometry
from scripts.intensity import network_to_hu, radiograph_to_network
from scripts.io.case import GEOMETRY_FILE, IMAGE_FILES, read_case, read_exam
from scripts.io.digest import sha256
from scripts.io.names import safe_name

Source = str | Path | Sequence[str] | Mapping[str, str]
"""Where one exam is; see :func:`find_exams`."""
_NOT_RADIOGRAPHS = {".zip", ".json", ".txt", ".md", ".csv", ".html", ".pdf", ".xml", ".log"}


def find_exams(
    input: str | Path | Sequence[str] | Mapping[str, str] | None = None,
    frontal: str | Path | None = None,
    lateral: str | Path | None = None,
    geometry_file: str | Path | None = None,
) -> list[dict[str, Any]]:
    """Exams as items for a MONAI data set: the source of each under ``image``, what it is called under ``name``.

    Args:
        input: one exam (a folder, a zip, a packed file, a list of two files, a mapping ``{frontal, lateral}``), or
            many: a folder of such folders and zips, or a ``.json`` list of sources.
        frontal: one frontal radiograph, instead of ``input``.
        lateral: its lateral radiograph.
        geometry_file: the geometry of that pair, JSON; needed unless the files or options tell it.

    Raises:
        ValueError: nothing to reconstruct, half a pair, or two exams of one name; the message says what is wrong.
    """
    pair = {"frontal": frontal, "lateral": lateral, "geometry_file": geometry_file}
    given = {name: str(path) for name, path in pair.items() if path}
    if input and given:
        raise ValueError(f"give --input or a pair of files, not both: got input={str(input)!r} and {sorted(given)}")
    if given:
        missing = [f"--{view}" for view in VIEWS if view not in given]
        if missing:
            raise ValueError(f"one exam needs --frontal and --lateral; missing {' and '.join(missing)}")
        return _items([given])
    if not input:
        raise ValueError("nothing to reconstruct: give --input, or --frontal and --lateral")
    if not isinstance(input, (str, Path)):
        return _items([input])
    path = Path(input)
    if not path.exists():
        raise ValueError(f"{path}: no such folder or file; --input is an exam, or a folder of exams")
    if path.suffix == ".json":
        return _items(_read_list(path))
    if path.is_file() or _is_one_exam(path):
        return _items([str(path)])
    exams = [p for p in _visible(path) if p.is_dir() or p.suffix.lower() == ".zip"]
    if not exams:
        raise ValueError(f"{path}: holds no radiographs and no folder or zip with some")
    return _items([str(p) for p in exams])


def exam_name(source: Source) -> str:
    """What an exam is called: its folder, zip or packed file, or the folder of its first file."""
    if isinstance(source, Mapping):
        return Path(source["frontal"]).resolve().parent.name
    if not isinstance(source, (str, Path)):
        return Path(source[0]).resolve().parent.name
    path = Path(source).resolve()
    return path.name if path.is_dir() else path.name.split(".")[0]


def _items(sources: Sequence[Source]) -> list[dict[str, Any]]:
    items = [{"image": source, "name": exam_name(source)} for source in sources]
    seen: dict[str, Source] = {}
    for item in items:
        folder = safe_name(item["name"])
        if folder in seen:
            raise ValueError(
                f"two exams would both be written to {folder!r}: {seen[folder]} and {item['image']}; rename one"
            )
        seen[folder] = item["image"]
    return items


def _is_one_exam(folder: Path) -> bool:
    """Whether its files are radiographs, or those of two sub-folders with one file each, as exports have them."""
    if any(p.is_file() and p.suffix.lower() not in _NOT_RADIOGRAPHS for p in _visible(folder)):
        return True
    counts = [len([f for f in _visible(p) if f.is_file()]) for p in _visible(folder) if p.is_dir()]
    return counts == [1, 1]


def _visible(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if not p.name.startswith("."))


def _read_list(path: Path) -> list[Source]:
    """The sources in a JSON list; relative paths are relative to the file."""
    try:
        sources = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error})") from error
    if not isinstance(sources, list) or not sources:
        raise ValueError(f"{path}: expected a list of exams, got {type(sources).__name__}; see docs/radiographs.md")
    return [_resolved(source, path) for source in sources]


def _resolved(source: Any, path: Path) -> Source:
    beside = path.resolve().parent
    if isinstance(source, str):
        return str(beside / source)
    if isinstance(source, list) and all(isinstance(p, str) for p in source) and len(source) == 2:
        return [str(beside / p) for p in source]
    if isinstance(source, dict) and {*VIEWS} <= source.keys() <= {*VIEWS, "geometry_file"}:
        return {name: str(beside / p) for name, p in source.items()}
    raise ValueError(f"{path}: an exam is a path, two paths, or an object with {' and '.join(VIEWS)}; got {source!r}")


class LoadExamd(MapTransform):
    """Reads an exam into network units: an image ``[2, N, N]`` whose ``meta`` carries everything else about it.

    The value under each key is a case folder or a mapping ``{frontal, lateral, geometry_file}``. ``meta`` holds
    ``name``, ``volume_affine`` (RAS, of the volume to reconstruct), and ``exam``, JSON text (which MONAI's collation
    leaves alone) with ``files`` (path to sha256), ``options``, ``inputs`` and ``warnings``.

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
        exam = {"files": {str(path): sha256(path) for path in files}, "options": {}, "inputs": {}, "warnings": []}
        meta = {
            "name": case.name,
            "volume_affine": np.asarray(case.affine, dtype=np.float64),
            "exam": json.dumps(exam),
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
