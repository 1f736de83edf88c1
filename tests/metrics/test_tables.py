"""Tables: statistics against numpy, and text that other programs read."""

import csv
import io
import json
import math

import numpy as np
import pytest

from scripts.metrics.tables import SINGLE, summarise, summary_json, summary_rows, to_csv, to_markdown


def rows(values: dict[str, list[float]]) -> list[dict]:
    """One row per case and method of one metric, and a second that only the first case has."""
    return [
        {"case": f"c{i}", "method": method, "estimate": SINGLE, "psnr": value, "bone": 5.0 if i == 0 else math.nan}
        for method, series in values.items()
        for i, value in enumerate(series)
    ]


def test_statistics_are_numpys_over_the_cases_of_each_method():
    summary = summarise(rows({"a": [1.0, 2.0, 4.0], "b": [3.0, 3.0, 3.0]}))
    assert summary["a", SINGLE]["psnr"] == pytest.approx((np.mean([1, 2, 4]), np.std([1, 2, 4], ddof=1), 3))
    assert summary["b", SINGLE]["psnr"] == (3, 0, 3)


def test_missing_values_do_not_count():
    statistic = summarise(rows({"a": [1.0, 2.0]}))["a", SINGLE]["bone"]
    assert statistic.mean == 5 and statistic.n == 1 and math.isnan(statistic.std)
    nothing = summarise(rows({"a": [math.nan]}))["a", SINGLE]["psnr"]
    assert nothing.n == 0 and math.isnan(nothing.mean)


def test_estimates_of_one_method_are_kept_apart():
    table = rows({"a": [1.0]}) + [row | {"estimate": "mean of 4", "psnr": 9.0} for row in rows({"a": [1.0]})]
    assert [s["psnr"].mean for s in summarise(table).values()] == [1, 9]


def test_csv_reads_back_with_empty_cells_for_what_is_not_finite():
    table = rows({"a, or A": [1.25, math.inf]})
    back = list(csv.DictReader(io.StringIO(to_csv(table))))
    assert [row["psnr"] for row in back] == ["1.25", ""] and [row["bone"] for row in back] == ["5", ""]
    assert back[0]["method"] == "a, or A" and list(back[0]) == list(table[0])


@pytest.mark.parametrize("text", ["=HYPERLINK(1)", "+1", "-1", "@SUM(1)", "\t=1"])
def test_no_text_is_a_formula_for_a_spreadsheet_and_numbers_stay_numbers(text):
    """A table that is read and written again stays as it is."""
    (once,) = csv.DictReader(io.StringIO(to_csv([{"case": text, "psnr": -1.5, "n": -2}])))
    assert once == {"case": f"'{text}", "psnr": "-1.5", "n": "-2"}
    (again,) = csv.DictReader(io.StringIO(to_csv([once | {"psnr": -1.5, "n": -2}])))
    assert again == once


def test_summary_as_csv_has_one_row_per_method_and_metric():
    back = list(csv.DictReader(io.StringIO(to_csv(summary_rows(summarise(rows({"a": [1.0, 2.0], "b": [1.0, 2.0]})))))))
    assert [(r["method"], r["metric"], r["n"]) for r in back] == [
        ("a", "psnr", "2"), ("a", "bone", "1"), ("b", "psnr", "2"), ("b", "bone", "1"),
    ]  # fmt: skip


def test_summary_as_json_is_strict_json():
    text = json.dumps(summary_json(summarise(rows({"a": [1.0, math.inf]}))), allow_nan=False)
    (entry,) = json.loads(text)
    assert entry["method"] == "a" and entry["metrics"]["psnr"] == {"mean": None, "std": None, "n": 2}


def test_markdown_puts_methods_side_by_side():
    table = rows({"model": [10.0, 12.0], "mean_volume": [8.0, 8.0]})
    table.insert(2, {"case": "c0", "method": "model", "estimate": "mean of 4", "psnr": 123.456, "bone": math.nan})
    lines = to_markdown(summarise(table)).splitlines()
    assert lines[0] == "| metric | model | model, mean of 4 | mean_volume |"
    assert lines[2] == "| psnr | 11.00 ± 1.414 | 123.5 (n = 1) | 8.000 ± 0.000 |"
    assert lines[3] == "| bone | 5.000 (n = 1) | – | 5.000 (n = 1) |"
