"""Finding the exams to reconstruct."""

import json
import shutil
from pathlib import Path

import pytest
from tests.refusal import refused

from scripts.exam.contents import radiographs
from scripts.exam.find import find_exams
from scripts.exam.views import ViewChoice
from scripts.geometry import read_geometry
from scripts.io.names import safe_name

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


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        (["x/a", "y/a"], ["a", "a-2"]),
        (["x/a", "y/A", "z/a"], ["a", "A-2", "a-3"]),
        (["x/a b", "y/a_b"], ["a b", "a_b-2"]),
        (["x/a", "x/a-2", "y/a"], ["a", "a-2", "a-3"]),
        (["x/1.2.840.1.zip", "x/1.2.840.2.zip"], ["1.2.840.1", "1.2.840.2"]),
        (["x/Doe.John.nii.gz", "x/Doe.Jane.NII"], ["Doe.John", "Doe.Jane"]),
        ([["f/A_pa.dcm", "f/A_lat.dcm"], ["f/B_pa.dcm", "f/B_lat.dcm"]], ["f_A", "f_B"]),
        ([{"frontal": "f/7-pa.png", "lateral": "f/7-lat.png"}, ["f/pa.png", "f/lat.png"]], ["f_7", "f"]),
        ([["f/1", "f/2"], ["f/3", "f/4"]], ["f", "f-2"]),
        (["x/" + "n" * 200 + end for end in ("1", "2")], ["n" * 200 + end for end in ("1", "2")]),
    ],
)
def test_names_are_whole_and_no_two_exams_share_a_folder(tmp_path, sources, expected):
    (tmp_path / "exams.json").write_text(json.dumps(sources))
    found = names(tmp_path / "exams.json")
    assert found == expected
    assert len({safe_name(name).casefold() for name in found}) == len(found)


def test_zips_named_by_uid_are_exams_of_their_own(tmp_path):
    for uid in ("1.2.840.113619.1", "1.2.840.113619.2"):
        (tmp_path / f"{uid}.zip").touch()
    assert names(tmp_path) == ["1.2.840.113619.1", "1.2.840.113619.2"]
    assert names(tmp_path / "1.2.840.113619.2.zip") == ["1.2.840.113619.2"]


def exam_folder(path):
    path.mkdir(parents=True)
    for film in ("IMG1", "IMG2"):
        (path / film).write_bytes(PNG)
    return path


STRAY = {
    "Thumbs.db": bytes.fromhex("d0cf11e0a1b11ae1") + bytes(504),
    "desktop.ini": b"[.ShellClassInfo]\r\n",
    "exams.xlsx": b"PK\x03\x04" + bytes(60),
    "notes.docx": b"PK\x03\x04" + bytes(60),
    "LOCKFILE": b"",
    "viewer.exe": b"MZ\x90\x00" + bytes(200),
    "report.pdf": b"%PDF-1.7\n",
}


@pytest.mark.parametrize("name", STRAY)
def test_a_stray_file_changes_neither_a_batch_nor_an_exam(tmp_path, name):
    for exam in ("p1", "p2"):
        exam_folder(tmp_path / "batch" / exam)
    for folder in (tmp_path / "batch", tmp_path / "batch" / "p1"):
        (folder / name).write_bytes(STRAY[name])
    assert names(tmp_path / "batch") == ["p1", "p2"]
    assert names(tmp_path / "batch" / "p1") == ["p1"]
    assert [path.name for path in radiographs(tmp_path / "batch" / "p1")] == ["IMG1", "IMG2"]


def test_an_exam_whose_link_leads_nowhere_stays_in_the_batch(tmp_path):
    exam_folder(tmp_path / "p1")
    (tmp_path / "p2").symlink_to(tmp_path / "unmounted")
    (tmp_path / "p3.zip").symlink_to(tmp_path / "unmounted.zip")
    assert names(tmp_path) == ["p1", "p2", "p3"]
    assert names(tmp_path / "p2") == ["p2"]


def test_an_exam_is_called_as_its_link_is(tmp_path):
    exam_folder(tmp_path / "store" / "7f3a")
    (tmp_path / "anna").symlink_to(tmp_path / "store" / "7f3a")
    assert names(tmp_path / "anna") == ["anna"]


def test_results_in_the_folder_of_exams_are_no_exams(tmp_path):
    for exam in ("p1", "p2"):
        exam_folder(tmp_path / exam)
    result = exam_folder(tmp_path / "out" / "p1")
    (result / "result.json").touch()
    (tmp_path / "out" / "summary.csv").touch()
    assert names(tmp_path) == ["p1", "p2"]
    (result / "result.json").rename(tmp_path / "p2" / "result.json")
    assert names(tmp_path) == ["out", "p1"], "a folder of exams with a table of one's own; a result moved here"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
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
    with refused(ValueError, "a path", "a list", f"object with {view};"):
        find_exams({other: path}, choice=choice)


@pytest.mark.parametrize("arguments", [{"frontal": "f"}, {"input": {"lateral": "l"}}])
def test_half_an_exam_names_the_option_if_the_network_takes_one_view(arguments):
    with refused(ValueError, "one view", "--views frontal", "--views lateral"):
        find_exams(**arguments, choice=ViewChoice(one_view=True))


def test_without_any_input_there_are_no_exams():
    assert find_exams() == []


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no radiographs"):
        find_exams(tmp_path)
