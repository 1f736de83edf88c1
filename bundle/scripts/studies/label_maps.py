"""Label maps: the meaning of a segmenter's classes, and the input it expects."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Ids = tuple[int, ...]


@dataclass(frozen=True)
class Description:
    """Label map of a segmenter, and the input it expects.

    Attributes:
        labels: the segmenter's classes that make up each structure, by name.
        dataset_labels: the values in the data set's own label files that make up each structure, by name.
        hu_range: HU mapped to 0 and 1; values beyond are clipped. TorchScript only.
        spacing_mm: voxel spacing of the network's input. TorchScript only.
        window: voxels along u, v, w of the network's input, if it cannot take a whole volume. TorchScript only.

    Raises:
        ValueError: a name or value is invalid.
    """

    labels: Mapping[str, Ids] = field(default_factory=dict)
    dataset_labels: Mapping[str, Ids] = field(default_factory=dict)
    hu_range: tuple[float, float] | None = None
    spacing_mm: float | None = None
    window: tuple[int, int, int] | None = None

    def __post_init__(self) -> None:
        low_high, spacing_mm, window = self.hu_range, self.spacing_mm, self.window
        if low_high is not None and not (_are_numbers(low_high, 2) and low_high[0] < low_high[1]):
            raise ValueError(f"hu_range must be [low, high] in HU, got {low_high!r}; write e.g. [-1000, 1000]")
        if spacing_mm is not None and not (_are_numbers([spacing_mm], 1) and 0 < spacing_mm < math.inf):
            raise ValueError(f"spacing_mm must be a positive number of millimetres, got {spacing_mm!r}; write e.g. 1.5")
        if window is not None and not (_are_numbers(window, 3) and all(n >= 1 and n % 1 == 0 for n in window)):
            raise ValueError(f"window must be three counts of voxels, got {window!r}; write e.g. [96, 96, 96]")
        unknown = sorted(set(self.dataset_labels) - set(self.labels)) if self.labels else []
        if unknown:
            raise ValueError(
                f"label map: dataset_labels names {unknown[0]!r}, which the segmenter does not find; choose from "
                f"{', '.join(self.labels)}"
            )


def read_description(path: str | Path) -> Description:
    """Read a label map; see ``docs/segmentation.md`` for its keys.

    Raises:
        ValueError: the file is missing, not JSON, or has a wrong key or value; the message names the file and the
            remedy.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no label map; a segmenter's classes are never guessed, write them to a JSON file")
    try:
        values = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a JSON label map ({error})") from error
    known = set(Description.__dataclass_fields__)
    if not isinstance(values, dict) or set(values) - known:
        got = sorted(set(values) - known) if isinstance(values, dict) else type(values).__name__
        raise ValueError(f"{path}: a label map is a JSON object with the keys {', '.join(sorted(known))}, got {got}")
    try:
        if "labels" in values:
            values["labels"] = structures(values["labels"])
        if "dataset_labels" in values:
            values["dataset_labels"] = _meanings(values["dataset_labels"])
        return Description(**values)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def structures(labels: Any) -> dict[str, Ids]:
    """Convert ``{"1": "lung", "2": "lung", "3": "rib left"}`` to ``{"lung": (1, 2), "rib_left": (3,)}``; omit class 0.

    Raises:
        ValueError: there is no structure, or a class is not a number.
    """
    found: dict[str, Ids] = {}
    if isinstance(labels, Mapping) and all(str(label).isdecimal() for label in labels):
        for label, name in labels.items():
            if int(label) > 0:
                found[_column(name)] = (*found.get(_column(name), ()), int(label))
    if not found:
        raise ValueError(f'labels must map class numbers to names, got {labels!r}; write e.g. {{"1": "lung"}}')
    return found


def _meanings(labels: Any) -> dict[str, Ids]:
    lists = list(labels.values()) if isinstance(labels, Mapping) else [None]
    if not all(isinstance(values, list) and values and _are_numbers(values, len(values)) for values in lists):
        raise ValueError(f'dataset_labels must map names to lists of values, got {labels!r}; write {{"lung": [4]}}')
    return {_column(name): tuple(int(value) for value in values) for name, values in labels.items()}


def _are_numbers(values: Any, count: int) -> bool:
    return isinstance(values, list | tuple) and len(values) == count and all(isinstance(v, int | float) for v in values)


def _column(name: str) -> str:
    """Convert a structure's name for use in a column name."""
    return "_".join(str(name).split())
