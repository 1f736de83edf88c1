"""``export_radiographs.json`` through the real command line, and as MONAI composes it."""

from pathlib import Path

import pytest
from monai.bundle import ConfigParser

from scripts.exam.views import find_exam
from scripts.io.errors import stated_cause

BUNDLE = Path(__file__).parents[2] / "bundle"
CONFIG = BUNDLE / "configs" / "export_radiographs.json"


def test_the_command_writes_two_films_of_a_case_from_any_working_directory(tmp_path, monai_bundle):
    options = {"input": BUNDLE / "docs" / "demo", "output_dir": "films", "photons": "1e5", "form": "presentation"}
    end = monai_bundle("run", tmp_path, config_file=CONFIG, **options)
    assert end.wait() == 0, end.output[-2000:]
    assert "1 of 1 cases in films" in end.output
    assert {film.scale for film in find_exam(tmp_path / "films" / "demo")[0].values()} == {"display"}


def test_without_a_case_it_ends_with_one_message(tmp_path):
    parser = ConfigParser(ConfigParser.load_config_file(CONFIG))
    parser.update({"input": str(tmp_path), "output_dir": str(tmp_path / "films")})
    with pytest.raises(RuntimeError) as caught:
        parser.get_parsed_content("run")
    assert "holds no prepared case" in str(stated_cause(caught.value))
