"""Robust access to the values of a DICOM header."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue


def text(dataset: Dataset, keyword: str) -> str:
    """Return a short value in capitals; empty if there is none."""
    value = dataset.get(keyword)
    return "" if value is None else str(value).strip().upper()


def is_stated(dataset: Dataset, keyword: str) -> bool:
    """Return whether an element is present and has a value."""
    return dataset.get(keyword) not in (None, "", b"", [])


def finite(value: Any) -> float | None:
    """Convert a value to a finite number; None for anything else."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def number(dataset: Dataset, keyword: str) -> float | None:
    """Return a finite number; None if the file does not state one."""
    return finite(dataset.get(keyword))


def positive(dataset: Dataset, keyword: str) -> float | None:
    """Return a positive number or None; equipment writes zero for unknown values."""
    value = number(dataset, keyword)
    return value if value is not None and value > 0 else None


def pitch(dataset: Dataset, keyword: str) -> tuple[float, float] | None:
    """Return the pitch between rows and between columns, two positive numbers, or None."""
    try:
        rows, columns = map(finite, dataset.get(keyword) or ())
    except (TypeError, ValueError):
        return None
    return (rows, columns) if rows and columns and min(rows, columns) > 0 else None


def integer(path: str | Path, dataset: Dataset, keyword: str, default: int | None = None) -> int:
    """Return a whole number, or ``default`` if the file states none.

    Raises:
        ValueError: the value is not a whole number, or is missing and there is no default.
    """
    value = dataset.get(keyword) if is_stated(dataset, keyword) else default
    if not isinstance(value, int):
        raise ValueError(f"{path}: {keyword} is {value!r}, expected a whole number; export it again")
    return int(value)


def numbers(path: str | Path, dataset: Dataset, keyword: str, count: int) -> tuple[float, ...]:
    """Return the ``count`` finite numbers of an element.

    Raises:
        ValueError: the element holds anything else.
    """
    value = dataset.get(keyword)
    items = value if isinstance(value, MultiValue | list | tuple) else [value]
    found = [item for item in map(finite, items) if item is not None]
    if len(found) != count or len(items) != count:
        raise ValueError(f"{path}: {keyword} is {list(map(str, items))}, expected {count} numbers; export it again")
    return tuple(found)
