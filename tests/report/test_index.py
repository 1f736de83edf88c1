"""The index of a batch, as a file."""

import re
from html import unescape
from urllib.parse import unquote

import pytest

from scripts.report.index import write_index

DONE = {"status": "done", "seconds": 4.77, "reprojection_frontal": 0.0451, "reprojection_lateral": 0.043, "warnings": 0}
ODD = "a b#c?d%&é'<"


def index(tmp_path, rows):
    path = tmp_path / "index.html"
    write_index(path, rows)
    return path.read_text(encoding="utf-8")


def exams(text):
    return [unescape(name) for name in re.findall("<bdi>(.*?)</bdi>", text)]


def test_failed_exams_come_first_and_the_others_keep_their_order(tmp_path):
    failed = {"status": "failed", "error": "two frontal views"}
    text = index(tmp_path, [{"exam": "b"} | DONE, {"exam": "c"} | failed, {"exam": "a"} | DONE])
    assert exams(text) == ["c", "b", "a"]
    assert "Exams: 3, failed: 1, done: 2." in text
    assert text.count('<tr data-status="failed"') == text.count("two frontal views") == 1


def test_numbers_are_shown_for_readers_and_kept_for_sorting(tmp_path):
    text = index(tmp_path, [{"exam": "a"} | DONE])
    for number, shown in ((0.0451, "4.5%"), (0.043, "4.3%"), (0, "0"), (4.77, "4.8")):
        assert f'data-number="{number}">{shown}</td>' in text


@pytest.mark.parametrize("absent", ["", None])
def test_what_is_not_known_is_left_empty(tmp_path, absent):
    text = index(tmp_path, [dict.fromkeys(DONE, absent) | {"exam": "a", "status": "failed", "folder": absent}])
    assert text.count("<td></td>") == 5


def test_links_are_relative_encoded_and_only_to_reports_that_are_there(tmp_path):
    for folder in (ODD, "empty"):
        (tmp_path / folder).mkdir()
    (tmp_path / ODD / "report.html").touch()
    rows = [{"exam": "x", "folder": folder} | DONE for folder in (ODD, "empty", "")]
    (link,) = re.findall('href="([^"]*html)"', index(tmp_path, rows))
    assert re.fullmatch("[A-Za-z0-9%.]+/report.html", link)
    assert unquote(link) == f"{ODD}/report.html"


def test_a_thumbnail_is_shown_where_there_is_one(tmp_path):
    for folder in ("with", "without"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "report.html").touch()
    (tmp_path / "with" / "thumbnail.jpg").touch()
    text = index(tmp_path, [{"exam": folder, "folder": folder} | DONE for folder in ("with", "without")])
    assert re.findall('<img src="([^"]*)"', text) == ["with/thumbnail.jpg"]


def test_what_readers_filter_by_is_in_the_row(tmp_path):
    rows = [{"exam": "a"} | DONE, {"exam": "b"} | DONE | {"warnings": 2}, {"exam": "c", "status": "failed"}]
    found = re.findall('<tr data-status="(.*?)" data-warnings="(.*?)">', index(tmp_path, rows))
    assert found == [("failed", ""), ("done", "0"), ("done", "2")]


def test_strings_from_outside_add_no_element(tmp_path):
    def tags(word):
        return re.findall(r"<(\w+)", index(tmp_path, [{"exam": word, "error": word} | DONE | {"status": word}]))

    assert tags("<script>alert(1)</script>\" onload='x' {{ rows }} {% raw %} \udc80") == tags("quiet")


def test_equal_rows_give_equal_bytes_and_a_thousand_are_no_burden(tmp_path):
    rows = [{"exam": f"case {i}"} | DONE for i in range(1000)]
    text = index(tmp_path, rows)
    assert text == index(tmp_path, rows)
    assert len(exams(text)) == 1000
    assert len(text) < 1e6


def test_an_index_of_nothing_is_a_table_without_rows(tmp_path):
    assert "Exams: 0." in index(tmp_path, [])
