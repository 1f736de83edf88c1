"""Comparison table of all methods: means over cases, paired differences from a reference, and costs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from scripts.metrics.paired import Difference, paired_difference
from scripts.metrics.tables import KEYS, SINGLE, Row, Statistic, summarise

SHOWN = {
    "psnr3d_db": ("PSNR3D (dB)", 2),
    "ssim3d": ("SSIM3D", 3),
    "mae_hu": ("MAE (HU)", 0),
    "mae_bone_hu": ("bone MAE (HU)", 0),
    "bias_bone_hu": ("bone bias (HU)", 0),
    "bone_dice": ("bone Dice", 3),
    "bone_precision": ("bone precision", 2),
    "bone_recall": ("bone recall", 2),
    "bone_volume_ratio": ("bone volume ratio", 2),
    "gradient_ratio_u": ("gradient ratio u", 2),
    "reprojection": ("re-projection", 3),
    "seconds": ("s / volume", 2),
}
"""Metrics shown in the Markdown table, with headings and decimals; the CSV has all."""
PAIRED = {"psnr3d_db": 2, "ssim3d": 3, "bone_dice": 3}
"""Metrics for which the Markdown table shows differences from the reference, with decimals."""


def numbers(rows: Sequence[Mapping[str, str]]) -> list[dict[str, Any]]:
    """Convert the metrics of CSV rows to floats; cells that are empty, or missing in an older file, become NaN."""
    metrics = [name for name in dict.fromkeys([*(name for row in rows for name in row), *SHOWN]) if name not in KEYS]
    return [
        {key: row[key] for key in KEYS} | {name: float(row.get(name) or math.nan) for name in metrics} for row in rows
    ]


def compare(rows: Sequence[Row], costs: Mapping[str, Mapping[str, Any]], reference: str) -> list[dict[str, Any]]:
    """Return one row per method: costs, and for every metric mean, std, n and the paired difference from a reference.

    Args:
        rows: measurements of single volumes, by case and method.
        costs: costs by method; a method without any (the mean volume) gets empty cells.
        reference: method that all others are compared with.

    Raises:
        ValueError: the reference was not measured.
    """
    rows = [row for row in rows if row["estimate"] == SINGLE]
    summary = {method: statistics for (method, _), statistics in summarise(rows).items()}
    if reference not in summary:
        raise ValueError(f"reference {reference!r} was not measured; choose one of {', '.join(summary)}")
    names = sorted({name for cost in costs.values() for name in cost})
    table = []
    for method, statistics in summary.items():
        line: dict[str, Any] = {"method": method} | {name: costs.get(method, {}).get(name) for name in names}
        for metric, statistic in statistics.items():
            difference = _difference(rows, method, reference, metric)
            line |= {f"{metric}_{k}": v for k, v in statistic._asdict().items()}
            line |= {f"{metric}_vs_{reference}_{k}": v for k, v in difference._asdict().items() if k != "n"}
        table.append(line)
    return table


def comparison_markdown(table: Sequence[Mapping[str, Any]], reference: str) -> str:
    """Format one line per method, best PSNR3D first: mean ± standard deviation, paired differences and costs."""
    heads = ["method", *(head for head, _ in SHOWN.values())]
    heads += [f"{SHOWN[metric][0]} − {reference}'s [95 %]" for metric in PAIRED]
    heads += ["parameters (M)", "training (min)", "peak memory (GiB)"]
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)]]
    for row in sorted(table, key=lambda row: -row["psnr3d_db_mean"]):
        line = [row["method"]]
        for metric, (_, digits) in SHOWN.items():
            line.append(_spread(Statistic(*(row[f"{metric}_{k}"] for k in Statistic._fields)), digits))
        for metric, digits in PAIRED.items():
            mean, low, high = (row[f"{metric}_vs_{reference}_{k}"] for k in ("mean", "low", "high"))
            line.append("–" if row["method"] == reference else _interval(mean, low, high, digits))
        line += [_cost(row, "parameters", 1e6, 2), _cost(row, "training_seconds", 60, 1)]
        line += [_cost(row, "training_peak_bytes", 2**30, 1)]
        lines.append(line)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _difference(rows: Sequence[Row], method: str, reference: str, metric: str) -> Difference:
    ours, theirs = ({row["case"]: row[metric] for row in rows if row["method"] == m} for m in (method, reference))
    cases = [case for case in ours if case in theirs]
    return paired_difference([ours[case] for case in cases], [theirs[case] for case in cases])


def _spread(statistic: Statistic, digits: int) -> str:
    if statistic.n == 0:
        return "–"
    spread = f" ± {statistic.std:.{digits}f}" if statistic.n > 1 else ""
    return f"{statistic.mean:.{digits}f}{spread}"


def _interval(mean: float, low: float, high: float, digits: int) -> str:
    if math.isnan(mean):
        return "–"
    return f"{mean:+.{digits}f}" + ("" if math.isnan(low) else f" [{low:+.{digits}f}, {high:+.{digits}f}]")


def _cost(row: Mapping[str, Any], name: str, unit: float, digits: int) -> str:
    value = row.get(name)
    return "–" if value is None else f"{value / unit:.{digits}f}"
