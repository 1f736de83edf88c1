"""Many exams in one run: a bad one does not lose the others, and what is done is not done again."""

import csv
import json

import pytest
import torch
from monai.data import Dataset, MetaTensor
from monai.engines import SupervisedEvaluator
from monai.inferers import Inferer
from tests.refusal import refused

from scripts.exam.exam import Exam, to_meta
from scripts.geometry import VIEWS, preset
from scripts.io.errors import SomeFailed, stated_cause
from scripts.physics.separable import SeparableProjector
from scripts.results.batch import ReconstructAll
from scripts.results.hounsfield import ToHounsfieldd
from scripts.results.save import SaveReconstructions
from scripts.results.writers import WriteNifti

GEOMETRY = preset("carm", (8, 8, 8), 40.0, 12)


class Reader:
    """Items are names; ``broken`` ones cannot be read."""

    def __init__(self, broken=()):
        self.broken = broken

    def __call__(self, item):
        if item["image"] in self.broken:
            raise ValueError(f"{item['image']}: damaged; export it again")
        name, _, digest = item["image"].partition(":")
        exam = Exam(name, VIEWS, GEOMETRY.volume_affine(), {item["image"]: digest})
        return {"image": MetaTensor(torch.ones(2, 12, 12), meta=to_meta(exam))}


class Water(Inferer):
    """A volume of water; counts its calls and fails on the exams of ``bad``."""

    def __init__(self, bad=()):
        self.bad, self.seen = bad, []

    def __call__(self, inputs, network, *args, **kwargs):
        (name,) = inputs.meta["name"]
        self.seen.append(name)
        if name in self.bad:
            raise RuntimeError("out of memory")
        return torch.linspace(-0.01, 0.01, 512).reshape(1, 1, 8, 8, 8)


def batch(output_dir, names, inferer, broken=(), provenance=None, **options):
    saver = SaveReconstructions(output_dir, SeparableProjector(GEOMETRY), provenance or {}, [WriteNifti()])
    exams = Dataset([{"image": name} for name in names], Reader(broken))
    evaluator = SupervisedEvaluator(
        torch.device("cpu"),
        exams,
        torch.nn.Identity(),
        inferer=inferer,
        postprocessing=ToHounsfieldd(),
        val_handlers=[saver],
    )
    return ReconstructAll(evaluator, exams, names, saver, **options)


def summary(output_dir):
    with open(output_dir / "summary.csv") as file:
        return {row["exam"]: row for row in csv.DictReader(file)}


def test_every_exam_is_reconstructed_and_accounted_for(tmp_path):
    batch(tmp_path, ["a", "b", "c"], Water())()
    assert {exam: row["status"] for exam, row in summary(tmp_path).items()} == {"a": "done", "b": "done", "c": "done"}
    assert all((tmp_path / name / "ct.nii.gz").exists() for name in "abc")


def test_exams_that_cannot_be_read_or_reconstructed_do_not_lose_the_others(tmp_path):
    with pytest.raises(SomeFailed) as stopped:
        batch(tmp_path, ["a", "b", "c", "d"], Water(bad=["c"]), broken=["a"])()
    assert "2 of 4 exams failed" in str(stopped.value)
    rows = summary(tmp_path)
    assert {exam: row["status"] for exam, row in rows.items()} == {
        "a": "failed", "b": "done", "c": "failed", "d": "done",
    }  # fmt: skip
    assert rows["a"]["error"] == "a: damaged; export it again"
    assert "out of memory" in rows["c"]["error"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b", "d", "summary.csv"]


def test_an_exam_in_the_place_of_its_result_is_refused_before_the_network_runs(tmp_path):
    film = tmp_path / "a" / "frontal.dcm"
    film.parent.mkdir()
    film.touch()
    water = Water()
    with refused(SomeFailed, "1 of 2 exams"):
        batch(tmp_path, ["a", "b"], water)()
    assert "exists and holds no result.json, so it is not replaced" in summary(tmp_path)["a"]["error"]
    assert water.seen == ["b"] and film.is_file()


def test_a_second_run_does_only_what_is_missing(tmp_path):
    first, second = Water(bad=["b"]), Water()
    with pytest.raises(SomeFailed):
        batch(tmp_path, ["a", "b"], first)()
    before = (tmp_path / "a" / "ct.nii.gz").stat().st_mtime_ns
    batch(tmp_path, ["a", "b"], second)()
    assert first.seen == ["a", "b"] and second.seen == ["b"]
    assert {exam: row["status"] for exam, row in summary(tmp_path).items()} == {"a": "kept", "b": "done"}
    assert (tmp_path / "a" / "ct.nii.gz").stat().st_mtime_ns == before


def test_a_result_that_has_lost_a_file_is_made_again(tmp_path):
    first, second = Water(), Water()
    batch(tmp_path, ["a", "b"], first)()
    (tmp_path / "a" / "ct.nii.gz").unlink()
    batch(tmp_path, ["a", "b"], second)()
    assert second.seen == ["a"] and (tmp_path / "a" / "ct.nii.gz").is_file()
    assert {exam: row["status"] for exam, row in summary(tmp_path).items()} == {"a": "done", "b": "kept"}


def test_a_second_run_says_what_it_kept_and_where(tmp_path, caplog):
    batch(tmp_path, ["a"], Water())()
    with caplog.at_level("INFO"):
        batch(tmp_path, ["a"], Water())()
    assert f"{tmp_path / 'a'}: kept" in caplog.text and "--overwrite true" in caplog.text


def test_two_exams_of_one_name_keep_their_results_whichever_comes_last(tmp_path):
    first, second = Water(), Water()
    batch(tmp_path, ["a:1"], first)()
    before = (tmp_path / "a" / "ct.nii.gz").read_bytes()
    batch(tmp_path, ["a:2"], second)()
    (other,) = (path for path in tmp_path.glob("a-*") if path.is_dir())
    assert (tmp_path / "a" / "ct.nii.gz").read_bytes() == before
    for folder, digest in ((tmp_path / "a", "1"), (other, "2")):
        assert json.loads((folder / "result.json").read_text())["inputs_sha256"] == {f"a:{digest}": digest}
    again = Water()
    batch(tmp_path, ["a:2", "a:1"], again)()
    assert again.seen == []
    with (tmp_path / "summary.csv").open() as file:
        assert [row["folder"] for row in csv.DictReader(file)] == [other.name, "a"]


def test_other_settings_and_overwrite_do_everything_again(tmp_path):
    batch(tmp_path, ["a", "b"], Water(), provenance={"seed": 0})()
    other, again = Water(), Water()
    batch(tmp_path, ["a", "b"], other, provenance={"seed": 1})()
    batch(tmp_path, ["a", "b"], again, provenance={"seed": 1}, overwrite=True)()
    assert other.seen == again.seen == ["a", "b"]


def test_the_only_exam_fails_with_its_own_error(tmp_path):
    with pytest.raises(RuntimeError) as caught:
        batch(tmp_path, ["a"], Water(), broken=["a"])()
    assert str(stated_cause(caught.value)) == "a: damaged; export it again"
    assert not list(tmp_path.iterdir())


def test_the_index_is_written_whenever_the_exams_have_doubled_and_at_the_end(tmp_path):
    lengths = []
    batch(tmp_path, "abcdefg", Water(), write_index=lambda path, rows: (path.touch(), lengths.append(len(rows))))()
    assert lengths == [1, 2, 4, 7] and (tmp_path / "index.html").is_file()


class Interrupted(Water):
    """Interrupted at the exam ``c``; notes how many exams the summary lists at each."""

    def __init__(self, output_dir):
        super().__init__()
        self.summary, self.listed = output_dir / "summary.csv", []

    def __call__(self, inputs, network, *args, **kwargs):
        self.listed.append(len(summary(self.summary.parent)) if self.summary.exists() else 0)
        if inputs.meta["name"] == ["c"]:
            raise KeyboardInterrupt
        return super().__call__(inputs, network)


def test_a_batch_has_an_account_of_every_exam_that_is_done_whenever_it_ends(tmp_path):
    interrupted = Interrupted(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        batch(tmp_path, "abcd", interrupted, write_index=lambda path, rows: path.write_text(str(len(rows))))()
    assert interrupted.listed == [0, 1, 2]
    assert list(summary(tmp_path)) == ["a", "b"] and (tmp_path / "index.html").read_text() == "2"


def test_without_an_exam_the_message_says_what_to_give(tmp_path):
    with refused(ValueError, "nothing to reconstruct", "--input", "docs/demo"):
        batch(tmp_path, [], Water())()
