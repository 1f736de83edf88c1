"""Assignment of patients to training, validation and test, which is decided once."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

SPLITS = ("train", "val", "test")


def decide_splits(
    rows: dict[str, dict[str, Any]],
    known: Mapping[str, Mapping[str, Any]],
    splits_csv: str | Path | None,
    val: float,
    test: float,
    seed: int,
) -> None:
    """Fill the ``patient`` and ``split`` columns of manifest rows; a known patient never moves.

    Args:
        rows: ``{case: row}``, changed in place; each row has its scan's ``patient``.
        known: rows of an earlier run into the same folder.
        splits_csv: table to follow (see :func:`read_splits`); without it patients are assigned at random.
        val: see :func:`assign_at_random`.
        test: see :func:`assign_at_random`.
        seed: see :func:`assign_at_random`.

    Raises:
        ValueError: a scan has no row in the table, or a patient would move.
    """
    decided = {row["patient"]: row["split"] for row in known.values()}
    if splits_csv is None:
        for name, row in rows.items():
            row["patient"] = known.get(name, row)["patient"]
        assigned = assign_at_random((row["patient"] for row in rows.values()), decided, val, test, seed)
        for row in rows.values():
            row["split"] = assigned[row["patient"]]
        return
    table = read_splits(splits_csv)
    missing = [name for name, row in rows.items() if name not in table and row["patient"] not in table]
    if missing:
        raise ValueError(f"{splits_csv}: no row for {missing}; add one named after each case or its patient")
    for name, row in rows.items():
        row |= table.get(name) or table[row["patient"]]
        before = known[name]["split"] if name in known else decided.get(row["patient"], row["split"])
        if before != row["split"]:
            raise ValueError(
                f"{splits_csv}: {name!r} of patient {row['patient']!r} is in {row['split']}, but an earlier run put it "
                f"in {before}; a patient never moves: correct the table or use a new output folder"
            )


def read_splits(path: str | Path) -> dict[str, dict[str, str]]:
    """Read a CSV with the columns ``name``, ``split`` and optionally ``patient``.

    Returns:
        ``{name: {"split": ..., "patient": ...}}``; without a patient column the name is the patient.

    Raises:
        ValueError: the file or a column is missing, a split is unknown, a name occurs twice, or a patient is in two
            splits.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such splits CSV; check --splits_csv")
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    columns = list(rows[0]) if rows else []
    if not {"name", "split"} <= set(columns):
        raise ValueError(f"{path}: a splits CSV needs rows and the columns name and split, got the columns {columns}")
    table: dict[str, dict[str, str]] = {}
    for row in rows:
        if row["split"] not in SPLITS:
            raise ValueError(f"{path}: split of {row['name']!r} must be one of {SPLITS}, got {row['split']!r}")
        if row["name"] in table:
            raise ValueError(f"{path}: {row['name']!r} appears twice; keep one row")
        table[row["name"]] = {"split": row["split"], "patient": row.get("patient") or row["name"]}
    _check_one_split_per_patient(table.values(), path)
    return table


def assign_at_random(
    patients: Iterable[str], known: Mapping[str, str], val: float, test: float, seed: int
) -> dict[str, str]:
    """Assign patients to splits, keeping those that have one.

    Args:
        patients: all patients.
        known: ``{patient: split}`` decided earlier, never changed.
        val: fraction of all patients (below 1) or number of patients (1 or more) for validation.
        test: fraction or number of patients for testing.
        seed: seed of the shuffle; the same patients and seed give the same splits.

    Raises:
        ValueError: a fraction is negative, or there are fewer patients than validation and test need.
    """
    everyone = sorted(set(patients) | set(known))
    wanted = {"test": _count("test", test, len(everyone)), "val": _count("val", val, len(everyone))}
    if sum(wanted.values()) > len(everyone):
        raise ValueError(f"splits: {wanted} patients asked for, but there are only {len(everyone)}")
    assigned = dict(known)
    undecided = [p for p in everyone if p not in known]
    shuffled = [undecided[i] for i in np.random.default_rng(seed).permutation(len(undecided))]
    for split, count in wanted.items():
        lacking = max(count - sum(s == split for s in known.values()), 0)
        assigned.update(dict.fromkeys(shuffled[:lacking], split))
        shuffled = shuffled[lacking:]
    return assigned | dict.fromkeys(shuffled, "train")


def _count(name: str, share: float, total: int) -> int:
    if share < 0 or (share >= 1 and share != int(share)):
        raise ValueError(f"splits: {name} must be a fraction below 1 or a whole number of patients, got {share!r}")
    return int(share) if share >= 1 else math.floor(share * total + 0.5)


def _check_one_split_per_patient(rows: Iterable[Mapping[str, str]], path: Path) -> None:
    seen: dict[str, str] = {}
    for row in rows:
        patient, split = row["patient"], row["split"]
        if seen.setdefault(patient, split) != split:
            raise ValueError(f"{path}: patient {patient!r} is in {seen[patient]} and in {split}; choose one split")
