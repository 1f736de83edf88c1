"""Finding the exams to reconstruct."""

import json
import shutil
from pathlib import Path

import pytest

from scripts.exam.find import find_exams
from scripts.exam.views import ViewChoice
from scripts.geometry import read_geometry

DEMO = Path(__file__).parents[2] / "bundle" / "docs" / "demo"
GEOMETRY = read_geometry(DEMO / "geometry.json")
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def cases(tmp_path):
    for name in ("b", "a", ".hidden"):
        shutil.copytree(DEMO, tmp_path / "cases" / name)
    return tmp_path / "cases"


def names(*arguments, **keywords):
    return [item["name"] for item in find_exams(*arguments, **keywords)]


def test_a_case_folder_is_one_exam_and_a_folder_of_cases_is_many_in_order(cases):
    assert find_exams(cases / "a") == [{"image": str(cases / "a"), "name": "a"}]
    assert names(cases) == ["a", "b"]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["a.dcm", "b.dcm"], ["exam"]),
        (["IMG1", "IMG2"], ["exam"]),
        (["SER1/IMG", "SER2/IMG"], ["exam"]),
        (["SER1/IMG", "SER1/acquisition.json", "SER2/IMG"], ["exam"]),
        (["acquisition.json", "study/a.dcm", "study/b.dcm"], ["exam"]),
        (["one/a.dcm", "one/b.dcm", "two/a.dcm", "two/b.dcm"], ["one", "two"]),
        (["one.zip", "two.zip", "readme.txt"], ["one", "two"]),
        (["one/a.dcm", "one/b.dcm", "two.zip", "manifest.csv", ".DS_Store"], ["one", "two"]),
        (["one/IMG1", "one/IMG2", "two/IMG1", "two/IMG2", "notes.docx", "__MACOSX/IMG1"], ["one", "two"]),
        (["SER1/IMG", "SER1/notes.docx", "SER2/IMG"], ["exam"]),
    ],
)
def test_one_exam_and_many_are_told_apart_by_what_the_folder_holds(tmp_path, files, expected):
    for file in files:
        path = tmp_path / "exam" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(PNG if path.name.startswith("IMG") else b"")
    assert names(tmp_path / "exam") == expected


def test_one_exam_may_be_a_file_a_list_or_a_mapping(tmp_path):
    packed = tmp_path / "packed.nii.gz"
    packed.touch()
    assert names(packed) == ["packed"]
    assert names([str(tmp_path / "f"), str(tmp_path / "l")]) == [tmp_path.name]
    assert names({"frontal": str(tmp_path / "f"), "lateral": str(tmp_path / "l")}) == [tmp_path.name]


def test_a_list_of_exams_is_relative_to_its_own_folder(tmp_path):
    sources = ["a", ["b/1", "b/2"], {"frontal": "c/f", "lateral": "c/l"}]
    (tmp_path / "exams.json").write_text(json.dumps(sources))
    items = find_exams(tmp_path / "exams.json")
    assert [item["name"] for item in items] == ["a", "b", "c"]
    assert items[1]["image"] == [str(tmp_path / "b/1"), str(tmp_path / "b/2")]


@pytest.mark.parametrize("text", ["{", "{}", "[]", "[3]", '[["one"]]', '[{"frontal": "f"}]'])
def test_a_list_that_is_none_is_refused_with_its_name(tmp_path, text):
    (tmp_path / "exams.json").write_text(text)
    with pytest.raises(ValueError, match="exams.json: "):
        find_exams(tmp_path / "exams.json")


def test_two_exams_of_one_name_are_refused(tmp_path):
    (tmp_path / "exams.json").write_text('["x/a", "y/a"]')
    with pytest.raises(ValueError, match="two exams would both be written to 'a': .*x/a and .*y/a"):
        find_exams(tmp_path / "exams.json")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "nothing to reconstruct"),
        ({"input": "x", "frontal": "y"}, "not both"),
        ({"lateral": "y"}, "missing --frontal"),
        ({"input": "absent"}, "no such folder or file"),
    ],
)
def test_half_an_exam_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        find_exams(**arguments)


@pytest.mark.parametrize("view", ["frontal", "lateral"])
def test_an_exam_of_one_view_may_lack_the_other_and_is_named_alike(tmp_path, view):
    choice, path = ViewChoice((view,), True), str(tmp_path / "a" / "film")
    assert names(**{view: path}, choice=choice) == ["a"]
    assert names([path], choice=choice) == names({view: path}, choice=choice) == ["a"]
    (tmp_path / "exams.json").write_text(
        json.dumps(["x", ["b/1"], {view: "c/1"}, {"frontal": "d/1", "lateral": "d/2"}])
    )
    assert names(tmp_path / "exams.json", choice=choice) == ["x", "b", "c", "d"]
    other = "lateral" if view == "frontal" else "frontal"
    with pytest.raises(ValueError, match=f"one exam needs --{view}; missing --{view}$"):
        find_exams(**{other: path}, choice=choice)
    with pytest.raises(ValueError, match=f"an exam is a path, a list of one or two, or an object with {view};"):
        find_exams({other: path}, choice=choice)


@pytest.mark.parametrize("arguments", [{"frontal": "f"}, {"input": {"lateral": "l"}}])
def test_half_an_exam_names_the_option_if_the_network_takes_one_view(arguments):
    with pytest.raises(ValueError, match="this network also takes one view: choose it by --views frontal or --v"):
        find_exams(**arguments, choice=ViewChoice(one_view=True))


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no radiographs"):
        find_exams(tmp_path)
