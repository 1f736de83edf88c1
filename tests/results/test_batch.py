"""Many exams in one run: a bad one does not lose the others, and what is done is not done again."""

import csv
import json
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import numpy as np
import pytest
import torch
from monai.data import Dataset, MetaTensor
from monai.engines import SupervisedEvaluator
from monai.inferers import Inferer
from tests.refusal import refused

from scripts.exam.exam import Exam, to_meta
from scripts.geometry import VIEWS, preset
from scripts.io.errors import SomeFailed, stated_cause
from scripts.io.nifti import read_volume
from scripts.physics.separable import SeparableProjector
from scripts.results import writing
from scripts.results.batch import ReconstructAll
from scripts.results.hounsfield import ToHounsfieldd
from scripts.results.save import SaveReconstructions
from scripts.results.writers import WriteNifti
from scripts.results.writing import Writing

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
    """Volumes of water; notes the names of each batch, joined, and fails on the exams of ``bad``."""

    def __init__(self, bad=()):
        self.bad, self.seen = bad, []

    def __call__(self, inputs, network, *args, **kwargs):
        names = inputs.meta["name"]
        self.seen.append("".join(names))
        if set(names) & set(self.bad):
            raise RuntimeError("out of memory")
        return torch.linspace(-0.01, 0.01, 512).reshape(1, 1, 8, 8, 8).repeat(len(names), 1, 1, 1, 1)


def batch(output_dir, names, inferer, broken=(), provenance=None, writers=None, workers=0, **options):
    saver = SaveReconstructions(
        output_dir,
        SeparableProjector(GEOMETRY),
        provenance or {},
        writers or [WriteNifti()],
        writing=Writing(workers),
    )
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


@pytest.fixture
def one_thread(monkeypatch):
    """Results are written by a thread in place of other processes, which take seconds to start."""
    monkeypatch.setattr(writing, "ProcessPoolExecutor", lambda workers, context, initializer: ThreadPoolExecutor(1))


BESIDE = [{"workers": 0, "batch_size": 3}, {"workers": 1, "batch_size": 1}, {"workers": 1, "batch_size": 3}]


@pytest.mark.parametrize("options", BESIDE)
def test_batches_and_writing_beside_the_network_leave_what_one_by_one_leaves(tmp_path, one_thread, options):
    names, bad = list("abcdefgh"), {"inferer": ["e"], "broken": ["b"]}
    for folder, changes in (("one", {}), ("beside", options)):
        with refused(SomeFailed, "2 of 8 exams"):
            batch(tmp_path / folder, names, water := Water(bad["inferer"]), bad["broken"], **changes)()
    one, beside = (summary(tmp_path / folder) for folder in ("one", "beside"))
    assert list(beside) == names
    for name in names:
        assert {**one[name], "seconds": ""} == {**beside[name], "seconds": ""}
        volumes = [tmp_path / folder / name / "ct.nii.gz" for folder in ("one", "beside")]
        assert [path.exists() for path in volumes] == [name not in "be"] * 2
        if name not in "be":
            assert np.array_equal(*(read_volume(path)[0] for path in volumes))
    assert water.seen == (["acd", "efg", "e", "f", "g", "h"] if options["batch_size"] == 3 else list("acdefgh"))


class Full:
    """A writer that fails on the exams of ``bad``, as on a full disk, and waits until it may begin."""

    def __init__(self, bad=(), begin=None):
        self.bad, self.begin, self.seen = bad, begin, []

    def __call__(self, folder, result):
        assert self.begin is None or self.begin.wait(60)
        self.seen.append(result.name)
        if result.name in self.bad:
            raise ValueError(f"{result.name}: the disk is full")


def test_a_result_that_cannot_be_written_costs_no_other(tmp_path, one_thread):
    with refused(SomeFailed, "1 of 4 exams", "b: the disk is full"):
        batch(tmp_path, "abcd", Water(), writers=[Full(bad="b")], workers=1)()
    assert [row["status"] for row in summary(tmp_path).values()] == ["done", "failed", "done", "done"]


class Ahead(Water):
    """Lets the writer begin only with the sixth exam; the network would wait for ever if it may not come so far."""

    def __init__(self, writer):
        super().__init__()
        self.writer, self.ahead = writer, []

    def __call__(self, inputs, network, *args, **kwargs):
        self.ahead.append(len(self.seen) - len(self.writer.seen))
        if len(self.seen) == 2:
            self.writer.begin.set()
        return super().__call__(inputs, network)


def test_the_network_is_ahead_of_the_writer_by_a_few_exams_only(tmp_path, one_thread):
    writer = Full(begin=Event())
    network = Ahead(writer)
    batch(tmp_path, [f"{i:02}" for i in range(12)], network, writers=[writer], workers=1)()
    assert network.ahead[2] == 2 and max(network.ahead) <= 3
    assert len(summary(tmp_path)) == 12


def test_an_interrupted_run_waits_for_what_is_being_written(tmp_path, one_thread):
    interrupted = Interrupted(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        batch(tmp_path, "abcd", interrupted, writers=[Full()], workers=1)()
    assert interrupted.listed == [0, 0, 0] and list(summary(tmp_path)) == ["a", "b"]


@pytest.mark.parametrize("options", BESIDE)
def test_exams_of_one_name_in_one_run_keep_their_results(tmp_path, one_thread, options):
    batch(tmp_path, ["a:1", "a:2", "b"], Water(), **options)()
    digests = {
        tuple(json.loads(path.read_text())["inputs_sha256"].values()) for path in tmp_path.glob("a*/result.json")
    }
    assert digests == {("1",), ("2",)}


@pytest.mark.parametrize("size", [0, "two"])
def test_the_size_of_a_batch_is_checked(tmp_path, size):
    with refused(ValueError, "--batch_size", str(size)):
        batch(tmp_path, "ab", Water(), batch_size=size)
