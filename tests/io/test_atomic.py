"""Files and folders that appear whole or not at all, whoever else writes them."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
from tests.refusal import refused

from scripts.io import atomic
from scripts.io.atomic import require_replaceable, require_writable, whole_file, whole_folder

BUNDLE = Path(__file__).parents[2] / "bundle"
WRITER = """
import sys
from itertools import count
from pathlib import Path
from scripts.io.atomic import whole_file, whole_folder
path, word, enough = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
for number in count():
    if enough.exists():
        break
    text = f"{word} {number}"
    with whole_folder(path / "exam", "c/result.json") as partial:
        for name in "abc":
            (partial / name).mkdir()
            (partial / name / "result.json").write_text(text)
    with whole_file(path / "summary.csv") as partial:
        partial.write_text(text[:1])
        partial.write_text(text)
print("done")
"""


def writer(folder: Path, word: str, enough: Path) -> subprocess.Popen:
    """A process that publishes a folder of three equal files and a file, again and again until a file says enough."""
    command = [sys.executable, "-c", WRITER, folder, word, enough]
    return subprocess.Popen(command, cwd=BUNDLE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def contents(folder: Path) -> list[str] | None:
    """The three files of a published folder; None if it was replaced while they were read."""
    with suppress(FileNotFoundError):
        opened = os.open(folder, os.O_RDONLY)
        try:
            found = [_read(f"{name}/result.json", opened) for name in sorted(os.listdir(opened))]
            return found if os.path.samestat(os.fstat(opened), os.stat(folder)) else None
        finally:
            os.close(opened)
    return None


def _read(name: str, folder: int) -> str:
    with suppress(FileNotFoundError), open(os.open(name, os.O_RDONLY, dir_fd=folder)) as file:
        return file.read()
    return "missing"


def test_a_file_takes_its_name_only_when_the_block_succeeds(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), whole_file(path) as partial:
        partial.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    with whole_file(path) as partial:
        partial.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_is_replaced_whole_and_a_failed_block_keeps_the_old_one(tmp_path):
    path = tmp_path / "deep" / "case"
    with whole_folder(path, "old") as partial:
        (partial / "old").touch()
        assert not path.exists()
    with pytest.raises(RuntimeError), whole_folder(path, "old") as partial:
        (partial / "half").touch()
        raise RuntimeError
    assert [p.name for p in path.iterdir()] == ["old"]
    with whole_folder(path, "old") as partial:
        (partial / "new").touch()
    assert [p.name for p in path.iterdir()] == ["new"]
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("words", [("one", "two"), ("same", "same")])
def test_of_two_processes_that_write_at_once_nothing_half_written_ever_shows(tmp_path, words):
    enough = tmp_path.with_name(f"{tmp_path.name}-enough")
    processes = [writer(tmp_path, word, enough) for word in words]
    seen = Counter()
    while any(process.poll() is None for process in processes):
        if all(seen[word] > 50 for word in words):
            enough.touch()
        if (found := contents(tmp_path / "exam")) is not None:
            assert len(found) == 3 and len(set(found)) == 1 and found[0].split()[0] in words, found
            seen[found[0].split()[0]] += 1
        with suppress(FileNotFoundError):
            assert len((tmp_path / "summary.csv").read_text().split()) == 2
    assert [process.communicate() for process in processes] == [("done\n", "")] * 2
    assert len(set(contents(tmp_path / "exam"))) == 1
    assert sorted(os.listdir(tmp_path)) == ["exam", "summary.csv"]


def test_what_a_killed_process_left_is_neither_taken_over_nor_kept(tmp_path):
    process = writer(tmp_path, "killed", tmp_path / "never")
    while not list(tmp_path.glob(".partial-*-exam")):  # it runs until it is killed
        assert process.poll() is None
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    with whole_folder(tmp_path / "case", "whole") as partial:
        (partial / "whole").touch()
    assert not list(tmp_path.glob(".partial-*"))
    assert [p.name for p in (tmp_path / "case").iterdir()] == ["whole"]


def test_what_a_living_process_or_another_host_is_writing_is_left_alone_for_a_day(tmp_path):
    with whole_folder(tmp_path / "outer", "x") as outer:
        elsewhere = tmp_path / ".partial-00000000-1-00000000-exam"
        elsewhere.mkdir()
        foreign = tmp_path / ".partial-exam"
        foreign.touch()
        with whole_file(tmp_path / "a") as inner:
            inner.touch()
        assert outer.is_dir() and elsewhere.is_dir()
        atomic._sweep.cache_clear()  # as another process would
        day_ago = time.time() - atomic._STALE_SECONDS - 60
        os.utime(elsewhere, (day_ago, day_ago))
        with whole_file(tmp_path / "a") as inner:
            inner.touch()
        assert outer.is_dir() and not elsewhere.exists() and foreign.exists()


def test_an_older_folder_comes_back_if_the_new_one_cannot_take_its_name(tmp_path, monkeypatch):
    path, rename = tmp_path / "case", os.rename
    with whole_folder(path, "old") as partial:
        (partial / "old").touch()

    def refuse(source, target):
        if target == path and not (Path(source) / "old").exists():
            raise PermissionError(13, "Permission denied")
        rename(source, target)

    monkeypatch.setattr(os, "rename", refuse)
    with (
        refused(ValueError, "case", "cannot be written", "Permission denied", "make room"),
        whole_folder(path, "old") as partial,
    ):
        (partial / "new").touch()
    assert [p.name for p in path.iterdir()] == ["old"] and list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_told_in_one_line_and_leaves_nothing(tmp_path):
    for scratch in (whole_file, lambda path: whole_folder(path, "x")):
        with pytest.raises(ValueError) as error, scratch(tmp_path / "exam"), open("/dev/full", "w") as full:
            full.write("x" * 10**6)
        assert str(error.value).startswith(f"{tmp_path / 'exam'}: cannot be written (") and "\n" not in str(error.value)
        assert "No space left on device" in str(error.value) and not list(tmp_path.iterdir())


def test_a_file_in_the_place_of_a_folder_is_found_before_anything_is_written(tmp_path):
    (tmp_path / "out").write_text("mine")
    for check in (lambda path: require_replaceable(path / "exam", "x"), require_writable):
        for folder in (tmp_path / "out", tmp_path / "out" / "deep"):
            with refused(ValueError, "out: ", "a file", "no folder"):
                check(folder)
    require_writable(tmp_path / "new" / "deep")
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_place_that_may_not_be_written_to_is_found_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    with refused(ValueError, "not writable", "permissions"):
        require_replaceable(tmp_path / "new" / "exam", "x")


def test_what_is_not_known_is_never_replaced(tmp_path):
    exam = tmp_path / "exam"
    exam.mkdir()
    (exam / "frontal.dcm").write_text("film")
    for path in (exam, exam / "frontal.dcm"):
        with (
            refused(ValueError, "result.json", "replaced"),
            whole_folder(path, "result.json"),
        ):
            pytest.fail("must not begin")
    assert [p.name for p in tmp_path.rglob("*")] == ["exam", "frontal.dcm"]
    (exam / "frontal.dcm").unlink()
    with whole_folder(exam, "result.json") as partial:
        (partial / "result.json").touch()
    assert [p.name for p in exam.iterdir()] == ["result.json"]


def test_a_folder_with_many_results_is_searched_for_leftovers_once(tmp_path, monkeypatch):
    searched, scandir = [], os.scandir
    monkeypatch.setattr(os, "scandir", lambda folder: searched.append(folder) or scandir(folder))
    for name in "abc":
        with whole_file(tmp_path / name) as partial:
            partial.touch()
    assert searched == [tmp_path]
