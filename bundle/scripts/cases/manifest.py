"""Tables of a prepared data set: one row per scan, and the case names of each split."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from scripts.cases.splits import SPLITS
from scripts.io.text import write_text

COLUMNS = (
    "case", "patient", "split", "status", "reason", "source", "shape", "spacing_mm", "orientation", "hu_min", "hu_max",
    "sha256",
)  # fmt: skip
MANIFEST_FILE = "manifest.csv"
SPLITS_FILE = "splits.json"
Row = dict[str, Any]


def case_folders(dataset_dir: str | Path, split: str) -> list[Path]:
    """Return the case folders listed for one split of a prepared data set, in order, whether they exist or not.

    Args:
        dataset_dir: output of ``prepare.json``, with ``splits.json`` and ``cases/``.
        split: one of :data:`~scripts.cases.splits.SPLITS`.

    Raises:
        ValueError: the folder is not a prepared data set, or the split is unknown or has no cases.
    """
    path = Path(dataset_dir) / SPLITS_FILE
    if split not in SPLITS:
        raise ValueError(f"split: choose one of {', '.join(SPLITS)} with --split, got {split!r}")
    if not path.is_file():
        raise ValueError(f"{path}: not found; {dataset_dir} must be the output folder of prepare.json")
    names = json.loads(path.read_text()).get(split, [])
    if not names:
        raise ValueError(f"{path}: split {split!r} has no case; choose another split or another data set")
    return [Path(dataset_dir) / "cases" / name for name in names]


def read_manifest(folder: str | Path) -> dict[str, Row]:
    """Read ``{case: row}`` of an earlier run; empty if there was none."""
    path = Path(folder) / MANIFEST_FILE
    if not path.is_file():
        return {}
    with path.open(newline="") as file:
        return {row["case"]: row for row in csv.DictReader(file)}


@contextmanager
def saved_tables(folder: Path, rows: Mapping[str, Row]) -> Iterator[None]:
    """Write both tables before the block and, even if it fails, after it, so that splits survive an interruption."""
    _write_tables(folder, rows)
    try:
        yield
    finally:
        _write_tables(folder, rows)


def _write_tables(folder: Path, rows: Mapping[str, Row]) -> None:
    ordered = [rows[case] for case in sorted(rows)]
    table = io.StringIO()
    writer = csv.DictWriter(table, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(ordered)
    write_text(folder / MANIFEST_FILE, table.getvalue())
    done = [row for row in ordered if row["status"] == "ok"]
    splits = {split: [row["case"] for row in done if row["split"] == split] for split in SPLITS}
    write_text(folder / SPLITS_FILE, json.dumps(splits, indent=2))
