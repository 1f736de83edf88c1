"""The index of a batch: one HTML table of all exams, each with its thumbnail and a link to its report."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from scripts.report.document import document
from scripts.report.page import PAGE_FILE
from scripts.report.thumbnail import EDGE, THUMBNAIL_FILE, WIDTH


class Column(NamedTuple):
    """A column after the exam's name: its label, and the format of its numbers, which is None for texts."""

    label: str
    number: str | None = None


_COLUMNS = {
    "status": Column("Status"),
    "reprojection_frontal": Column("Re-projection error, frontal", "{:.1%}"),
    "reprojection_lateral": Column("Re-projection error, lateral", "{:.1%}"),
    "warnings": Column("Warnings", "{}"),
    "seconds": Column("Seconds", "{:.1f}"),
    "error": Column("Error"),
}


class Cell(NamedTuple):
    """A cell: the label of its column, its text (empty if unknown), and the number that sorts it."""

    label: str
    text: str
    number: float | None


class Row(NamedTuple):
    """An exam: its name, the addresses of its report and thumbnail (empty if there is none), and its other cells.

    ``status`` and ``warnings``, their number or an empty text, are what readers filter by.
    """

    exam: str
    link: str
    thumbnail: str
    status: str
    warnings: str
    cells: Sequence[Cell]


def write_index(path: str | Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the table, failed exams first.

    Args:
        path: file to write, in the parent of the exams' folders.
        rows: one mapping per exam. Each has ``exam`` and ``status`` (``failed`` stands out); where they apply
            ``folder`` (its name), the numbers ``reprojection_frontal`` and ``reprojection_lateral`` (relative L2),
            ``warnings`` (how many), ``seconds``, and the text ``error``. An exam whose folder holds a report links to
            it and shows the thumbnail, if there is one; the index itself carries no pictures.
    """
    path = Path(path)
    ordered = sorted(rows, key=lambda row: row["status"] != "failed")
    statuses = Counter(row["status"] for row in ordered)
    counts = {"Exams": len(ordered), **statuses}
    page = document(
        "index.html",
        scripts=["index.js"],
        summary=", ".join(f"{name}: {count}" for name, count in counts.items()),
        statuses=statuses,
        width=WIDTH,
        height=EDGE,
        heads=["Exam", *(column.label for column in _COLUMNS.values())],
        rows=[_row(row, path.parent) for row in ordered],
    )
    path.write_bytes(page)


def _row(row: Mapping[str, Any], parent: Path) -> Row:
    link, small = (_address(row.get("folder") or "", name, parent) for name in (PAGE_FILE, THUMBNAIL_FILE))
    cells = [_cell(column, row.get(name)) for name, column in _COLUMNS.items()]
    warnings = _cell(_COLUMNS["warnings"], row.get("warnings")).text
    return Row(str(row["exam"]), link, small, row["status"], warnings, cells)


def _cell(column: Column, value: Any) -> Cell:
    if value is None or value == "":
        return Cell(column.label, "", None)
    if column.number is None:
        return Cell(column.label, str(value), None)
    return Cell(column.label, column.number.format(value), value)


def _address(folder: str, name: str, parent: Path) -> str:
    """Return the address of a file in ``folder``, relative to the index; empty if there is none."""
    if not folder or not (parent / folder / name).is_file():
        return ""
    return f"{quote(os.fsencode(folder), safe='')}/{name}"
