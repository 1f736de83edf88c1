"""Masking of the pixels that a DICOM header declares as shutter, collimator or padding."""

from __future__ import annotations

from collections.abc import MutableSequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from pydicom.dataset import Dataset

_KINDS = ("Shutter", "Collimator")
_SIDES = ("LeftVerticalEdge", "RightVerticalEdge", "UpperHorizontalEdge", "LowerHorizontalEdge")
KEYWORDS = (
    *(f"{kind}{name}" for kind in _KINDS for name in ("Shape", *_SIDES)),
    *(
        f"{name}{kind}"
        for kind in _KINDS
        for name in ("CenterOfCircular", "RadiusOfCircular", "VerticesOfThePolygonal")
    ),
)
"""Elements read by :func:`shown_area`: PS3.3 C.7.6.11 (shutter), C.8.7.3 (collimator)."""


def shown_area(dataset: Dataset, is_padding: np.ndarray) -> np.ndarray | None:
    """Return a mask of pixels not covered by shutter, collimator or padding; None if the header declares none.

    A shape that the header names without a description, or with an invalid one, hides nothing.

    Args:
        dataset: decoded elements, including :data:`KEYWORDS`.
        is_padding: mask of padding ``[rows, columns]``.

    Returns:
        bool ``[rows, columns]``.
    """
    area = ~is_padding
    for kind in _KINDS:
        named = _texts(dataset, f"{kind}Shape")
        for shape, inside in (("RECTANGULAR", _rectangle), ("CIRCULAR", _circle), ("POLYGONAL", _polygon)):
            if shape in named:
                area &= inside(dataset, kind, is_padding.shape)
    return None if area.all() else area


def _rectangle(dataset: Dataset, kind: str, shape: tuple[int, int]) -> np.ndarray:
    """Return the mask between the edges, which are counted from 1 and belong to the shutter."""
    rows, columns = _indices(shape)
    edges = [_numbers(dataset, f"{kind}{side}", 1) for side in _SIDES]
    low, high = (-np.inf,), (np.inf,)
    (left,), (right,), (upper,), (lower,) = (
        edge or default for edge, default in zip(edges, (low, high, low, high), strict=True)
    )
    return (columns > left) & (columns < right) & (rows > upper) & (rows < lower)


def _circle(dataset: Dataset, kind: str, shape: tuple[int, int]) -> np.ndarray:
    centre, radius = _numbers(dataset, f"CenterOfCircular{kind}", 2), _numbers(dataset, f"RadiusOfCircular{kind}", 1)
    if not centre or not radius:
        return np.ones(shape, dtype=bool)
    rows, columns = _indices(shape)
    return (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 < radius[0] ** 2


def _polygon(dataset: Dataset, kind: str, shape: tuple[int, int]) -> np.ndarray:
    values = _numbers(dataset, f"VerticesOfThePolygonal{kind}")
    if len(values) < 6 or len(values) % 2:
        return np.ones(shape, dtype=bool)
    rows, columns = shape
    mask = Image.new("1", (columns, rows))
    corners = [(column - 1, row - 1) for row, column in zip(values[::2], values[1::2], strict=True)]
    ImageDraw.Draw(mask).polygon(corners, fill=1, outline=0)
    return np.asarray(mask)


def _indices(shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return row and column indices, counted from 1 as in DICOM."""
    rows, columns = np.indices(shape, sparse=True)
    return rows + 1, columns + 1


def _texts(dataset: Dataset, keyword: str) -> list[str]:
    value = dataset.get(keyword) or ()
    return [str(entry).strip() for entry in ([value] if isinstance(value, str) else _listed(value))]


def _numbers(dataset: Dataset, keyword: str, count: int | None = None) -> list[int]:
    """Return the whole numbers of an element; empty unless it holds exactly ``count`` of them."""
    values = _listed(dataset.get(keyword))
    if not all(isinstance(value, int) for value in values) or count not in (None, len(values)):
        return []
    return [int(value) for value in values]


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, MutableSequence) else [value]
