"""Output of the tables of a measurement."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from scripts.io.text import write_text
from scripts.metrics.tables import Row, Summary, summary_json, summary_rows, to_csv


def write_tables(output_dir: Path, rows: Sequence[Row], summary: Summary, record: Mapping[str, Any], page: str) -> None:
    """Write ``cases.csv``, ``summary.csv``, ``summary.json`` and ``summary.md``, each atomically.

    Args:
        output_dir: output folder, created if needed.
        rows: measurements, one per row.
        summary: statistics of the rows.
        record: JSON-ready facts about the run.
        page: content of ``summary.md``.
    """
    output_dir.mkdir(parents=True, exist_ok=True)
    write_text(output_dir / "cases.csv", to_csv(rows))
    write_text(output_dir / "summary.csv", to_csv(summary_rows(summary)))
    numbers = {**record, "methods": summary_json(summary)}
    write_text(output_dir / "summary.json", json.dumps(numbers, indent=2, allow_nan=False) + "\n")
    write_text(output_dir / "summary.md", page)


class Text(NamedTuple):
    """Text of a page: a title, a description of the table, and explanations of its lines."""

    title: str
    about: str
    notes: Sequence[str] = ()


def page(text: Text, table: str, record: Mapping[str, Any]) -> str:
    """Format a measurement in Markdown: the table, its explanation, and facts about the run."""
    facts = [f"{key}: {value}" for key, value in record.items()]
    parts = [f"# {text.title}", table, text.about, _bullets(text.notes), "## Settings", _bullets(facts)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)
