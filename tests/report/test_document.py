"""Templates: they are found from anywhere, refuse what is missing, and escape every text."""

import pytest
from jinja2 import UndefinedError

from scripts.report.document import ASSETS, document
from scripts.report.index import write_index


def test_templates_are_found_from_any_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_index("index.html", [])
    assert "<table" in (tmp_path / "index.html").read_text(encoding="utf-8")


def test_a_template_refuses_to_leave_a_variable_out():
    with pytest.raises(UndefinedError, match="summary"):
        document("index.html", ["index.js"], heads=[], rows=[])


def test_only_style_and_script_enter_a_page_unescaped():
    unescaped = {file.name: file.read_text(encoding="utf-8").count("safe }}") for file in ASSETS.glob("*.html")}
    assert unescaped.pop("base.html") == 2
    assert not any(unescaped.values())
