"""Tables of a page: the content of ``result.json`` as labels and texts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

_PLACED = (
    "notice",
    "exam",
    "warnings",
    "reprojection_error",
    "reprojection_error_is",
    "metrics",
    "inputs",
    "geometry",
    "inputs_sha256",
)
"""Entries that the page shows elsewhere; all others are provenance."""
_UNITS = {"mm": "mm", "deg": "°", "hu": "HU", "db": "dB"}
_SPELLINGS = {
    "amp": "mixed precision",
    "dice": "Dice",
    "mae": "MAE",
    "psnr": "PSNR",
    "psnr2d": "PSNR 2D",
    "psnr3d": "PSNR 3D",
    "sha256": "SHA-256",
    "ssim": "SSIM",
    "ssim2d": "SSIM 2D",
    "ssim3d": "SSIM 3D",
    "std": "SD",
    "x2ct": "X2CT",
}


class Row(NamedTuple):
    """A line of a table: its label, and either a text or numbered steps."""

    label: str
    text: str
    steps: Sequence[str] = ()


def tables(record: Mapping[str, Any]) -> dict[str, list[Row]]:
    """Return the rows of every table by its title; tables without rows are left out.

    Args:
        record: content of ``result.json``; see :func:`scripts.report.page.write_page`.
    """
    metrics = {k: math.nan if v is None else float(f"{v:.4g}") for k, v in record.get("metrics", {}).items()}
    parts = {"Agreement with the truth": metrics}
    parts |= {f"{view.capitalize()} radiograph": facts for view, facts in record.get("inputs", {}).items()}
    parts |= {"Geometry": record.get("geometry", {}), "SHA-256 of the inputs": record.get("inputs_sha256", {})}
    parts |= {"Provenance": {key: value for key, value in record.items() if key not in _PLACED}}
    return {title: list(_rows(facts)) for title, facts in parts.items() if facts}


def _rows(facts: Mapping[str, Any], above: str = "") -> Iterator[Row]:
    """List the entries of a record and of the records inside it."""
    for name, value in facts.items():
        label = above + (_label(name) if name.isidentifier() else name)
        if isinstance(value, Mapping):
            yield from _rows(value, f"{label}: ")
        elif name == "steps" and value and isinstance(value, list | tuple):
            yield Row("Processing", "", value)
        else:
            yield Row("Processing" if name == "steps" else label, _text(value))


def _label(name: str) -> str:
    """Spell ``source_to_detector_mm`` as "Source to detector (mm)"."""
    *words, last = name.split("_")
    unit = f" ({_UNITS[last]})" if words and last in _UNITS else ""
    label = " ".join(_SPELLINGS.get(word, word) for word in (words if unit else [*words, last]))
    return label[:1].upper() + label[1:] + unit


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return "–" if math.isnan(value) else f"{value:.6g}".replace("inf", "∞").replace("-", "−")
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(_text, value)) or "none"
    return "not stated" if value is None else str(value)
