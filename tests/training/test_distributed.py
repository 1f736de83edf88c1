"""Two processes train like one with their common batch; one of them writes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tests.launcher import as_torchrun, free_port

TESTS = Path(__file__).parent
CONFIGS = TESTS.parents[1] / "bundle" / "configs"
RUN = {"amp": False, "max_epochs": 2, "iterations_per_epoch": 4}
# The same random draws in whatever batch a sample comes, and each process leaves its weights and the items it used.
SAME_DRAWS = {
    "train#simulate#noise_std": 0.0,
    "train#simulate#gain_std": 0.0,
    "noisy_inferer": {
        "_target_": "scripts.training.inferers.DiffusionTrainingInferer",
        "parametrisation": "@parametrisation",
        "alphas_cumprod": "@alphas_cumprod",
        "amp": "@amp",
    },
    "train#inferer": {"_target_": "per_sample.PerSample", "inferer": "@noisy_inferer"},
}
LEAVES = {
    "left": {"weights": "$@network_def.state_dict()", "items": "$list(@train#sampler)"},
    "+run": ["$torch.save(@left, @output_dir + '/rank' + str(@rank) + '.pt')"],
}


FINDABLE = f"import sys; sys.path.insert(1, {str(TESTS)!r})"


@pytest.fixture(scope="module")
def one(start, overlay, tmp_path_factory) -> Path:
    """Output of one process of batch size 2."""
    folder = tmp_path_factory.mktemp("one")
    run = start(overlay(SAME_DRAWS | LEAVES), prelude=FINDABLE, output_dir=folder, batch_size=2, **RUN)
    assert run.wait() == 0, run.output
    return folder


@pytest.fixture(scope="module")
def torchrun(tiny, overlay, dataset_dir):
    """Trains in two processes of batch size 1, started by torchrun."""
    files = [CONFIGS / "train.json", tiny, overlay(SAME_DRAWS | LEAVES), CONFIGS / "multi_gpu_train.json"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(TESTS), "CUDA_VISIBLE_DEVICES": ""}

    def run(folder: Path, **overrides) -> Path:
        values = {"dataset_dir": dataset_dir, "output_dir": folder, "batch_size": 1} | RUN | overrides
        options = [text for key, value in values.items() for text in (f"--{key}", str(value))]
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", f"--master_port={free_port()}"]
        command += ["-m", "monai.bundle", "run", "--config_file", str([str(file) for file in files]), *options]
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert done.returncode == 0, done.stdout
        return folder

    return run


@pytest.fixture(scope="module")
def two(start, overlay, tmp_path_factory) -> Path:
    """Output of two processes of batch size 1."""
    folder = tmp_path_factory.mktemp("two")
    files = overlay(SAME_DRAWS | LEAVES), CONFIGS / "multi_gpu_train.json"
    prelude = FINDABLE + as_torchrun(2)
    run = start(*files, prelude=prelude, output_dir=folder, batch_size=1, **RUN)
    assert run.wait() == 0, run.output
    return folder


def load(path: Path) -> dict:
    return torch.load(path, weights_only=True)


def test_ranks_end_with_equal_weights(two):
    ranks = [load(two / f"rank{rank}.pt")["weights"] for rank in (0, 1)]
    assert all(torch.equal(ranks[0][name], ranks[1][name]) for name in ranks[0])


def test_ranks_share_the_stream_of_items_without_overlap(one, two):
    shares = [set(load(two / f"rank{rank}.pt")["items"]) for rank in (0, 1)]
    assert not shares[0] & shares[1]
    assert shares[0] | shares[1] == set(load(one / "rank0.pt")["items"])


def test_only_rank_zero_writes(one, two):
    def written(folder: Path) -> list[str]:
        return sorted(p.name.partition("tfevents")[1] or p.name for p in folder.rglob("*") if p.is_file())

    assert written(two) == sorted([*written(one), "rank1.pt"])


def test_two_processes_of_one_sample_train_like_one_of_two(one, two):
    checkpoints = [load(folder / "checkpoints/checkpoint_epoch=2.pt") for folder in (one, two)]
    for part in ("network", "ema"):
        for name, expected in checkpoints[0][part].items():
            torch.testing.assert_close(checkpoints[1][part][name], expected, atol=1e-6, rtol=0, msg=f"{part} {name}")
    before = load(one / "checkpoints/checkpoint_epoch=1.pt")["network"]["denoiser.stem.weight"]
    assert (checkpoints[0]["network"]["denoiser.stem.weight"] - before).abs().max() > 1e-4  # what an epoch changes


def test_two_processes_validate_like_one(one, two):
    bests = [load(folder / "checkpoints/checkpoint_epoch=2.pt")["best_weights"]["best"] for folder in (one, two)]
    assert bests[1] == pytest.approx(bests[0], abs=1e-3)


@pytest.mark.slow
def test_two_processes_of_torchrun_stopped_and_resumed_end_like_unbroken_ones(two, torchrun, tmp_path):
    torchrun(tmp_path, max_epochs=1)  # the first epoch's learning rate does not depend on how many there are
    torchrun(tmp_path)
    for rank in (0, 1):
        unbroken, resumed = (load(folder / f"rank{rank}.pt")["weights"] for folder in (two, tmp_path))
        assert all(torch.equal(unbroken[name], resumed[name]) for name in unbroken)


def test_overlay_has_every_required_property(workflow, tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    try:
        made = workflow(CONFIGS / "multi_gpu_train.json")
        assert made.check_properties() == []
        assert isinstance(made.trainer.network, torch.nn.parallel.DistributedDataParallel)
    finally:
        made.finalize()
    assert not torch.distributed.is_initialized()


def test_processes_stay_alike_when_the_condition_is_computed_outside_the_wrapped_network(start, overlay, tmp_path):
    files = overlay(LEAVES), CONFIGS / "multi_gpu_train.json"
    run = start(*files, prelude=as_torchrun(2), output_dir=tmp_path, batch_size=1, **RUN)
    assert run.wait() == 0, run.output
    first, second = (load(tmp_path / f"rank{rank}.pt") for rank in (0, 1))
    assert first["items"] != second["items"]
    assert all(torch.equal(first["weights"][name], second["weights"][name]) for name in first["weights"])
