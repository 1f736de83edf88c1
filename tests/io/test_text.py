"""JSON that any parser reads."""

import json
import math

import pytest

from scripts.io.text import strict_json, write_text


def test_infinity_is_written_as_text_at_any_depth_and_all_else_as_it_is():
    value = {"a": [1, 2.5, math.inf, {"b": (-math.inf, None, True)}], "inf": "Infinity"}
    expected = {"a": [1, 2.5, "inf", {"b": ["-inf", None, True]}], "inf": "Infinity"}
    assert json.loads(strict_json(value), parse_constant=pytest.fail) == expected


def test_nan_is_refused():
    with pytest.raises(ValueError, match="not JSON compliant"):
        strict_json({"a": math.nan})


def test_a_name_that_is_no_text_does_not_stop_the_writing(tmp_path):
    write_text(tmp_path / "a.csv", "M\udcfcller,\u2212\u00b3\n")
    assert (tmp_path / "a.csv").read_bytes() == "M?ller,\u2212\u00b3\n".encode()
