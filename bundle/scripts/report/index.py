"""The index of a batch: one HTML table of all exams, each with a link to its report."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from scripts.report.document import document
from scripts.report.page import PAGE_FILE


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
    """An exam: its name, the link to its report (empty if there is none), whether it failed, and its other cells."""

    exam: str
    link: str
    failed: bool
    cells: Sequence[Cell]


def write_index(path: str | Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the table, failed exams first.

    Args:
        path: file to write, in the parent of the exams' folders.
        rows: one mapping per exam. Each has ``exam`` and ``status`` (``failed`` stands out); where they apply
            ``folder`` (its name), the numbers ``reprojection_frontal`` and ``reprojection_lateral`` (relative L2),
            ``warnings`` (how many), ``seconds``, and the text ``error``. An exam whose folder holds a report links to
            it.
    """
    path = Path(path)
    ordered = sorted(rows, key=lambda row: row["status"] != "failed")
    counts = {"Exams": len(ordered), **Counter(row["status"] for row in ordered)}
    page = document(
        "index.html",
        scripts=["index.js"],
        summary=", ".join(f"{name}: {count}" for name, count in counts.items()),
        heads=["Exam", *(column.label for column in _COLUMNS.values())],
        rows=[_row(row, path.parent) for row in ordered],
    )
    path.write_bytes(page)


def _row(row: Mapping[str, Any], parent: Path) -> Row:
    link = _link(row.get("folder") or "", parent)
    cells = [_cell(column, row.get(name)) for name, column in _COLUMNS.items()]
    return Row(str(row["exam"]), link, row["status"] == "failed", cells)


def _cell(column: Column, value: Any) -> Cell:
    if value is None or value == "":
        return Cell(column.label, "", None)
    if column.number is None:
        return Cell(column.label, str(value), None)
    return Cell(column.label, column.number.format(value), value)


def _link(folder: str, parent: Path) -> str:
    """Return the address of the report in ``folder``, relative to the index."""
    if not folder or not (parent / folder / PAGE_FILE).is_file():
        return ""
    return f"{quote(os.fsencode(folder), safe='')}/{PAGE_FILE}"
