"""train.json as a whole: its contract with MONAI, what it logs, and what it says to a user who errs."""

import json
import signal
from pathlib import Path

import mlflow
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from scripts.training.learning_rate import warm_cosine
from scripts.training.seeding import start_from_seed

CONFIGS = Path(__file__).parents[2] / "bundle" / "configs"
DIE_IN_EPOCH_2 = """
import os, signal, torch
from ignite.handlers import EMAHandler
update, calls = EMAHandler._update_ema_model, []
def deadly(self, *args):
    update(self, *args)
    calls.append(0)
    if len(calls) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
EMAHandler._update_ema_model = deadly
"""


@pytest.fixture
def trained(workflow):
    """A workflow that has run, with the given overrides."""

    def run(**overrides):
        made = workflow(**overrides)
        made.run()
        return made

    return run


def psnr(pred: torch.Tensor, label: torch.Tensor) -> float:
    """Peak signal-to-noise ratio in dB of volumes in [-1, 1]."""
    return (10 * torch.log10(4 / (pred - label).square().mean())).item()


def test_every_required_property_is_there(workflow):
    made = workflow(meta_file=None)
    assert made.check_properties() == []
    assert made.max_epochs == 3 and made.val_interval == 1
    assert len(made.train_dataset) == 2 * 2 and len(made.val_dataset) == 2


def test_a_device_named_on_the_command_line_is_text(trained, tmp_path):
    made = trained(device="cpu", max_epochs=1)
    assert (tmp_path / "out" / "model.pt").is_file()
    assert not made.parser.get_parsed_content("train#dataloader").pin_memory


def test_key_metric_is_the_psnr_of_volumes_really_sampled_by_the_moving_average(trained):
    made = trained(amp=False)
    network = made.parser.get_parsed_content("ema").ema_model
    values = []
    for batch in made.parser.get_parsed_content("validate#dataloader"):
        image, x0 = made.evaluator.prepare_batch(batch, torch.device("cpu"))
        values.append(psnr(made.val_inferer(image, network), x0))
    assert made.evaluator.state.key_metric_name == "val_psnr3d"
    assert made.evaluator.state.metrics["val_psnr3d"] == pytest.approx(sum(values) / 2, abs=1e-4)
    assert -1 <= made.evaluator.state.metrics["val_ssim3d"] <= 1


def test_tensorboard_gets_losses_learning_rates_metrics_and_pictures_of_every_epoch(trained, tmp_path):
    trained(learning_rate=1e-3)
    events = EventAccumulator(str(tmp_path / "out" / "tensorboard")).Reload()
    scalars = {tag: {e.step: e.value for e in events.Scalars(tag)} for tag in events.Tags()["scalars"]}
    assert scalars.keys() == {"mean_train_loss", "learning_rate", "val_psnr3d", "val_ssim3d"}
    assert all(steps.keys() == {1, 2, 3} for steps in scalars.values())
    expected = {epoch: 1e-3 * warm_cosine(epoch - 1, 3) for epoch in (1, 2, 3)}
    assert scalars["learning_rate"] == pytest.approx(expected)
    assert events.Tags()["images"] == ["val/d", "val/d/radiographs", "val/e", "val/e/radiographs"]


def test_weights_kept_are_the_half_precision_moving_average_of_the_best_epoch(trained, tmp_path):
    made = trained(val_interval=3)
    kept = torch.load(tmp_path / "out" / "model.pt", weights_only=True)
    average = made.parser.get_parsed_content("ema").ema_model.state_dict()
    assert kept.keys() == average.keys()
    for name, value in average.items():
        assert torch.equal(kept[name], value.half() if value.dtype == torch.float32 else value), name
    current = made.network_def.state_dict()
    assert any(not torch.equal(average[name], current[name]) for name in average)


def test_weights_do_not_depend_on_the_number_of_workers(trained, tmp_path):
    states = [
        trained(num_workers=n, max_epochs=2, val_interval=9, output_dir=str(tmp_path / f"{n}")).network_def.state_dict()
        for n in (0, 2)
    ]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_training_sets_are_mixed_from_several_folders(workflow, dataset_dir):
    made = workflow(training_sets={str(dataset_dir): 1.0, str(dataset_dir / "cases" / ".."): 3.0})
    assert made.train_dataset.patients.weights.tolist() == pytest.approx([1 / 3] * 3 + [1.0] * 3)


@pytest.mark.slow
def test_the_settings_for_one_gpu_train_with_phantoms_drawn_ahead(workflow):
    size = {"batch_size": 2, "iterations_per_epoch": 2, "max_epochs": 2, "val_interval": 1, "amp": False}
    made = workflow(CONFIGS / "gpu.json", phantom_share=0.5, phantom_workers=1, **size)
    made.run()
    assert made.evaluator.state.metrics["val_psnr3d"] > 0
    (*_, phantoms) = made.train_dataset.patients.sources
    assert phantoms.pool is not None and phantoms.reuse == 64
    phantoms.pool.terminate()
    assert torch.backends.cudnn.benchmark and not torch.backends.cudnn.deterministic
    start_from_seed(0)
    assert torch.backends.cudnn.deterministic and not torch.backends.cudnn.benchmark


@pytest.mark.slow
def test_weights_do_not_depend_on_who_draws_the_phantoms(trained, tmp_path):
    options = {"phantom_share": 0.5, "amp": False, "val_interval": 9}
    states = [
        trained(output_dir=str(tmp_path / str(n)), **who, **options).network_def.state_dict()
        for n, who in enumerate(({}, {"phantom_workers": 1}, {"num_workers": 2}))
    ]
    assert all(torch.equal(states[0][name], state[name]) for state in states[1:] for name in states[0])


@pytest.mark.slow
def test_compiled_network_trains_like_the_plain_one(trained, tmp_path):
    options = {"amp": False, "stage1_def#dropout": 0.0, "max_epochs": 1, "val_interval": 9}
    losses = [
        trained(compile=c, output_dir=str(tmp_path / f"{c}"), **options).trainer.state.metrics["mean_train_loss"]
        for c in (False, True)
    ]
    assert losses[1] == pytest.approx(losses[0], rel=0.05)  # the noise is drawn alike outside the network


def tracked(folder: Path) -> tuple[mlflow.MlflowClient, mlflow.entities.Run]:
    """The one run in the MLflow database that a training left in its output folder."""
    client = mlflow.MlflowClient(f"sqlite:///{folder}/mlruns.db")
    (run,) = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    return client, run


@pytest.mark.parametrize(
    "tracking",
    [
        pytest.param("mlflow", marks=pytest.mark.slow, id="MONAI's settings"),
        pytest.param(str(CONFIGS / "mlflow.json"), id="ours"),
    ],
)
def test_mlflow_gets_metrics_and_pictures_and_by_our_settings_the_configuration(
    trained, mlflow_database, tmp_path, tracking
):
    mlflow_database(tmp_path / "out")
    trained(tracking=tracking, seed=5)
    client, run = tracked(tmp_path / "out")
    assert run.info.status == "FINISHED"
    assert run.data.metrics.keys() >= {"mean_train_loss", "learning_rate", "val_psnr3d", "val_ssim3d"}
    assert [m.step for m in client.get_metric_history(run.info.run_id, "val_psnr3d")] == [1, 2, 3]
    pictures = client.list_artifacts(run.info.run_id, "previews/d")
    files = [p.path for p in pictures if not p.is_dir]
    assert files == [f"previews/d/epoch_0000{epoch}.png" for epoch in (1, 2, 3)]
    configurations = [a.path for a in client.list_artifacts(run.info.run_id) if a.path.startswith("config_")]
    if tracking != "mlflow":
        (artifact,) = configurations
        executed = json.loads(Path(client.download_artifacts(run.info.run_id, artifact, str(tmp_path))).read_text())
        assert executed["seed"] == 5 and executed["geometry"]["volume_shape"] == [16, 16, 16]


@pytest.mark.slow
def test_resumed_run_continues_its_mlflow_run(start, tmp_path):
    options = {"tracking": CONFIGS / "mlflow.json", "output_dir": tmp_path}
    assert start(prelude=DIE_IN_EPOCH_2, **options).wait() == -signal.SIGKILL
    resumed = start(**options)
    assert resumed.wait() == 0, resumed.output
    client, run = tracked(tmp_path)
    assert run.info.status == "FINISHED"
    assert [m.step for m in client.get_metric_history(run.info.run_id, "val_psnr3d")] == [1, 2, 3]


def error_of(run) -> str:
    """The one error that a failed run ends with; it comes without a traceback."""
    assert run.wait() == 1, run.output
    before, found, message = run.output.rpartition("\nerror: ")
    assert found and "Traceback" not in message, run.output
    return message


MISTAKES = {
    "data set not prepared": (
        {"dataset_dir": "/nowhere"},
        "/nowhere/splits.json: not found; /nowhere must be the output folder of prepare.json",
    ),
    "one training set misspelt": (
        {"training_sets": "{'/nowhere': 1.0}"},
        "/nowhere/splits.json: not found; /nowhere must be the output folder of prepare.json",
    ),
    "a word for a number": ({"learning_rate": "fast"}, "--learning_rate takes a number, got 'fast'"),
    "volume that the network cannot divide": (
        {"geometry#volume_shape": "[16,16,18]"},
        "volume_shape (16, 16, 18) must be divisible by 4",
    ),
    "data of another geometry": (
        {"geometry#volume_spacing_mm": "10.0"},
        "prepare the data with the network's geometry",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_ends_in_one_clear_error(start, tmp_path, mistake):
    overrides, message = MISTAKES[mistake]
    assert message in error_of(start(output_dir=tmp_path, **overrides))


CHANGES = {
    "network": ({"stage1_def#channels": "[16,16]"}, "size mismatch"),
    "geometry": ({"geometry#source_to_isocentre_mm": "700.0"}, "geometry was BiplanarGeometry("),
    "parametrisation": (
        {
            "parametrisation#_target_": "scripts.diffusion.parametrisation.V",
            "stage1_def#network#_target_": "scripts.networks.diffux2ct.DiffuX2CT",
        },
        "was X0(), now V()",
    ),
    "noise schedule": ({"alphas_cumprod#beta_end": "0.01"}, "alphas_cumprod was"),
    "length of an epoch": ({"iterations_per_epoch": "1"}, "iterations_per_epoch was 2, now 1"),
}


@pytest.fixture(scope="module")
def finished(start, tmp_path_factory):
    """Output of a run of one epoch."""
    folder = tmp_path_factory.mktemp("finished")
    run = start(output_dir=folder, max_epochs=1, val_interval=9)
    assert run.wait() == 0, run.output
    return folder


@pytest.mark.parametrize("changed", CHANGES)
def test_run_resumed_with_another_one_is_refused(start, finished, changed):
    overrides, message = CHANGES[changed]
    error = error_of(start(output_dir=finished, max_epochs=2, **overrides))
    assert message in error and "checkpoint_epoch=1.pt: cannot resume: " in error
    assert "use the configuration this run was started with, or start another run with another --output_dir" in error


def test_overlay_for_several_gpus_without_torchrun_says_what_is_missing(workflow, monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(RuntimeError) as error:
        workflow(CONFIGS / "multi_gpu_train.json")
    assert "environment variable RANK expected" in str(error.value.__cause__)
