"""Files and folders that appear whole or not at all."""

import pytest

from scripts.io.atomic import whole_file, whole_folder


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


def test_what_a_killed_process_left_is_not_taken_over(tmp_path):
    (tmp_path / ".partial-case").mkdir()
    (tmp_path / ".partial-case" / "half").touch()
    with whole_folder(tmp_path / "case", "whole") as partial:
        (partial / "whole").touch()
    assert [p.name for p in (tmp_path / "case").iterdir()] == ["whole"]


def test_what_is_not_known_is_never_replaced(tmp_path):
    exam = tmp_path / "exam"
    exam.mkdir()
    (exam / "frontal.dcm").write_text("film")
    for path in (exam, exam / "frontal.dcm"):
        with (
            pytest.raises(ValueError, match="holds no result.json, so it is not replaced"),
            whole_folder(path, "result.json"),
        ):
            pytest.fail("must not begin")
    assert [p.name for p in tmp_path.rglob("*")] == ["exam", "frontal.dcm"]
    (exam / "frontal.dcm").unlink()
    with whole_folder(exam, "result.json") as partial:
        (partial / "result.json").touch()
    assert [p.name for p in exam.iterdir()] == ["result.json"]
