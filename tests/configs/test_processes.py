"""The processes of a launcher share the exams of one command and leave what a single process leaves, bit for bit."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from tests.fixtures import CONFIGS, GEOMETRY, TINY
from tests.launcher import as_torchrun

from scripts.io.nifti import read_volume

EXAMS = "abcde"
NETWORK = {name: value for name, value in TINY.items() if name == "geometry" or name.startswith("stage1_def")}
COMMANDS = {
    "inference": (["inference.json"], {"outputs": "nifti"}),
    "evaluation": (["inference.json", "evaluate.json"], {"split": "train"}),
    "calibration": (["inference.json", "calibrate.json"], {"fit_split": "val", "split": "train", "samples": 2}),
}


@pytest.fixture(scope="module")
def network(overlay, tmp_path_factory) -> tuple[Path, Path]:
    """A tiny network: its overlay and its random weights."""
    tiny, weights = overlay(NETWORK), tmp_path_factory.mktemp("weights") / "model.pt"
    parser = ConfigParser(ConfigParser.load_config_files([CONFIGS / "inference.json", tiny]))
    torch.manual_seed(0)
    made = parser.get_parsed_content("network_def")
    for parameter in made.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)  # its last layer is zero
    torch.save(made.state_dict(), weights)
    return tiny, weights


@pytest.fixture
def command(monai_bundle, network, dataset_dir, tmp_path):
    """Starts a command in some processes, each after the code ``prelude``."""

    def start(name: str, output_dir: Path, processes: int = 1, prelude: str = "", **changes):
        files, options = COMMANDS[name]
        tiny, weights = network
        where = {"input": dataset_dir / "cases"} if name == "inference" else {"dataset_dir": dataset_dir}
        options = {**options, **where, "steps": 2, "weights": weights, "reference": "", "output_dir": output_dir}
        launcher = as_torchrun(processes) if processes > 1 else ""
        config = [str(CONFIGS / file) for file in files] + [str(tiny)]
        return monai_bundle("run", tmp_path, launcher + prelude, config_file=config, **options | changes)

    return start


def table(path: Path) -> list[dict[str, str]]:
    """The rows of a table, without the time that each took."""
    with path.open() as file:
        return [{name: value for name, value in row.items() if name != "seconds"} for row in csv.DictReader(file)]


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def assert_same(one: Path, several: Path, name: str) -> None:
    """Two output folders hold the same files, tables and volumes."""
    assert files(one) == files(several)
    for path in (one / file for file in files(one)):
        other = several / path.relative_to(one)
        if path.suffix == ".csv" and path.name != "summary.csv":
            assert table(path) == table(other)
        elif path.suffixes == [".nii", ".gz"]:
            assert np.array_equal(read_volume(path)[0], read_volume(other)[0])
    if name == "inference":
        assert table(one / "summary.csv") == table(several / "summary.csv")
        assert [row["exam"] for row in table(one / "summary.csv")] == list(EXAMS)


SLOW = pytest.mark.slow
CHOSEN = [
    ("inference", 2, {}),
    ("evaluation", 2, {}),
    pytest.param("calibration", 2, {}, marks=SLOW),
    pytest.param("inference", 3, {}, marks=SLOW),
    pytest.param("evaluation", 3, {}, marks=SLOW),
    pytest.param("evaluation", 3, {"split": "val"}, marks=SLOW),  # fewer cases than processes
    pytest.param("calibration", 3, {}, marks=SLOW),
]


@pytest.mark.parametrize("name, processes, changes", CHOSEN)
def test_several_processes_leave_what_one_leaves(command, tmp_path, name, processes, changes):
    one, several = tmp_path / "one", tmp_path / "several"
    for folder, count in ((one, 1), (several, processes)):
        run = command(name, folder, count, **changes)
        assert run.wait() == 0, run.output
    assert_same(one, several, name)


DIE_AT_THE_LAST_EXAM = """
import os, signal
rename = os.rename
def deadly(source, target):
    if os.environ["RANK"] == "1" and str(target).endswith("/e"):
        os.kill(os.getpid(), signal.SIGKILL)
    rename(source, target)
os.rename = deadly
"""


@pytest.mark.slow
def test_a_process_that_dies_loses_only_its_exam_and_the_next_run_does_that(command, tmp_path):
    run = command("inference", tmp_path / "out", 3, DIE_AT_THE_LAST_EXAM)
    assert run.wait() == 1
    assert "another process of this run has died; run the command again" in run.output
    assert [exam for exam in EXAMS if (tmp_path / "out" / exam).exists()] == list("abcd")
    shares = [table(tmp_path / "out" / f"summary-{rank}.csv") for rank in range(3)]
    assert [[row["exam"] for row in share] for share in shares] == [["a", "d"], ["b"], ["c"]]

    assert (again := command("inference", tmp_path / "out", 2)).wait() == 0, again.output
    statuses = {row["exam"]: row["status"] for row in table(tmp_path / "out" / "summary.csv")}
    assert statuses == dict.fromkeys("abcd", "kept") | {"e": "done"}
    assert (one := command("inference", tmp_path / "one")).wait() == 0, one.output
    for exam in EXAMS:
        volumes = [read_volume(tmp_path / folder / exam / "ct.nii.gz")[0] for folder in ("out", "one")]
        assert volumes[0].shape == GEOMETRY.finer(2).volume_shape and np.array_equal(*volumes)
    assert not list((tmp_path / "out").glob("summary-*.csv"))


@pytest.mark.slow
def test_a_failed_exam_is_reported_once_when_all_are_done(command, tmp_path, dataset_dir):
    exams = tmp_path / "exams"
    exams.mkdir()
    for exam in EXAMS:
        (exams / exam).symlink_to(dataset_dir / "cases" / exam)
    (exams / "aa").mkdir()
    (exams / "aa" / "frontal.nii.gz").write_bytes(b"damaged")
    run = command("inference", tmp_path / "out", 2, input=exams)
    assert run.wait() == 1 and run.output.count("1 of 6 exams failed") == 1
    rows = table(tmp_path / "out" / "summary.csv")
    assert [row["exam"] for row in rows if row["status"] == "failed"] == ["aa"] and len(rows) == 6


METHODS = ["diffux2ct_correcting", "correcting_icm"]
SHORT = {"max_epochs": 1, "iterations_per_epoch": 2, "val_interval": 1, "split": "val"}


@pytest.mark.slow
def test_a_comparison_of_methods_in_two_processes_measures_what_one_measures(monai_bundle, tiny, dataset_dir, tmp_path):
    options = {"only": METHODS, "common": [str(tiny.with_suffix(""))], "dataset_dir": dataset_dir} | SHORT
    for folder, prelude in (("one", ""), ("two", as_torchrun(2))):
        config = CONFIGS / "benchmark.json"
        run = monai_bundle("run", tmp_path, prelude, config_file=config, output_dir=tmp_path / folder, **options)
        assert run.wait() == 0, run.output
    for name in METHODS:
        cases = [table(tmp_path / folder / name / "evaluation" / "cases.csv") for folder in ("one", "two")]
        assert cases[0] == cases[1] and {row["case"] for row in cases[0]} == {"d", "e"}
    one, two = ([file for file in files(tmp_path / folder) if ".tfevents." not in file] for folder in ("one", "two"))
    assert one == two


BESIDE = {"workers": 1, "batch_size": 2, "outputs": "nifti,dicom,report,figure"}


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_writing_beside_the_network_and_batches_leave_the_same_results(command, tmp_path, processes):
    outputs = {"outputs": BESIDE["outputs"], "samples": 2}
    for folder, count, changes in (("one", 1, outputs), ("beside", processes, outputs | BESIDE)):
        run = command("inference", tmp_path / folder, count, **changes)
        assert run.wait() == 0, run.output
    one, beside = tmp_path / "one", tmp_path / "beside"
    assert files(one) == files(beside)
    assert [row["exam"] for row in table(beside / "summary.csv")] == list(EXAMS)
    for exam in EXAMS:
        volumes = [read_volume(folder / exam / "ct.nii.gz")[0] for folder in (one, beside)]
        assert np.abs(volumes[0] - volumes[1]).max() <= 1  # HU; batches round otherwise
