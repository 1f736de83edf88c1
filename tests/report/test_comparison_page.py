"""The comparison page of a sweep: as a file, and in a real browser."""

import numpy as np
import pytest
from tests.refusal import refused
from tests.report.browsing import NEEDS_BROWSER, find, opened, requested

from scripts.report.comparison_page import write_comparison_page

SHAPE, AFFINE = (6, 7, 8), np.diag([2.0, 2, 2, 1])
COLUMNS = {"psnr3d_db": ("PSNR3D (dB)", 2), "mae_hu": ("MAE (HU)", 0)}
METHODS = ("ours", "theirs", "truth")
CASES = {
    case: {method: np.full(SHAPE, 100.0 * i + 10 * j) for j, method in enumerate(METHODS)}
    for i, case in enumerate(("<one>", "two"))
}
ROWS = [
    {"case": case, "method": method, "psnr3d_db": 20 + i, "mae_hu": float("nan")}
    for case in (*CASES, "not on the page")
    for i, method in enumerate(("ours", "theirs", "mean volume"))
]


def written(path, cases=CASES):
    write_comparison_page(path, cases, AFFINE, ROWS, COLUMNS)
    return path


def test_only_the_rows_of_its_cases_and_methods_are_in_the_table(tmp_path):
    text = written(tmp_path / "comparison.html").read_text(encoding="utf-8")
    assert text.count("<tr data-case=") == 4
    assert text.count("<td>20.00</td><td>–</td>") == text.count("<td>21.00</td><td>–</td>") == 2
    assert "<one>" not in text


@pytest.mark.parametrize(
    ("cases", "fragments"),
    [
        ({}, ("at least one case",)),
        ({"a": {"ours": np.zeros(SHAPE)}}, ("'a'", "truth")),
        ({**CASES, "a": {"truth": np.zeros(SHAPE)}}, ("'a'", "same methods")),
        ({**CASES, "a": {method: np.zeros((2, 2, 2)) for method in METHODS}}, ("'a'", "(2, 2, 2)", "one grid")),
    ],
)
def test_cases_that_cannot_stand_beside_each_other_are_refused(tmp_path, cases, fragments):
    with refused(ValueError, *fragments):
        written(tmp_path / "comparison.html", cases)
    assert not list(tmp_path.iterdir())


@NEEDS_BROWSER
def test_readers_choose_the_method_and_the_case(browser, tmp_path):
    opened(browser, written(tmp_path / "comparison.html"))

    def shown():
        words = browser.execute_script("return document.getElementById('readout').textContent").split("  |  ")
        chosen = browser.execute_script(
            "return [...document.querySelectorAll('.comparison tbody tr')].filter((row) => !row.hidden)"
            ".map((row) => [row.dataset.case, row.dataset.method, row.ariaCurrent])"
        )
        return words[1:], chosen

    def choose(name, value):
        browser.execute_async_script(
            """const [name, value, done] = arguments, field = document.querySelector(`[name=${name}]`);
            field.value = value;
            document.getElementById("viewer").addEventListener("moved", () => setTimeout(done), { once: true });
            field.dispatchEvent(new Event("change", { bubbles: true }));""",
            name,
            value,
        )

    table = [["<one>", "ours", "true"], ["<one>", "theirs", None]]
    assert shown() == (["0 HU", "truth 20 HU", "error −20 HU"], table)
    choose("exam", "two")
    assert shown()[0] == ["100 HU", "truth 120 HU", "error −20 HU"]
    choose("method", "theirs")
    assert shown() == (["110 HU", "truth 120 HU", "error −10 HU"], [["two", "ours", None], ["two", "theirs", "true"]])
    assert find(browser, ".scene").is_displayed()
    assert browser.get_log("browser") == []
    assert requested(browser) == [browser.current_url]
