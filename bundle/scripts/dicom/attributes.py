"""Values of a DICOM header, whichever way they are written."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue


def text(dataset: Dataset, keyword: str) -> str:
    """A short value in capitals; empty where there is none."""
    value = dataset.get(keyword)
    return "" if value is None else str(value).strip().upper()


def is_stated(dataset: Dataset, keyword: str) -> bool:
    """Whether an element is there with a value."""
    return dataset.get(keyword) not in (None, "", b"", [])


def finite(value: Any) -> float | None:
    """A finite number; None for anything else."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def number(dataset: Dataset, keyword: str) -> float | None:
    """A finite number; None where the file does not state one."""
    return finite(dataset.get(keyword))


def positive(dataset: Dataset, keyword: str) -> float | None:
    """A positive number; zero is how equipment writes that it does not know."""
    value = number(dataset, keyword)
    return value if value is not None and value > 0 else None


def pitch(dataset: Dataset, keyword: str) -> tuple[float, float] | None:
    """Two positive numbers, of rows and columns."""
    try:
        rows, columns = map(finite, dataset.get(keyword) or ())
    except (TypeError, ValueError):
        return None
    return (rows, columns) if rows and columns and min(rows, columns) > 0 else None


def integer(path: str | Path, dataset: Dataset, keyword: str, default: int | None = None) -> int:
    """A whole number, or ``default`` where the file states none.

    Raises:
        ValueError: another value, or none without a default.
    """
    value = dataset.get(keyword) if is_stated(dataset, keyword) else default
    if not isinstance(value, int):
        raise ValueError(f"{path}: {keyword} is {value!r}, expected a whole number; export it again")
    return int(value)


def numbers(path: str | Path, dataset: Dataset, keyword: str, count: int) -> tuple[float, ...]:
    """As many finite numbers as an element has.

    Raises:
        ValueError: not so many, or something else.
    """
    value = dataset.get(keyword)
    items = value if isinstance(value, MultiValue | list | tuple) else [value]
    found = [item for item in map(finite, items) if item is not None]
    if len(found) != count or len(items) != count:
        raise ValueError(f"{path}: {keyword} is {list(map(str, items))}, expected {count} numbers; export it again")
    return tuple(found)
