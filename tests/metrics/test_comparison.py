"""The table of all methods: what stands in it is what was measured."""

import math

import pytest
from tests.refusal import refused

from scripts.metrics.comparison import PAIRED, SHOWN, compare, comparison_markdown, numbers

COSTS = {"ours": {"parameters": 2_000_000, "training_seconds": 90.0, "training_peak_bytes": 3 * 2**30}}


def row(case: str, method: str, psnr: float, estimate: str = "single", **metrics: float) -> dict:
    return (
        {"case": case, "method": method, "estimate": estimate}
        | dict.fromkeys(SHOWN, 1.0)
        | {"psnr3d_db": psnr}
        | metrics
    )


ROWS = [
    row("a", "ours", 20.0), row("b", "ours", 24.0), row("a", "mean", 18.0), row("b", "mean", 21.0),
    row("a", "ours", 30.0, "mean of 4 samples"),
]  # fmt: skip


def test_means_deviations_and_paired_differences_are_those_of_single_volumes() -> None:
    ours, mean = compare(ROWS, COSTS, "ours")
    assert (ours["psnr3d_db_mean"], ours["psnr3d_db_n"]) == (22.0, 2)
    assert ours["psnr3d_db_std"] == pytest.approx(math.sqrt(8))
    assert mean["psnr3d_db_vs_ours_mean"] == pytest.approx(-2.5)
    assert -3 <= mean["psnr3d_db_vs_ours_low"] <= -2.5 <= mean["psnr3d_db_vs_ours_high"] <= -2
    assert ours["psnr3d_db_vs_ours_mean"] == 0
    assert ours["parameters"] == 2_000_000 and mean["parameters"] is None


def test_a_case_that_one_method_lacks_is_left_out_of_their_difference() -> None:
    rows = [*ROWS, row("c", "ours", 99.0)]
    assert compare(rows, COSTS, "ours")[1]["psnr3d_db_vs_ours_mean"] == pytest.approx(-2.5)


def test_a_reference_that_was_not_measured_is_refused() -> None:
    with refused(ValueError, "'theirs'", "not measured", "ours, mean"):
        compare(ROWS, COSTS, "theirs")


def test_the_markdown_has_a_line_per_method_the_best_first_and_no_number_where_none_was_measured() -> None:
    lines = comparison_markdown(compare(ROWS[:4], COSTS, "ours"), "ours").splitlines()
    assert len(lines) == 4 and lines[2].startswith("| ours | 22.00 ± 2.83 |") and lines[3].startswith("| mean | 19.50")
    assert all(line.count("|") == lines[0].count("|") for line in lines)
    assert lines[2].endswith("| 2.00 | 1.5 | 3.0 |") and lines[3].endswith("| – | – | – |")
    assert len(lines[0].split("|")) - 2 == 1 + len(SHOWN) + len(PAIRED) + 3


def test_csv_cells_become_numbers_and_empty_ones_nan() -> None:
    (read,) = numbers([{"case": "1", "method": "m", "estimate": "single", "psnr3d_db": "20.5", "mae_bone_hu": ""}])
    assert read["case"] == "1" and read["psnr3d_db"] == 20.5 and math.isnan(read["mae_bone_hu"])


def test_a_metric_that_an_older_file_lacks_is_not_measured_and_takes_no_other_with_it() -> None:
    older = {"case": "1", "method": "older", "estimate": "single", "psnr3d_db": "20.5"}
    rows = numbers([older, older | {"method": "newer", "psnr3d_db": "21", "bone_dice": "0.5"}])
    old, new = compare(rows, {}, "newer")
    assert math.isnan(old["bone_dice_mean"]) and old["bone_dice_n"] == 0 and new["bone_dice_mean"] == 0.5
    assert old["psnr3d_db_vs_newer_mean"] == -0.5 and math.isnan(old["bone_dice_vs_newer_mean"])
    assert len(comparison_markdown(compare(numbers([older]), {}, "older"), "older").splitlines()) == 3
