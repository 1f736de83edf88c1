"""Diff2CT: the condition is lifted along parallel rays, read by the U-Net, and computed once."""

import pytest
import torch
from torch import Tensor

from scripts.diffusion.parametrisation import X0
from scripts.diffusion.schedules import linear_alphas_cumprod
from scripts.geometry import preset
from scripts.networks.diff2ct import X2NoiseNet, diff2ct

GEOMETRY = preset("carm", (8, 16, 8), 20.0, 32)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def small(**changes):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        sizes = {
            "channels": (8, 16),
            "condition_channels": 6,
            "patch": 2,
            "steps": 2,
            "heads": 2,
            "window": 2,
            **changes,
        }
        network = diff2ct(GEOMETRY, X0(), linear_alphas_cumprod(), **sizes)
        for parameter in network.parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.1)
    return network.eval()


@torch.no_grad()
def test_the_condition_of_one_view_is_the_same_at_every_depth_of_it_away_from_the_border() -> None:
    module = X2NoiseNet(GEOMETRY, (8, 16, 8), 4).eval()
    for parameter in module.parameters():
        parameter.data = 0.3 * normal(*parameter.shape)
    image = normal(1, 2, 32, 32)
    for view, depth in ((0, 3), (1, 2)):
        blank = module(
            torch.cat([image[:, :1], 0 * image[:, 1:]], 1)
            if view == 0
            else torch.cat([0 * image[:, :1], image[:, 1:]], 1)
        )[0]
        # The other view's encoder answers zeros with a constant image up to its own border, so look at the inner part.
        inner = blank[:, :, 2:-2, 2:-2, 2:-2]
        assert inner.std(dim=depth).max() < 0.5 * inner.std()


def test_shapes_and_every_weight_learns() -> None:
    network = small()
    for parameter in network.parameters():
        parameter.data = 0.2 * normal(*parameter.shape)
    out = network(normal(2, 2, 32, 32), normal(2, 1, 8, 16, 8), torch.tensor([3, 900]))
    assert out.shape == (2, 1, 8, 16, 8)
    (out * normal(*out.shape, seed=1)).sum().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


@torch.no_grad()
def test_an_image_alone_is_reconstructed_and_another_image_otherwise() -> None:
    network, image = small(), normal(1, 2, 32, 32)
    volume = network(image)
    assert volume.shape == (1, 1, 8, 16, 8) and volume.abs().max() <= 1
    assert torch.equal(volume, network(image))
    for view in (0, 1):
        changed = image.clone()
        changed[:, view] += 1
        assert (network(changed) - volume).abs().max() > 1e-4


@torch.no_grad()
def test_the_scripted_network_is_the_eager_one() -> None:
    network, image = small(), normal(1, 2, 32, 32)
    torch.testing.assert_close(torch.jit.script(network)(image), network(image), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"patch": 3}, "must be divisible by 6"), ({"channels": (8, 16, 16, 16)}, "divisible by 16")],
)
def test_sizes_that_do_not_fit_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**changes)


@torch.no_grad()
def test_every_map_has_the_exams_along_its_first_dimension_so_that_samples_can_share_it() -> None:
    assert {len(each) for each in small().condition(normal(3, 2, 32, 32))} == {3}
