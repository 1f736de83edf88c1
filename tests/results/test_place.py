"""Where a result goes: never in the place of the result of other files."""

import json

import pytest
from tests.refusal import refused

from scripts.results.place import place_of


def put(folder, *inputs):
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps({"inputs_sha256": dict(enumerate(inputs))}))


def test_a_free_place_and_one_of_the_same_files_in_any_order_are_taken(tmp_path):
    assert place_of(tmp_path / "a", ["1", "2"]) == tmp_path / "a"
    put(tmp_path / "a", "1", "2")
    assert place_of(tmp_path / "a", ["2", "1"]) == tmp_path / "a"


@pytest.mark.parametrize("others", [["3", "4"], ["1"], ["1", "2", "3"], ["1", "1", "2"]])
def test_the_result_of_other_files_keeps_its_place_and_each_exam_finds_its_own(tmp_path, others):
    put(tmp_path / "a", *others)
    place = place_of(tmp_path / "a", ["1", "2"])
    assert place.parent == tmp_path and place.name.startswith("a-")
    put(place, "1", "2")
    assert place_of(tmp_path / "a", ["2", "1"]) == place
    assert place_of(tmp_path / "a", others) == tmp_path / "a"
    (tmp_path / "a" / "result.json").unlink()
    assert place_of(tmp_path / "a", ["1", "2"]) == place


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"inputs_sha256": 3}'])
def test_a_result_that_does_not_tell_its_files_is_not_taken(tmp_path, text):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "result.json").write_text(text)
    assert place_of(tmp_path / "a", ["1"]) != tmp_path / "a"


def test_where_both_places_are_taken_the_exam_is_refused(tmp_path):
    put(tmp_path / "a", "3")
    put(place_of(tmp_path / "a", ["1"]), "4")
    with refused(ValueError, str(tmp_path / "a"), "a-", "other files"):
        place_of(tmp_path / "a", ["1"])
