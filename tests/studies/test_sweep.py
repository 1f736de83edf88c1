"""The sweep: which commands it runs, that it repeats none, and that one failure does not lose the others."""

import csv
import json
import os
import resource
import sys
from pathlib import Path

import pytest
from monai.bundle import ConfigWorkflow
from tests.refusal import refused

from scripts.io.errors import SomeFailed
from scripts.metrics.comparison import SHOWN
from scripts.studies.publish import PublishComparison
from scripts.studies.sweep import Method, Sweep, Usage, families, run_logged

CONFIGS = Path(__file__).parents[2] / "bundle" / "configs"
METHODS = {"one": {}, "two": {"overlays": ["b"], "training": ["c"]}}


class Fake:
    """Stands for the commands; an evaluation leaves the tables that a real one does."""

    def __init__(self, fails: str = "") -> None:
        self.commands: list[list[str]] = []
        self.fails = fails

    def __call__(self, command, log: Path) -> Usage:
        self.commands.append(list(command))
        options = dict(zip(command[6::2], command[7::2], strict=True))
        if self.fails and self.fails in options["--output_dir"]:
            raise RuntimeError("status 1: no luck")
        if "evaluate.json" in command[5]:
            self.evaluate(Path(options["--output_dir"]), options["--method"])
        return Usage(60.0, 2**30)

    @staticmethod
    def evaluate(folder: Path, method: str) -> None:
        (folder / "summary.json").write_text(json.dumps({"parameters": 1000, "methods": []}))
        with (folder / "cases.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, ["case", "method", "estimate", *SHOWN])
            writer.writeheader()
            for case in "xy":
                for name in (method, "mean_volume"):
                    writer.writerow(
                        {"case": case, "method": name, "estimate": "single"} | dict.fromkeys(SHOWN, len(name))
                    )


def sweep(folder: Path, run, publish=None, **changes) -> Sweep:
    settings = {"budget": {"max_epochs": 3, "tracking": None}, "evaluation": {"split": "test"}} | changes
    return Sweep("configs", folder, METHODS, publish=publish or (lambda *_: None), run=run, **settings)


def test_every_method_is_trained_under_the_same_budget_and_evaluated_with_its_own_weights(tmp_path):
    fake = Fake()
    sweep(tmp_path, fake)()
    files = [command[5] for command in fake.commands]
    assert files[0] == str(["configs/train.json"])
    assert files[1] == str(["configs/inference.json", "configs/evaluate.json"])
    assert files[2] == str(["configs/train.json", "configs/methods/b.json", "configs/methods/c.json"])
    assert files[3] == str(["configs/inference.json", "configs/evaluate.json", "configs/methods/b.json"])
    assert all(
        command[:5] == [sys.executable, "-m", "monai.bundle", "run", "--config_file"] for command in fake.commands
    )
    trained, evaluated = fake.commands[2][6:], fake.commands[3][6:]
    assert trained == ["--output_dir", f"{tmp_path}/two/training", "--max_epochs", "3"]
    assert evaluated == [
        "--output_dir", f"{tmp_path}/two/evaluation", "--weights", f"{tmp_path}/two/training/model.pt",
        "--method", "two", "--split", "test",
    ]  # fmt: skip


def test_a_methods_own_options_reach_its_training_alone_and_stand_over_the_budget(tmp_path):
    fake, methods = Fake(), {"short": {"options": {"max_epochs": 1, "phantom_share": 0.5}}}
    Sweep("configs", tmp_path, methods, {"max_epochs": 3}, {"split": "val"}, lambda *_: None, run=fake)()
    trained, evaluated = (command[6:] for command in fake.commands)
    assert trained == ["--output_dir", f"{tmp_path}/short/training", "--max_epochs", "1", "--phantom_share", "0.5"]
    assert "--phantom_share" not in evaluated


def test_common_overlays_come_last_in_every_command(tmp_path):
    fake = Fake()
    sweep(tmp_path, fake, common=["grid"], only=["two"])()
    assert fake.commands[0][5] == str(
        [f"configs/{n}.json" for n in ("train", "methods/b", "methods/c", "methods/grid")]
    )
    assert fake.commands[1][5].endswith("'configs/methods/b.json', 'configs/methods/grid.json']")


def test_what_is_done_is_not_repeated_unless_the_command_changes(tmp_path):
    fake = Fake()
    sweep(tmp_path, fake)()
    sweep(tmp_path, fake)()
    assert len(fake.commands) == 4
    sweep(tmp_path, fake, evaluation={"split": "val"})()
    assert len(fake.commands) == 6 and all("evaluate.json" in command[5] for command in fake.commands[4:])


def test_a_training_does_not_go_on_under_other_settings(tmp_path):
    fake = Fake()
    sweep(tmp_path, fake)()
    (tmp_path / "two" / "training" / "checkpoints").mkdir()
    (tmp_path / "two" / "training" / "checkpoints" / "checkpoint_epoch=1.pt").touch()
    with refused(SomeFailed, "two/training", "other settings", "--output_dir"):
        sweep(tmp_path, fake, budget={"max_epochs": 9}, only=["two"])()
    assert len(fake.commands) == 4


def test_an_evaluation_does_not_outlive_its_weights(tmp_path):
    fake = Fake()
    sweep(tmp_path, fake, only=["one"])()
    sweep(tmp_path, fake, budget={"max_epochs": 9}, only=["one"])()  # no checkpoint yet: trained anew
    assert ["evaluate.json" in command[5] for command in fake.commands] == [False, True, False, True]


def test_an_interrupted_step_is_repeated(tmp_path):
    with pytest.raises(SomeFailed):
        sweep(tmp_path, Fake("one/training"), only=["one"])()
    fake = Fake()
    sweep(tmp_path, fake, only=["one"])()
    assert len(fake.commands) == 2


STAGES = {
    "first": {"overlays": ["a"]},
    "second": {"overlays": ["a", "b"], "upon": {"first_weights": "first"}},
    "again": {"overlays": ["a", "b"], "evaluation": ["c"], "trained_as": "second"},
}


def staged(folder: Path, run, **changes) -> Sweep:
    return Sweep("configs", folder, STAGES, {}, {}, publish=lambda *_: None, run=run, **changes)


def test_a_stage_is_trained_upon_anothers_weights_and_evaluated_with_its_own(tmp_path):
    fake = Fake()
    staged(tmp_path, fake)()
    assert len(fake.commands) == 5  # the last method is evaluated only
    _, _, train, evaluate, again = fake.commands
    assert options_of(train)["--first_weights"] == str(tmp_path / "first" / "training" / "model.pt")
    own = str(tmp_path / "second" / "training" / "model.pt")
    assert options_of(evaluate)["--weights"] == options_of(again)["--weights"] == own
    assert "--first_weights" not in options_of(evaluate)
    assert "configs/methods/c.json" in again[5] and options_of(again)["--method"] == "again"


def test_what_another_method_was_trained_for_is_evaluated_again_with_it(tmp_path):
    staged(tmp_path, Fake())()
    (tmp_path / "second" / "training" / "record.json").unlink()
    fake = Fake()
    staged(tmp_path, fake)()
    assert ["train" in command[5] for command in fake.commands] == [True, False, False]


def test_a_method_that_is_not_trained_has_the_costs_of_the_one_that_was(tmp_path):
    published = {}
    stages = staged(tmp_path, Fake())
    stages.publish = lambda folder, rows, costs: published.update(costs)
    stages()
    assert published["again"] == published["second"]


def test_weights_of_an_unfinished_training_are_not_measured_under_another_name(tmp_path):
    staged(tmp_path, Fake())()
    record = tmp_path / "second" / "training" / "record.json"
    record.write_text(json.dumps({"command": json.loads(record.read_text())["command"]}))
    with refused(SomeFailed, "again", "second", "not finished"):
        staged(tmp_path, Fake(), only=["again"])()


def test_weights_of_an_unfinished_training_are_not_trained_upon(tmp_path):
    with refused(SomeFailed, "2 of 2 methods", "second: needs the weights of first", "not finished"):
        staged(tmp_path, Fake(), only=["second", "again"])()


def test_what_stands_upon_new_weights_is_trained_anew(tmp_path):
    staged(tmp_path, Fake())()
    (tmp_path / "first" / "training" / "record.json").unlink()
    checkpoint = tmp_path / "second" / "training" / "checkpoints" / "checkpoint_epoch=1.pt"
    checkpoint.parent.mkdir()
    checkpoint.touch()
    fake = Fake()
    staged(tmp_path, fake)()
    assert len(fake.commands) == 5 and not checkpoint.exists()


def test_a_failing_method_is_reported_and_loses_no_other(tmp_path):
    published = []
    with refused(SomeFailed, "1 of 2 methods", "\none: status 1: no luck"):
        sweep(tmp_path, Fake("one/training"), lambda _, rows, costs: published.append((rows, costs)))()
    ((rows, costs),) = published
    assert {row["method"] for row in rows} == {"two", "mean_volume"} and list(costs) == ["two"]
    again = Fake()
    sweep(tmp_path, again)()
    assert len(again.commands) == 2


def test_a_tracker_gets_one_run_per_method_which_evaluation_closes(tmp_path):
    fake = Fake()
    sweep(tmp_path, fake, tracking=[{"tracking": "t.json", "experiment_name": "e"}])()
    run = ["--tracking", "t.json", "--experiment_name", "e", "--run_name"]
    assert [command[command.index("--tracking") :] for command in fake.commands] == [
        [*run, "one", "--close_run", "False"], [*run, "one"], [*run, "two", "--close_run", "False"], [*run, "two"],
    ]  # fmt: skip


def test_tracking_is_no_setting_that_a_step_is_repeated_for(tmp_path):
    fake, (folder, other) = Fake(), (tmp_path / "a", tmp_path / "b")
    sweep(folder, fake)()
    sweep(folder, fake, tracking=[{"tracking": "t.json"}])()
    assert len(fake.commands) == 4 and not any("--tracking" in command for command in fake.commands)
    sweep(other, fake, tracking=[{"tracking": "t.json"}])()
    sweep(other, fake)()
    assert len(fake.commands) == 8


def benchmark(folder: Path, **options) -> tuple[Sweep, Fake]:
    """The sweep of benchmark.json, of one method, without its commands."""
    options = {"output_dir": str(folder / "out"), "only": ["icm_reg"], "dataset_dir": "DATA"} | options
    workflow = ConfigWorkflow(str(CONFIGS / "benchmark.json"), workflow_type="train", logging_file=False, **options)
    workflow.initialize()
    made, fake = workflow.parser.get_parsed_content("sweep"), Fake()
    made.run, made.publish = fake, lambda *_: None
    return made, fake


def options_of(command: list[str]) -> dict[str, str]:
    return dict(zip(command[6::2], command[7::2], strict=True))


def test_benchmarks_tracking_reaches_its_trainings_from_any_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made, fake = benchmark(tmp_path, tracking=os.path.relpath(CONFIGS / "mlflow.json"), max_epochs=7)
    made()
    training, evaluation = map(options_of, fake.commands)
    shared = {
        "--tracking": str(CONFIGS / "mlflow.json"), "--tracking_uri": f"sqlite:///{tmp_path}/out/mlruns.db",
        "--experiment_name": "biplanar_ct", "--run_name": "icm_reg",
    }  # fmt: skip
    assert shared.items() <= training.items() and shared.items() <= evaluation.items()
    assert "'max_epochs': 7" in training["--run_params"] and "None" not in training["--run_params"]


def test_benchmark_tracks_nothing_unasked_and_names_another_server_if_asked(tmp_path):
    made, fake = benchmark(tmp_path)
    made()
    assert not any(option.startswith(("--track", "--run")) for command in fake.commands for option in command)
    made, fake = benchmark(tmp_path / "b", tracking=str(CONFIGS / "mlflow.json"), tracking_uri="http://server")
    made()
    assert [options_of(command)["--tracking_uri"] for command in fake.commands] == ["http://server"] * 2


def test_benchmarks_backbones_reach_its_evaluations_alone(tmp_path):
    made, fake = benchmark(tmp_path, fid_backbone="radimagenet_resnet50")
    made()
    training, evaluation = map(options_of, fake.commands)
    assert "--fid_backbone" not in training and evaluation["--fid_backbone"] == "radimagenet_resnet50"
    assert "--lpips_backbone" not in evaluation and "--backbone_channels" not in evaluation


def test_costs_and_rows_reach_the_publisher_and_shared_baselines_once(tmp_path):
    published = []
    sweep(tmp_path, Fake(), lambda _, rows, costs: published.append((rows, costs)))()
    ((rows, costs),) = published
    assert [(r["method"], r["case"]) for r in rows] == [
        ("one", "x"), ("mean_volume", "x"), ("one", "y"), ("mean_volume", "y"), ("two", "x"), ("two", "y"),
    ]  # fmt: skip
    assert costs["one"] == {"parameters": 1000, "training_seconds": 60.0, "training_peak_bytes": 2**30}


def test_some_methods_alone_and_unknown_ones(tmp_path):
    fake = Fake()
    sweep(tmp_path, fake, only=["two"])()
    assert len(fake.commands) == 2
    with refused(ValueError, "'three'", "one, two"):
        sweep(tmp_path, fake, only=["three"])


def test_the_tables_are_written_and_pictures_asked_for(tmp_path):
    drawn = []
    publish = PublishComparison("two", {"epochs": 3, "nothing": None}, lambda folder, methods: drawn.append(methods))
    sweep(tmp_path, Fake(), publish)()
    assert drawn == [["one", "two"]]
    page = (tmp_path / "comparison.md").read_text()
    assert "| mean_volume | 11.00 ± 0.00 |" in page and "- epochs: 3" in page and "nothing" not in page
    table = list(csv.DictReader((tmp_path / "comparison.csv").open()))
    assert [row["method"] for row in table] == ["one", "mean_volume", "two"]
    assert len(list(csv.DictReader((tmp_path / "cases.csv").open()))) == 6


def test_a_command_is_measured_and_logged_and_its_failure_told(tmp_path):
    log = tmp_path / "log.txt"
    used = run_logged([sys.executable, "-c", "x = bytearray(50_000_000); print('hello')"], log)
    ours = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # Linux counts what was there before exec
    assert 0 < used.seconds < 60 and 50_000_000 < used.peak_bytes < ours + 1_000_000_000
    assert log.read_text() == "hello\n"
    with pytest.raises(RuntimeError, match="status 3: bye .*log.txt"):
        run_logged([sys.executable, "-c", "print('bye'); raise SystemExit(3)"], log)
    assert log.read_text() == "hello\nbye\n"
    program = "print('error: no CTs in x'); print('(a hint)'); raise SystemExit(1)"
    with refused(RuntimeError, "status 1", "no CTs in x (log"):
        run_logged([sys.executable, "-c", program], log)
    with pytest.raises(RuntimeError, match="status 4: no output"):  # an error of an earlier attempt is none of this one
        run_logged([sys.executable, "-c", "raise SystemExit(4)"], log)


def test_methods_that_need_each_others_weights_stay_together():
    methods = {
        "bridge": Method(),
        "direct": Method(),
        "control": Method(upon={"stage1_weights": "bridge"}),
        "one_view": Method(trained_as="control"),
        "both": Method(upon={"stage1_weights": "direct"}),
    }
    assert families(methods) == [{"bridge", "control", "one_view"}, {"direct", "both"}]


def test_a_command_of_the_sweep_hears_nothing_of_the_launcher(tmp_path, monkeypatch):
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "1")
    code = "import os; print(sorted({'RANK', 'LOCAL_RANK', 'WORLD_SIZE', 'MASTER_ADDR'} & set(os.environ)))"
    run_logged([sys.executable, "-c", code], tmp_path / "log")
    assert (tmp_path / "log").read_text() == "[]\n"
