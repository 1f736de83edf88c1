from pathlib import PurePosixPath

import pytest

from scripts.io import folders
from scripts.io.folders import is_hidden, visible, visible_files


@pytest.fixture
def folder(tmp_path):
    for name in ("b.dcm", "a/c.dcm", ".DS_Store", "__MACOSX/._b.dcm", "a/.hidden/d.dcm"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("name", "expected"), [("a/b.dcm", False), (".a/b.dcm", True), ("a/.b", True), ("a/__MACOSX/b", True)]
)
def test_what_lies_in_a_hidden_folder_is_hidden(name, expected):
    assert is_hidden(PurePosixPath(name)) == expected


def test_a_folder_shows_its_files_and_folders_in_order(folder):
    assert visible(folder) == [folder / "a", folder / "b.dcm"]


def test_files_are_found_at_any_depth_even_below_a_hidden_folder(folder):
    assert visible_files(folder) == [folder / "a" / "c.dcm", folder / "b.dcm"]
    assert visible_files(folder / "a" / ".hidden") == [folder / "a" / ".hidden" / "d.dcm"]


def test_files_are_found_through_links_each_folder_once_and_none_above(folder):
    root = folder / "root"
    for name in ("elsewhere/deep", "root/b"):
        (folder / name).mkdir(parents=True)
        (folder / name / "e.dcm").touch()
    links = {
        "root/file.dcm": "b.dcm",
        "root/broken.dcm": "gone",
        "root/c": "elsewhere",
        "root/d": "elsewhere/deep",
        "root/a": "root/b",
        "root/b/up": "root",
        "elsewhere/top": "root",
        "elsewhere/above": ".",
    }
    for link, target in links.items():
        (folder / link).symlink_to(folder / target)
    expected = ["b/e.dcm", "c/deep/e.dcm", "file.dcm"]
    assert [path.relative_to(root).as_posix() for path in visible_files(root)] == expected


def test_a_folder_that_may_not_be_read_is_left_out_and_named(folder, monkeypatch, caplog):
    def closed(path):
        if path.name == "a":
            raise PermissionError(13, "Permission denied")
        return visible(path)

    monkeypatch.setattr(folders, "visible", closed)
    assert visible_files(folder) == [folder / "b.dcm"]
    (line,) = caplog.messages
    assert line.startswith(f"{folder / 'a'}: ") and "permissions" in line
