"""Tables of measurements as text: one row per case, method and estimate, and their summary."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

KEYS = ("case", "method", "estimate")
"""Columns that identify the measured volume; all others are metrics."""
SINGLE = "single"
"""Name of the estimate that is a single volume of the method, not a mean of samples."""
_FORMULA = ("=", "+", "-", "@", "\t")
"""Beginnings of a text that a spreadsheet takes for a formula."""
Row = Mapping[str, Any]


class Statistic(NamedTuple):
    """Mean and sample standard deviation over the ``n`` cases that have a value; NaN if there are too few."""

    mean: float
    std: float
    n: int


Summary = dict[tuple[str, str], dict[str, Statistic]]
"""``{(method, estimate): {metric: statistic}}``, in the order of the rows."""


def summarise(rows: Sequence[Row]) -> Summary:
    """Return statistics of every metric over the cases, for each method and estimate."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["method"], row["estimate"]), []).append(row)
    return {
        key: {metric: _statistic([row[metric] for row in group]) for metric in group[0] if metric not in KEYS}
        for key, group in groups.items()
    }


def to_csv(rows: Sequence[Row], header: bool = True) -> str:
    """Format rows as CSV with the columns of the first row; numbers have six digits, NaN and infinity are empty.

    A text that a spreadsheet would take for a formula gets an apostrophe in front.

    Args:
        rows: at least one row.
        header: whether to begin with a line of the columns' names; lines without one continue a table.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    if header:
        writer.writeheader()
    writer.writerows({name: _entry(value) for name, value in row.items()} for row in rows)
    return text.getvalue()


def summary_rows(summary: Summary) -> list[dict[str, Any]]:
    """Return one row per method, estimate and metric, with mean, std and n."""
    return [
        {"method": method, "estimate": estimate, "metric": metric, **statistic._asdict()}
        for (method, estimate), statistics in summary.items()
        for metric, statistic in statistics.items()
    ]


def summary_json(summary: Summary) -> list[dict[str, Any]]:
    """Return one JSON-ready object per method and estimate; values that are not finite become None."""
    return [
        {
            "method": method,
            "estimate": estimate,
            "metrics": {
                metric: {name: _finite(value) for name, value in statistic._asdict().items()}
                for metric, statistic in statistics.items()
            },
        }
        for (method, estimate), statistics in summary.items()
    ]


def to_markdown(summary: Summary) -> str:
    """Format one line per metric and one column per method and estimate: mean ± standard deviation over cases."""
    columns = list(summary.values())
    heads = [method if estimate == SINGLE else f"{method}, {estimate}" for method, estimate in summary]
    most = max(statistic.n for column in columns for statistic in column.values())
    lines = [["metric", *heads], ["---", *["---:"] * len(heads)]]
    lines += [[metric, *(_cell(column[metric], most) for column in columns)] for metric in columns[0]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _statistic(values: Sequence[float]) -> Statistic:
    present = np.array([value for value in values if not math.isnan(value)])
    n = len(present)
    with np.errstate(invalid="ignore"):
        return Statistic(float(present.mean()) if n else math.nan, float(present.std(ddof=1)) if n > 1 else math.nan, n)


def _cell(statistic: Statistic, most: int) -> str:
    if statistic.n == 0:
        return "–"
    spread = "" if math.isnan(statistic.std) else f" ± {_number(statistic.std)}"
    return f"{_number(statistic.mean)}{spread}" + (f" (n = {statistic.n})" if statistic.n < most else "")


def _number(value: float) -> str:
    """Format a number to about four digits, never with an exponent."""
    decimals = 1 if abs(value) >= 100 else 2 if abs(value) >= 10 else 3
    return f"{value:.{decimals}f}"


def _entry(value: Any) -> Any:
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    return f"{value:.6g}" if isinstance(value, float) and math.isfinite(value) else _finite(value)


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
