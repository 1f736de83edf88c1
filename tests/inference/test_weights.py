"""Weights load strictly or not at all."""

import zipfile

import pytest
import torch
from tests.refusal import refused
from torch import nn

from scripts.inference.weights import load_weights
from scripts.training.initial_weights import freeze, learning, start_from


class Small(nn.Module):
    def __init__(self, width=3, geometry=1.0):
        super().__init__()
        self.layer = nn.Linear(2, width)
        self.register_buffer("geometry", torch.tensor([geometry], dtype=torch.float64))


def saved(tmp_path, state):
    torch.save(state, tmp_path / "model.pt")
    return tmp_path / "model.pt"


def test_loading_restores_every_tensor_and_puts_the_network_into_evaluation_mode(tmp_path):
    trained, fresh = Small(), Small()
    loaded = load_weights(fresh.train(), saved(tmp_path, trained.state_dict()))
    assert not loaded.training
    state = loaded.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in trained.state_dict().items())


def test_half_precision_files_fill_a_float32_network(tmp_path):
    trained = Small()
    half = {k: v.half() if v.dtype == torch.float32 else v for k, v in trained.state_dict().items()}
    loaded = load_weights(Small(), saved(tmp_path, half))
    assert loaded.layer.weight.dtype == torch.float32
    torch.testing.assert_close(loaded.layer.weight, trained.layer.weight, atol=1e-3, rtol=1e-3)


def changed(change):
    state = Small().state_dict()
    return state | {"layer.bias": change(state["layer.bias"])}


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (Small(width=4).state_dict(), r"2 .*shape \['layer.bias', 'layer.weight'\]"),
        (Small(geometry=2.0).state_dict(), r"geometry \[2.0\], .*\[1.0\]"),
        ({"other": torch.zeros(1)}, "3 tensors missing .* 1 unknown"),
        ([1, 2], "holds a list, .*dictionary.* copy"),
        ({1: torch.zeros(1)}, "holds a dict, .*dictionary"),
        ({"layer.weight": 3}, "dense .*'layer.weight' is a int"),
        (changed(lambda bias: bias.to_sparse()), "'layer.bias' .*torch.float32 .*torch.sparse_coo"),
        (changed(lambda bias: bias.to("meta")), "'layer.bias' is .* on meta"),
        (changed(lambda bias: torch.quantize_per_tensor(bias, 0.1, 0, torch.qint8)), "'layer.bias' is torch.qint8"),
        (changed(lambda bias: bias.to(torch.complex64)), "'layer.bias' is torch.complex64"),
        (changed(lambda bias: bias.to(torch.int8)), "1 tensors .*type, .*layer.bias: torch.int8"),
        (changed(lambda bias: bias.to(torch.float8_e4m3fn)), "layer.bias: torch.float8_e4m3fn"),
        (changed(lambda bias: bias.double() + 1e300), "1 tensors .*NaN .*layer.bias"),
        (changed(lambda bias: bias * float("nan")), "1 tensors .*NaN .*layer.bias"),
    ],
)
def test_wrong_weights_are_refused_and_leave_the_network_untouched(tmp_path, state, message):
    network = Small()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        load_weights(network, saved(tmp_path, state))
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())


def test_a_missing_or_unsafe_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no weights; train them"):
        load_weights(Small(), tmp_path / "absent.pt")
    torch.save(Small(), tmp_path / "pickled.pt")
    with refused(ValueError, "pickled.pt", "damaged", "torch.save", "copy"):
        load_weights(Small(), tmp_path / "pickled.pt")


@pytest.mark.parametrize(
    "program", [b"", b"hello", b"\x80\x02.", b"\x80\x02h\x07.", b"\x80\x02Q.", b"\x80\x02)R.", b"}u."]
)
def test_any_other_pickle_is_refused_in_one_line(tmp_path, program):
    """Bare, and in place of the one in a file of weights: reading the stack, the memo or what it lacks raises all."""
    bare, packed = tmp_path / "bare.pt", saved(tmp_path, Small().state_dict())
    bare.write_bytes(program)
    with zipfile.ZipFile(packed) as old, zipfile.ZipFile(tmp_path / "other.pt", "w") as new:
        for name in old.namelist():
            new.writestr(name, program if name.endswith("data.pkl") else old.read(name))
    for path in (bare, tmp_path / "other.pt"):
        with pytest.raises(ValueError, match=f"{path.name}: (damaged|holds|weights)") as error:
            load_weights(Small(), path)
        assert "\n" not in str(error.value)


def test_one_wrong_bit_anywhere_is_refused_or_harmless(tmp_path):
    state = {k: torch.randn_like(v) for k, v in nn.Linear(4, 4).state_dict().items()}
    whole = saved(tmp_path, state).read_bytes()
    accepted = 0
    for index in range(0, len(whole), 3):
        damaged = bytearray(whole)
        damaged[index] ^= 1 << index % 8
        (tmp_path / "damaged.pt").write_bytes(damaged)
        try:
            loaded = load_weights(nn.Linear(4, 4), tmp_path / "damaged.pt").state_dict()
        except ValueError:
            continue
        assert all(torch.equal(value, state[name]) for name, value in loaded.items()), index
        accepted += 1
    for value in state.values():
        at = whole.index(value.numpy().tobytes())
        (tmp_path / "damaged.pt").write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with refused(ValueError, "damaged.pt", "damaged", "checksum"):
            load_weights(nn.Linear(4, 4), tmp_path / "damaged.pt")
    assert accepted < len(whole) / 6


def test_a_parallel_beams_infinite_distances_are_not_damage(tmp_path):
    trained = Small(geometry=float("inf"))
    loaded = load_weights(Small(geometry=float("inf")), saved(tmp_path, trained.state_dict()))
    assert torch.equal(loaded.layer.weight, trained.layer.weight)


class Staged(nn.Module):
    """A network upon another one, each with its geometry."""

    def __init__(self, geometry=1.0):
        super().__init__()
        self.base = Small(geometry=geometry)
        self.register_buffer("geometry", torch.tensor([2.0], dtype=torch.float64))


def test_the_geometry_of_the_network_below_counts_too(tmp_path):
    infinite = saved(tmp_path, Staged(geometry=float("inf")).state_dict())
    load_weights(Staged(geometry=float("inf")), infinite)
    with refused(ValueError, "model.pt", "base.geometry", "[inf]", "[1.0]"):
        load_weights(Staged(), infinite)
    started = start_from(Staged(), infinite, any_geometry=True)
    assert started.base.geometry == 1.0


def test_a_missing_file_is_asked_for_by_its_own_option(tmp_path):
    for option in ("--initial_weights", "--stage1_weights"):
        with refused(ValueError, "missing.pt", option):
            start_from(Small(), tmp_path / "missing.pt", option=option)


def test_training_starts_from_given_weights_and_from_its_own_without(tmp_path):
    trained, fresh = Small(), Small()
    before = fresh.layer.weight.clone()
    assert start_from(fresh, None) is fresh and torch.equal(fresh.layer.weight, before)
    started = start_from(fresh, saved(tmp_path, trained.state_dict()))
    assert started.training and torch.equal(started.layer.weight, trained.layer.weight)
    with pytest.raises(ValueError, match="no weights"):
        start_from(fresh, tmp_path / "missing.pt")


class Parts(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv1d(1, 2, 1), nn.BatchNorm1d(2), nn.Dropout())
        self.head = nn.Conv1d(2, 1, 1)

    def forward(self, x):
        return self.head(self.encoder(x))


@pytest.mark.parametrize("parts", ["encoder", ["encoder"], "encoder.0, encoder.1, encoder.2"])
def test_training_changes_no_bit_of_a_frozen_part_and_computes_it_as_evaluation_does(parts):
    network = Parts()
    network.encoder[1].running_mean.fill_(3.0)
    x = torch.randn(4, 1, 5)
    evaluated = network.eval().encoder(x)
    frozen = {name: value.clone() for name, value in network.encoder.state_dict().items()}
    assert freeze(network, parts) is network
    assert [id(p) for p in learning(network)] == [id(p) for p in network.head.parameters()]
    optimizer = torch.optim.SGD(learning(network), lr=0.1)
    network.train()(x).square().sum().backward()
    optimizer.step()
    assert torch.equal(network.train().encoder(x), evaluated)
    assert all(torch.equal(value, frozen[name]) for name, value in network.encoder.state_dict().items())


@pytest.mark.parametrize("nothing", ["", [], " , "])
def test_with_nothing_frozen_everything_learns(nothing):
    network = Parts()
    assert len(learning(freeze(network, nothing))) == len(list(network.parameters()))


def test_freezing_leaves_frozen_what_the_network_itself_has_frozen():
    network = Parts()
    network.head.requires_grad_(False)
    assert len(learning(freeze(network, "encoder.1"))) == 2


def test_a_part_that_is_not_there_and_freezing_all_are_refused():
    with refused(ValueError, "--frozen", "'decoder'", "encoder, head"):
        freeze(Parts(), "decoder")
    with refused(ValueError, "--frozen", "nothing to learn"):
        freeze(Parts(), "encoder,head")


def test_training_may_start_from_another_geometry_if_asked_and_keeps_its_own(tmp_path):
    path = saved(tmp_path, Small(geometry=1.0).state_dict())
    with refused(ValueError, "trained for geometry"):
        start_from(Small(geometry=2.0), path)
    started = start_from(Small(geometry=2.0).eval(), path, any_geometry=True)
    assert started.training and started.geometry.item() == 2.0
    assert torch.equal(started.layer.weight, torch.load(path)["layer.weight"])
