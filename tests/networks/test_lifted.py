"""2D features lifted along the rays: each view where its rays go, and nowhere else."""

import pytest
import torch
from tests.refusal import refused
from torch import Tensor

from scripts.geometry import preset
from scripts.networks.lifted import JointConditioner, LiftedConditioner, ViewLifting
from scripts.networks.triplane import ImplicitDecoder

CARM = preset("carm", (8, 16, 8), 20.0, 16)
GRIDS = [(4, 8, 4), (2, 4, 2)]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def conditioner(kind=LiftedConditioner, **changes):
    arguments = {"plane_channels": (4, 6, 8), "condition_channels": (4, 8), "blocks": 1} | changes
    return kind(CARM, GRIDS, **arguments).eval()


def test_each_view_is_lifted_where_the_implicit_decoder_asks_its_plane() -> None:
    lifting, decoder = ViewLifting(CARM, (4, 8, 4), 16, 3, 6), ImplicitDecoder(CARM, (4, 8, 4), 16, 3, 3)
    with torch.no_grad():
        for reduce in lifting.reduce:
            reduce.weight.copy_(torch.eye(3)[:, :, None, None])
            reduce.bias.zero_()
        decoder.first.weight.copy_(torch.eye(3)[:, :, None, None])
        frontal, lateral, nothing = normal(2, 3, 16, 16), normal(2, 3, 16, 16, seed=1), torch.zeros(2, 3, 16, 16)
        h = lifting(frontal, lateral)
        torch.testing.assert_close(h[:, :3], decoder._sum_of_queries(nothing, frontal, nothing))
        torch.testing.assert_close(h[:, 3:], decoder._sum_of_queries(nothing, nothing, lateral))


@pytest.mark.parametrize("kind", [LiftedConditioner, JointConditioner])
@torch.no_grad()
def test_conditions_have_the_grids_and_channels_asked_for_also_scripted(kind) -> None:
    module, image = conditioner(kind), normal(3, 2, 16, 16)
    h = module(image)
    assert [tuple(each.shape) for each in h] == [(3, 4, 4, 8, 4), (3, 8, 2, 4, 2)]
    for ours, theirs in zip(h, torch.jit.script(module)(image), strict=True):
        torch.testing.assert_close(theirs, ours)


@torch.no_grad()
def test_a_view_knows_the_other_only_by_its_profile_along_w() -> None:
    module, image = conditioner(), normal(1, 2, 16, 16)
    turned = image.clone()
    turned[:, 1] = image[:, 1].flip(1)  # same profile along w up to the stem's border
    first, second = (module.interleaved(module.stem[0](i[:, :1]), module.stem[1](i[:, 1:])) for i in (image, turned))
    assert not torch.allclose(first[1], second[1], atol=1e-3)
    changed = image.clone()
    changed[:, 1, :, 3] += 5
    other = module.interleaved(module.stem[0](changed[:, :1]), module.stem[1](changed[:, 1:]))
    assert not torch.allclose(first[0], other[0], atol=1e-3)
    assert torch.allclose(first[0][..., 8:], other[0][..., 8:], atol=1e-5)  # far along w nothing changes


@pytest.mark.parametrize(
    "changes", [{"plane_channels": (4,)}, {"condition_channels": (4,)}, {"condition_channels": (4, 5)}]
)
def test_sizes_that_do_not_fit_are_refused(changes) -> None:
    with refused(ValueError, "2 grids", "plane_channels", "even condition_channels", "got "):
        conditioner(**changes)
