"""The simple conditioning: each view says the same at every depth, and the views are added."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from scripts.diffusion.parametrisation import X0
from scripts.diffusion.schedules import linear_alphas_cumprod
from scripts.geometry import preset
from scripts.networks.diffux2ct import diffux2ct
from scripts.networks.expanded import ExpandedConditioner, on_grid

GEOMETRY = preset("carm", (8, 16, 12), 10.0, 16)
GRIDS = [(8, 16, 12), (4, 8, 6)]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def conditioner(**changes) -> nn.Module:
    torch.manual_seed(0)
    sizes = {"plane_channels": (4, 6, 8), "condition_channels": (3, 5), "blocks": 1, **changes}
    return ExpandedConditioner(GEOMETRY, GRIDS, **sizes).eval()


def test_conditions_have_the_grids_and_channels_they_are_asked_for() -> None:
    h = conditioner()(normal(2, 2, 16, 16))
    assert [tuple(x.shape) for x in h] == [(2, 3, 8, 16, 12), (2, 5, 4, 8, 6)]


@torch.no_grad()
def test_a_change_of_one_view_is_the_same_at_every_depth_of_it() -> None:
    module, image = conditioner(), normal(1, 2, 16, 16)
    for view, depth, other in ((0, 3, 2), (1, 2, 3)):
        changed = image.clone()
        changed[:, view] += normal(16, 16, seed=1)
        for before, after in zip(module(image), module(changed), strict=True):
            difference = after - before
            first = difference.narrow(depth, 0, 1).expand_as(difference)
            torch.testing.assert_close(difference, first, atol=1e-5, rtol=0)
            assert (difference - difference.narrow(other, 0, 1)).abs().max() > 1e-3


@torch.no_grad()
def test_a_batch_is_its_exams() -> None:
    module, image = conditioner(), normal(2, 2, 16, 16)
    for i in range(2):
        for together, alone in zip(module(image), module(image[i : i + 1]), strict=True):
            torch.testing.assert_close(together[i : i + 1], alone, atol=1e-5, rtol=1e-5)


def test_every_weight_learns() -> None:
    module = conditioner()
    for parameter in module.parameters():
        parameter.data = 0.3 * torch.randn(parameter.shape)
    sum((x * normal(*x.shape)).sum() for x in module(normal(1, 2, 16, 16))).backward()
    assert [name for name, p in module.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_it_conditions_the_whole_network_also_scripted() -> None:
    network = diffux2ct(
        preset("carm", (8, 8, 8), 20.0, 16), X0(), linear_alphas_cumprod(), (8, 12), (4, 6, 8), (3, 5),
        heads=2, window=2, plane_blocks=1, steps=2, conditioner=partial(ExpandedConditioner),
    ).eval()  # fmt: skip
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    image = normal(1, 2, 16, 16)
    with torch.no_grad():
        volume = network(image)
        torch.testing.assert_close(torch.jit.script(network)(image), volume, atol=1e-4, rtol=1e-4)
        assert (network(normal(1, 2, 16, 16, seed=1)) - volume).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"plane_channels": (4,)}, "2 grids .*plane_channels .*condition_channels, got 1 and 2"),
        ({"condition_channels": (3,)}, "got 3 and 1"),
        ({"stem_stride": 16}, "detector_pixels 16 .*divisible by 32"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        conditioner(**changes)


def test_another_sampling_keeps_the_extent() -> None:
    coarse = on_grid(GEOMETRY, 8, (4, 8, 6))
    assert coarse.detector_size_mm == pytest.approx(GEOMETRY.detector_size_mm)
    assert coarse.volume_size_mm == pytest.approx(GEOMETRY.volume_size_mm)
