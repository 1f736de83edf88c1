"""A checkpoint is complete, or it is refused by name; a run resumes what it was, or it says why not."""

import os
from pathlib import Path

import pytest
import torch
from ignite.engine import Engine
from tests.refusal import refused
from torch import nn

from scripts.training.checkpoints import Checkpoints, read_checkpoint, save_atomically, saved_checkpoints


def train(folder: Path, epochs: int, network: nn.Module | None = None, **options) -> Engine:
    """Run (or resume) an engine that adds one to a network's weights in each of its epochs."""
    network = network or nn.Linear(2, 1)
    engine = Engine(lambda engine, batch: network.weight.data.add_(1))
    Checkpoints(folder, {"network": network}, **options).attach(engine)
    engine.state.max_epochs, engine.state.epoch_length = epochs, 1
    engine.run(range(1))
    return engine


def zeros() -> nn.Module:
    network = nn.Linear(2, 1)
    nn.init.zeros_(network.weight)
    return network


def test_resumed_run_continues_with_the_state_and_epoch_of_the_newest_checkpoint(tmp_path):
    train(tmp_path, 3, zeros())
    resumed = nn.Linear(2, 1)
    engine = train(tmp_path, 5, resumed)
    assert engine.state.iteration == 5
    assert resumed.weight.tolist() == [[5.0, 5.0]]


def test_epochs_are_ordered_as_numbers(tmp_path):
    for epoch in (9, 10, 2):
        save_atomically({}, tmp_path / f"checkpoint_epoch={epoch}.pt")
    assert [p.name for p in saved_checkpoints(tmp_path)] == [f"checkpoint_epoch={e}.pt" for e in (2, 9, 10)]


def test_only_the_newest_are_kept_across_resumed_runs(tmp_path):
    for epochs in (3, 4, 8):
        train(tmp_path, epochs, n_saved=2)
        assert sorted(p.name for p in tmp_path.iterdir()) == [f"checkpoint_epoch={e}.pt" for e in (epochs - 1, epochs)]


def test_foreign_files_are_neither_resumed_nor_deleted(tmp_path):
    foreign = [
        tmp_path / name for name in ("model.pt", "checkpoint_epoch=9 (copy).pt", ".partial-checkpoint_epoch=9.pt")
    ]
    for path in foreign:
        path.write_bytes(b"?")
    assert train(tmp_path, 2).state.epoch == 2
    assert all(path.read_bytes() == b"?" for path in foreign)


def test_process_that_is_no_writer_resumes_but_writes_nothing(tmp_path):
    train(tmp_path, 2, zeros())
    network = nn.Linear(2, 1)
    train(tmp_path, 4, network, is_writer=False)
    assert network.weight.tolist() == [[4.0, 4.0]]
    assert len(list(tmp_path.iterdir())) == 2


def test_failed_write_leaves_the_older_file_whole(tmp_path, monkeypatch):
    path = tmp_path / "model.pt"
    save_atomically({"a": torch.zeros(2)}, path)
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with refused(ValueError, "model.pt", "cannot be written", "disk full", "make room"):
        save_atomically({"a": torch.ones(2)}, path)
    assert torch.load(path)["a"].tolist() == [0, 0]


def test_what_torch_makes_of_a_full_disk_is_told_in_one_line(tmp_path, monkeypatch):
    save = torch.save
    monkeypatch.setattr(torch, "save", lambda value, path: save(value, "/dev/full"))
    with refused(ValueError, "model.pt", "cannot be written", "make room") as error:
        save_atomically({"a": torch.zeros(10**6)}, tmp_path / "model.pt")
    assert "\n" not in str(error.value) and not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_is_refused_before_training(tmp_path):
    (tmp_path / "models").write_text("mine")
    with refused(ValueError, "models: ", "a file", "no folder"):
        train(tmp_path / "models", 2)
    with pytest.raises(ValueError, match="cannot be written"):
        save_atomically({}, tmp_path / "models" / "a.pt")


@pytest.mark.parametrize("state", [[1], {"a": 1}, {"unchanged": [], "trainer": 3}, {"unchanged": {}, "network": 3}])
def test_what_is_no_checkpoint_is_refused_by_name(tmp_path, state):
    save_atomically(state, tmp_path / "checkpoint_epoch=1.pt")
    with pytest.raises(ValueError, match=r"epoch=1\.pt: (cannot resume|holds a list)"):
        train(tmp_path, 2)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[data.index(torch.full((4,), 7.5).numpy().tobytes())] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [truncate, empty, flip_a_bit])
def test_damaged_checkpoint_is_refused_by_name_and_with_a_remedy(tmp_path, damage):
    path = tmp_path / "checkpoint_epoch=2.pt"
    save_atomically({"network": torch.full((1000,), 7.5)}, path)
    assert read_checkpoint(path)["network"].unique().tolist() == [7.5]
    damage(path)
    with refused(ValueError, "checkpoint_epoch=2.pt", "damaged", "delete"):
        read_checkpoint(path)


def test_run_with_a_damaged_newest_checkpoint_does_not_restart_silently(tmp_path):
    train(tmp_path, 3)
    truncate(tmp_path / "checkpoint_epoch=3.pt")
    with pytest.raises(ValueError, match="damaged"):
        train(tmp_path, 4)
    (tmp_path / "checkpoint_epoch=3.pt").unlink()  # the remedy works
    assert train(tmp_path, 4).state.iteration == 4


def test_another_network_is_refused_by_name_and_with_a_remedy(tmp_path):
    train(tmp_path, 2)
    with refused(ValueError, "epoch=2.pt", "cannot resume", "size mismatch", "configuration"):
        train(tmp_path, 3, nn.Linear(3, 1))


def test_checkpoint_without_a_part_is_refused_by_the_part(tmp_path):
    save_atomically({"unchanged": {}, "trainer": {}}, tmp_path / "checkpoint_epoch=1.pt")
    with pytest.raises(ValueError, match="cannot resume: 'network'"):
        train(tmp_path, 2)


def test_changed_setting_is_refused_with_both_values(tmp_path):
    train(tmp_path, 2, unchanged={"spacing_mm": 5.0, "steps": 3})
    with refused(ValueError, "cannot resume", "spacing_mm was 5.0, now 4.0", "configuration"):
        train(tmp_path, 3, unchanged={"spacing_mm": 4.0, "steps": 3})
    assert train(tmp_path, 3, unchanged={"spacing_mm": 5.0, "steps": 3}).state.epoch == 3


def test_a_setting_that_an_older_checkpoint_does_not_name_is_no_change(tmp_path):
    train(tmp_path, 2, unchanged={"spacing_mm": 5.0})
    assert train(tmp_path, 3, unchanged={"spacing_mm": 5.0, "optimizer": "Muon"}).state.epoch == 3


def test_finished_run_has_nothing_left_to_do(tmp_path, logged):
    train(tmp_path, 3, zeros())
    for planned in (3, 2):
        network = nn.Linear(2, 1)
        train(tmp_path, planned, network)
        assert network.weight.tolist() == [[3.0, 3.0]]
        assert f"3 of {planned} epochs are done, nothing left to do; raise --max_epochs" in logged.text


def test_an_engine_that_runs_again_goes_on_from_its_own_state(tmp_path):
    network = zeros()
    engine = train(tmp_path, 2, network)
    network.weight.data.fill_(7.0)  # as a federated server does between rounds
    engine.state.max_epochs = 3
    engine.run(range(1))
    assert network.weight.tolist() == [[8.0, 8.0]]
