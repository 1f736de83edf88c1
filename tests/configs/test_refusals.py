"""What every workflow refuses in one line and with status 1: a seed that is none, a device that is not there."""

import json
from pathlib import Path

import pytest

CONFIGS = Path(__file__).parents[2] / "bundle" / "configs"
WORKFLOWS = {
    path.stem: json.loads(path.read_text()) for path in CONFIGS.glob("*.json") if "run" in json.loads(path.read_text())
}
UPON = {"export_onnx": "inference", "reference": "train", "evaluate": "inference", "sensitivity": "inference"}
UPON |= {"calibrate": "inference", "data/phantom": "prepare"}
"""The configuration that an overlay lies over."""
FIRST = ["explain_errors", "check_options"]


def files(workflow: str) -> list[str]:
    return [str(CONFIGS / f"{name}.json") for name in (UPON.get(workflow), workflow) if name]


def refusal(run) -> str:
    """What a run that ends in one line says."""
    assert run.wait() == 1, run.output
    assert "Traceback" not in run.output
    (line,) = [line for line in run.output.splitlines() if line.startswith("error: ")]
    return line


@pytest.mark.parametrize(
    ("workflow", "seed"),
    [
        *(("train", seed) for seed in ("1e400", "99999999999999999999", "-1", "two")),
        ("data/phantom", "-1"),
        ("inference", "1e400"),
        ("export_radiographs", "two"),
        ("benchmark", "1e400"),
        ("reference", "-1"),
    ],
)
def test_what_is_no_seed_is_refused(monai_bundle, dataset_dir, tmp_path, workflow, seed):
    options = WORKFLOWS.get(workflow, WORKFLOWS["prepare"])
    given = {"input": dataset_dir / "cases" / "d"} if "input" in options else {"dataset_dir": dataset_dir}
    given |= {} if workflow == "reference" else {"output_dir": tmp_path / "out"}
    run = monai_bundle("run", tmp_path, config_file=files(workflow), seed=seed, **given)
    assert "--seed " in refusal(run)
    assert not (tmp_path / "out").exists()


def checks_of(run: list) -> list[str]:
    return [step["_target_"].rpartition(".")[2] for step in run if isinstance(step, dict)]


def test_every_workflow_explains_errors_and_checks_its_options_first():
    assert {name for name, config in WORKFLOWS.items() if checks_of(config["run"])[:2] != FIRST} == set()


def test_every_workflow_that_takes_a_device_checks_it():
    for name, config in WORKFLOWS.items():
        if "device" in config:
            assert "device_of" in checks_of(config["run"]), name


def test_an_onnx_export_to_a_device_that_is_not_there_is_refused(monai_bundle, tmp_path):
    run = monai_bundle("run", tmp_path, config_file=files("export_onnx"), device="cuda", output_dir=tmp_path / "out")
    assert "--device: cuda is not available" in refusal(run)
