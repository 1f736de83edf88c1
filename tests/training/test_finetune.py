"""finetune.json: training goes on from given weights, some parts frozen, and never ends with worse ones."""

import signal
from pathlib import Path

import pytest
import torch

from scripts.io.errors import stated_cause

CONFIGS = Path(__file__).parents[2] / "bundle" / "configs"
FINETUNE = CONFIGS / "finetune.json"
FROZEN = ("conditioner.stem.", "conditioner.encoder.")
SHORT = {"max_epochs": 2, "val_interval": 1, "amp": False}
DIE_IN_EPOCH_2 = """
import os, signal, torch
step, calls = torch.optim.Adam.step, []
def torn(self, *args, **kwargs):
    step(self, *args, **kwargs)
    calls.append(0)
    if len(calls) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
torch.optim.Adam.step = torn
"""


def load(path: Path) -> dict:
    return torch.load(path, weights_only=True)


@pytest.fixture(scope="module")
def weights(start, tmp_path_factory) -> Path:
    """What a first training left."""
    folder = tmp_path_factory.mktemp("first")
    run = start(output_dir=folder, max_epochs=1, amp=False)
    assert run.wait() == 0, run.output
    return folder / "model.pt"


@pytest.fixture(scope="module")
def finetuned(start, weights, tmp_path_factory) -> Path:
    """Output of an unbroken finetuning."""
    folder = tmp_path_factory.mktemp("finetuned")
    run = start(FINETUNE, output_dir=folder, initial_weights=weights, learning_rate=1e-2, **SHORT)
    assert run.wait() == 0, run.output
    return folder


def test_frozen_parts_keep_every_bit_and_all_others_change(weights, finetuned):
    before, after = load(weights), load(finetuned / "checkpoints" / "checkpoint_epoch=2.pt")["network"]
    frozen = {name for name in before if name.startswith(FROZEN)}
    assert frozen and all(torch.equal(after[name], before[name].float()) for name in frozen)
    changed = {name for name in before if not torch.equal(after[name], before[name].to(after[name].dtype))}
    assert changed == before.keys() - frozen - {"geometry", "conditioner.embedding.sine"}


def test_the_optimizer_holds_only_what_learns(workflow, weights):
    made = workflow(FINETUNE, initial_weights=str(weights), **SHORT)
    held = {id(p) for group in made.parser.get_parsed_content("optimizer").param_groups for p in group["params"]}
    named = dict(made.network_def.named_parameters())
    assert held == {id(p) for name, p in named.items() if not name.startswith(FROZEN)}
    assert made.check_properties() == []


def test_a_finetuning_killed_and_resumed_ends_with_the_weights_of_an_unbroken_one(start, weights, finetuned, tmp_path):
    options = {"output_dir": tmp_path, "initial_weights": weights, "learning_rate": 1e-2, **SHORT}
    assert start(FINETUNE, prelude=DIE_IN_EPOCH_2, **options).wait() == -signal.SIGKILL
    resumed = start(FINETUNE, **options)
    assert resumed.wait() == 0 and "before training" not in resumed.output, resumed.output
    ends = [load(run / "checkpoints" / "checkpoint_epoch=2.pt") for run in (finetuned, tmp_path)]
    for part in ("network", "ema"):
        assert all(torch.equal(value, ends[1][part][name]) for name, value in ends[0][part].items())
    kept = [load(run / "model.pt") for run in (finetuned, tmp_path)]
    assert all(torch.equal(value, kept[1][name]) for name, value in kept[0].items())


def test_a_finetuning_that_only_makes_things_worse_keeps_the_weights_it_started_from(workflow, weights, tmp_path):
    made = workflow(FINETUNE, initial_weights=str(weights), learning_rate=10.0, **SHORT)
    made.run()
    before, kept = load(weights), load(tmp_path / "out" / "model.pt")
    assert before.keys() == kept.keys() and all(torch.equal(kept[name], before[name]) for name in before)
    assert not torch.equal(made.network_def.state_dict()["denoiser.stem.weight"], before["denoiser.stem.weight"])


def test_a_learning_rate_of_zero_changes_nothing(workflow, weights):
    made = workflow(FINETUNE, initial_weights=str(weights), learning_rate=0.0, **SHORT)
    made.evaluator.run()
    before = dict(made.evaluator.state.metrics)
    made.run()
    assert made.evaluator.state.metrics == pytest.approx(before, abs=1e-4)
    assert all(torch.equal(v, made.network_def.state_dict()[k].to(v.dtype)) for k, v in load(weights).items())


def test_weights_of_another_geometry_are_taken_if_asked(workflow, weights, tmp_path):
    state, path = load(weights), tmp_path / "elsewhere.pt"
    torch.save(state | {"geometry": state["geometry"] + 1}, path)
    refusing, taking = (workflow(FINETUNE, initial_weights=str(path), any_geometry=v, **SHORT) for v in (False, "true"))
    with pytest.raises(RuntimeError) as error:
        refusing.parser.get_parsed_content("network")
    assert "weights were trained for geometry" in str(stated_cause(error.value))
    started = taking.parser.get_parsed_content("network").state_dict()
    name = "denoiser.stem.weight"
    assert torch.equal(started["geometry"], state["geometry"]) and torch.equal(started[name], state[name].float())


def test_a_part_that_the_network_lacks_is_refused(start, weights, tmp_path):
    run = start(FINETUNE, output_dir=tmp_path, initial_weights=weights, frozen="decoder", **SHORT)
    assert run.wait() == 1
    assert "error: --frozen: the network has no part 'decoder'; choose from conditioner" in run.output


@pytest.mark.slow
def test_finetuning_improves_on_held_out_cases_of_a_new_domain(workflow, prepared, tmp_path):
    splits = {"train": list("abcdefgh"), "val": list("ij")}
    home = prepared(tmp_path / "home", splits)
    away = prepared(tmp_path / "away", splits, 20, lambda hu: torch.where(hu > -300, 1.5 * hu + 300, hu))
    first = {"max_epochs": 20, "iterations_per_epoch": 20, "val_interval": 20, "amp": False, "learning_rate": 1e-3}
    workflow(dataset_dir=str(home), output_dir=str(tmp_path / "first"), ema_momentum=0.02, **first).run()
    short = {"max_epochs": 5, "iterations_per_epoch": 20, "val_interval": 5, "amp": False, "learning_rate": 5e-4}
    values = {"dataset_dir": str(away), "initial_weights": str(tmp_path / "first" / "model.pt"), **short}
    made = workflow(FINETUNE, ema_momentum=0.02, **values)
    made.evaluator.run()
    before = made.evaluator.state.metrics["val_psnr3d"]
    made.run()
    assert made.evaluator.state.metrics["val_psnr3d"] >= before + 0.5
