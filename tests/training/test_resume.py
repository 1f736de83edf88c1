"""The central law of training: killed at any moment and resumed, a run ends with the weights of an unbroken one."""

import contextlib
import os
import random
import re
import signal
import time
from pathlib import Path

import pytest
import torch

RUN = {"max_epochs": 4, "iterations_per_epoch": 2, "val_interval": 2}
LAST = "checkpoints/checkpoint_epoch=4.pt"


def load(path: Path) -> dict:
    return torch.load(path, weights_only=True)


def assert_same(one, other, where: str = "") -> None:
    """Two nested states hold the same tensors, bit for bit, and the same values."""
    assert type(one) is type(other), where
    if isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype and torch.equal(one, other), where
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_same(one[key], other[key], f"{where}/{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for i, pair in enumerate(zip(one, other, strict=True)):
            assert_same(*pair, f"{where}/{i}")
    else:
        assert one == other, where


def assert_ends_like(unbroken: Path, broken: Path) -> None:
    """Same checkpoint (weights, EMA, Adam, schedule, best value), same best weights, and the same files."""
    assert_same(load(unbroken / LAST), load(broken / LAST))
    assert_same(load(unbroken / "model.pt"), load(broken / "model.pt"))
    names = [sorted(p.name for p in run.rglob("*.pt*")) for run in (unbroken, broken)]
    assert names[0] == names[1] == ["checkpoint_epoch=3.pt", "checkpoint_epoch=4.pt", "model.pt"]


@pytest.fixture(scope="module")
def unbroken(start, tmp_path_factory) -> Path:
    """Output of a run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("unbroken")
    run = start(output_dir=folder, **RUN)
    assert run.wait() == 0, run.output
    return folder


@pytest.fixture(scope="module")
def seconds(unbroken) -> float:
    """What an epoch takes on this machine."""
    ends = [(unbroken / f"checkpoints/checkpoint_epoch={epoch}.pt").stat().st_mtime for epoch in (3, 4)]
    return ends[1] - ends[0]


def newest_epoch(folder: Path) -> int:
    """Number of the newest checkpoint, 0 if there is none."""
    return max((int(p.stem.partition("=")[2]) for p in folder.glob("checkpoints/checkpoint_epoch=*.pt")), default=0)


def kill_and_resume(start, folder: Path, kills: int, seconds: float, seed: int) -> None:
    """Kill ``kills`` runs at a random moment of the epoch they are in, then let one end.

    A killed run completes 0 or 1 epochs; each epoch takes about ``seconds``.
    """
    draw = random.Random(seed)
    for _ in range(kills):
        run = start(output_dir=folder, **RUN)
        goal = min(newest_epoch(folder) + draw.randint(0, 1), 3)
        while newest_epoch(folder) < goal and run.is_alive:
            time.sleep(0.01)
        time.sleep(draw.uniform(0, seconds))
        with contextlib.suppress(ProcessLookupError):  # it may just have ended
            os.kill(run.pid, signal.SIGKILL)
        run.wait()
    run = start(output_dir=folder, **RUN)
    assert run.wait() == 0, run.output


def test_a_run_killed_at_random_moments_and_resumed_ends_like_an_unbroken_one(start, unbroken, seconds, tmp_path):
    kill_and_resume(start, tmp_path, kills=2, seconds=seconds, seed=0)
    assert_ends_like(unbroken, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 9))
def test_a_run_killed_at_many_random_moments_and_resumed_ends_like_an_unbroken_one(
    start, unbroken, seconds, tmp_path, seed
):
    kill_and_resume(start, tmp_path, kills=5, seconds=seconds, seed=seed)
    assert_ends_like(unbroken, tmp_path)


DIE = "import os, pathlib, signal, torch\ndie = lambda: os.kill(os.getpid(), signal.SIGKILL)\n"
TORN_FILE = """
save = torch.save
def torn(value, path):
    save(value, path)
    if {name!r} in path.name:
        os.truncate(path, os.path.getsize(path) // 2)
        die()
torch.save = torn
"""
# What ends the process, as SIGKILL does, at one moment of its work.
KILLERS = {
    "half a checkpoint is written": TORN_FILE.format(name="epoch=3"),
    "half of the best weights are written": TORN_FILE.format(name="model.pt"),
    "a checkpoint is written but has no name yet": """
replace = os.replace
os.replace = lambda a, b: die() if "epoch=3" in str(b) else replace(a, b)
""",
    "a checkpoint has its name but an old one is still there": """
unlink = pathlib.Path.unlink
pathlib.Path.unlink = lambda path, **kw: die() if path.name.startswith("checkpoint_epoch=1") else unlink(path, **kw)
""",
    "an optimizer step is done but not the iteration": """
step, calls = torch.optim.Adam.step, []
def torn(self, *args, **kwargs):
    step(self, *args, **kwargs)
    calls.append(0)
    if len(calls) == 5:
        die()
torch.optim.Adam.step = torn
""",
}
SLOW = list(KILLERS)[1:]


@pytest.mark.parametrize("moment", [pytest.param(m, marks=[pytest.mark.slow] * (m in SLOW)) for m in KILLERS])
def test_a_run_killed_when_and_resumed_ends_like_an_unbroken_one(start, unbroken, tmp_path, moment):
    killed = start(output_dir=tmp_path, prelude=DIE + KILLERS[moment], **RUN)
    assert killed.wait() == -signal.SIGKILL, killed.output
    done = newest_epoch(tmp_path)
    resumed = start(output_dir=tmp_path, **RUN)
    assert resumed.wait() == 0, resumed.output
    assert_ends_like(unbroken, tmp_path)
    epochs = re.findall(r"Epoch\[(\d)\] Metrics -- learning_rate", resumed.output)
    assert epochs == [str(epoch) for epoch in range(done + 1, 5)]


def test_a_finished_run_started_again_ends_at_once_and_changes_nothing(start, unbroken):
    before = {p: p.stat().st_mtime_ns for p in unbroken.rglob("*.pt")}
    again = start(output_dir=unbroken, **RUN)
    assert again.wait() == 0
    assert "4 of 4 epochs are done, nothing left to do; raise --max_epochs to continue" in again.output
    assert {p: p.stat().st_mtime_ns for p in unbroken.rglob("*.pt")} == before


@pytest.mark.slow
def test_another_seed_gives_another_run(start, unbroken, tmp_path):
    run = start(output_dir=tmp_path, **RUN | {"seed": 1})
    assert run.wait() == 0, run.output
    weight = "denoiser.stem.weight"
    assert not torch.equal(load(unbroken / LAST)["network"][weight], load(tmp_path / LAST)["network"][weight])
