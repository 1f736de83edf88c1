"""Weights of a refining stage: the base they stand on recognises them, and whatever else they are is refused."""

import logging

import pytest
import torch
from tests.networks.factories import NETWORKS
from tests.refusal import refused

from scripts.geometry import preset
from scripts.inference.refine import Refine, load_stage

GEOMETRY = preset("carm", (16, 16, 16), 20.0, 32)


@pytest.fixture
def trained():
    """A refining stage that changes volumes, on top of its base."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = NETWORKS["refined"](GEOMETRY)
        for parameter in made.parameters():
            if not parameter.any():
                parameter.data = 0.1 * torch.randn_like(parameter)
    return made.eval()


@pytest.fixture
def load(trained, tmp_path):
    """Writes weights to a file, and loads them on top of the base; None for weights of another one."""

    def loaded(state, base=trained.base):
        torch.save(state, tmp_path / "refining.pt")

        def build(base):
            made = NETWORKS["refined"](GEOMETRY)
            made.base = base
            return made

        return load_stage(build, base, tmp_path / "refining.pt")

    return loaded


def few(state):
    """The weights of the stage, and the small ones of its base."""
    return {name: value for name, value in state.items() if not name.startswith("base.") or value.ndim < 2}


@pytest.mark.parametrize("tile", [0, -4, 7, "8"])
def test_tiles_that_the_network_cannot_be_computed_in_are_refused_by_name(trained, tile) -> None:
    with refused(ValueError, "--tile", str(tile)):
        Refine(trained, tile)(torch.zeros(1, 1, 16, 16, 16), torch.zeros(1, 2, 32, 32))


@torch.no_grad()
@pytest.mark.parametrize("kept", [dict, few], ids=["of both networks", "of the stage and few of the base"])
def test_the_stage_comes_back_from_its_file(trained, load, kept) -> None:
    torch.manual_seed(0)
    volume, image = torch.rand(1, 1, 16, 16, 16) - 0.5, torch.rand(1, 2, 32, 32)
    before = Refine(trained)(volume, image)
    assert not torch.equal(before, volume)
    assert torch.equal(Refine(load(kept(trained.state_dict())))(volume, image), before)


@torch.no_grad()
def test_mirrored_the_stage_answers_otherwise_in_the_same_place(trained) -> None:
    torch.manual_seed(0)
    volume, image = torch.rand(1, 1, 16, 16, 16) - 0.5, torch.rand(1, 2, 32, 32)
    plain, mirrored = (Refine(trained, mirror=mirror)(volume, image) for mirror in (False, True))
    assert not torch.allclose(plain, mirrored, atol=1e-3)
    for parameter in trained.upsampler.parameters():
        parameter.data.zero_()
    assert torch.equal(Refine(trained, mirror=True)(volume, image), volume)


def test_half_precision_in_the_file_is_the_same_base(trained, load) -> None:
    for parameter in trained.parameters():
        parameter.data = parameter.half().float()
    state = trained.state_dict()
    assert load({name: value.half() if value.dtype == torch.float32 else value for name, value in state.items()})


def test_the_stage_of_another_base_is_told_and_left_out(trained, load, caplog) -> None:
    state = few(trained.state_dict())
    name = next(name for name, value in state.items() if name.startswith("base.") and value.is_floating_point())
    with caplog.at_level(logging.INFO):
        assert load(state | {name: state[name] + 1}) is None
    assert caplog.text.count("refining.pt: trained on top of another network") == 1
    with refused(ValueError, "refining.pt", "no weights of a stage", "--refining_weights"):
        load({name: value for name, value in state.items() if not name.startswith("base.")})


def test_weights_of_another_stage_are_refused(trained, load) -> None:
    state = trained.state_dict()
    with refused(ValueError, "refining.pt", "1 tensors missing ['upsampler.head.bias']"):
        load({name: value for name, value in state.items() if name != "upsampler.head.bias"})


def test_a_missing_file_names_its_option(trained, tmp_path) -> None:
    with refused(ValueError, "none.pt", "--refining_weights"):
        load_stage(lambda base: base, trained.base, tmp_path / "none.pt")
