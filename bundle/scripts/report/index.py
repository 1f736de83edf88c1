"""The index of a batch: one HTML table of all exams, each with a link to its report."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from scripts.report.document import Html, document, filled, joined, tag
from scripts.report.page import PAGE_FILE

_COLUMNS = {
    "exam": "Exam",
    "status": "Status",
    "reprojection_frontal": "Re-projection error, frontal",
    "reprojection_lateral": "Re-projection error, lateral",
    "warnings": "Warnings",
    "seconds": "Seconds",
    "error": "Error",
}
_FORMATS = {"reprojection_frontal": "{:.1%}", "reprojection_lateral": "{:.1%}", "warnings": "{}", "seconds": "{:.1f}"}
"""Columns of numbers."""


def write_index(path: str | Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the table, failed exams first.

    Args:
        path: file to write, beside the folders of the exams.
        rows: ``exam`` and ``status`` (``failed`` stands out); where they apply ``folder`` (its name), the numbers
            ``reprojection_frontal`` and ``reprojection_lateral`` (relative L2), ``warnings`` (how many), ``seconds``,
            and the text ``error``. An exam whose folder holds a report is a link to it.
    """
    path = Path(path)
    ordered = sorted(rows, key=lambda row: row["status"] != "failed")
    counts = Counter(row["status"] for row in ordered)
    heads = (tag("th", tag("button", name, type="button"), scope="col") for name in _COLUMNS.values())
    body = filled(
        "index.html",
        summary=", ".join(f"{status}: {count}" for status, count in {"Exams": len(ordered), **counts}.items()),
        heads=joined(*heads),
        rows=joined(*(_row(row, path.parent) for row in ordered)),
    )
    path.write_bytes(document("CT from radiographs: index", body, "index.js"))


def _row(row: Mapping[str, Any], parent: Path) -> Html:
    cells = []
    for column, label in _COLUMNS.items():
        value = row.get(column, "")
        known = value not in ("", None)
        text = _FORMATS.get(column, "{}").format(value) if known else ""
        if column == "exam":
            text = _linked(str(value), str(row.get("folder") or ""), parent)
        number = value if known and column in _FORMATS else None
        cells.append(tag("td", text, data_label=label if known else None, data_number=number))
    return tag("tr", *cells, class_="failed" if row["status"] == "failed" else None)


def _linked(name: str, folder: str, parent: Path) -> Html:
    if not folder or not (parent / folder / PAGE_FILE).is_file():
        return tag("bdi", name)
    return tag("a", tag("bdi", name), href=f"{quote(os.fsencode(folder), safe='')}/{PAGE_FILE}")
