"""What every direct method promises: radiographs to a volume, learnt by heart, scripted, bound to its exam."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scripts.geometry import preset
from scripts.networks.cnn3d import CNN3D
from scripts.networks.contract import geometry_fingerprint
from scripts.networks.icm_reg import ICMReg
from scripts.networks.psr import PSR
from scripts.networks.x2ct import X2CTGenerator
from scripts.networks.xctrsnet import XCTRSNet

TINY = preset("carm", (16, 16, 16), 20.0, 16)
ICM = {"channels": (8, 16), "plane_channels": (8, 8, 16), "condition_channels": (8, 8), "patch": 2, "stem_stride": 1}
X2CT = {"channels": 8, "dense_layers": (1, 1), "growth": 4, "bottleneck": 8, "decoder_channels": (8, 8, 8)}
METHODS: dict[str, Callable[[], nn.Module]] = {
    "icm_reg": lambda: ICMReg(TINY, **ICM),
    "x2ct": lambda: X2CTGenerator(TINY, dropout=0.0, **X2CT),
    "x_ctrsnet": lambda: XCTRSNet(TINY, channels=(8, 8, 16)),
    "psr": lambda: PSR(TINY, width=1 / 64),
    "cnn3d": lambda: CNN3D(TINY, channels=(8, 8, 8, 8, 16, 8)),
}


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(params=METHODS)
def network(request) -> nn.Module:
    """A small network of each method in evaluation mode, every branch of it speaking."""
    torch.manual_seed(0)
    module = METHODS[request.param]()
    for parameter in module.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return module.eval()


@torch.no_grad()
def test_a_batch_of_radiographs_becomes_its_volumes_the_same_each_time(network: nn.Module) -> None:
    image = normal(2, 2, 16, 16)
    volumes = network(image)
    assert volumes.shape == (2, 1, 16, 16, 16)
    assert torch.equal(network(image), volumes)
    for i in range(2):
        torch.testing.assert_close(network(image[i : i + 1]), volumes[i : i + 1], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_both_views_are_read(network: nn.Module) -> None:
    image = normal(1, 2, 16, 16)
    for view in range(2):
        other = image.clone()
        other[:, view] = normal(16, 16, seed=1)
        assert (network(other) - network(image)).abs().max() > 1e-3


def test_every_weight_learns(network: nn.Module) -> None:
    volume = network.train()(normal(2, 2, 16, 16))
    (volume * normal(*volume.shape, seed=1)).sum().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []
    assert all(torch.isfinite(p.grad).all() for p in network.parameters())


def test_one_case_is_learnt_by_heart(network: nn.Module) -> None:
    torch.manual_seed(0)  # for what disturbs the training
    image = normal(1, 2, 16, 16)
    truth = F.interpolate(normal(1, 1, 4, 4, 4, seed=1), size=(16, 16, 16), mode="trilinear").tanh()
    optimizer, losses = torch.optim.Adam(network.train().parameters(), 3e-3), []
    for _ in range(60):
        loss = F.l1_loss(network(image), truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2.5


@torch.no_grad()
def test_a_scripted_network_answers_alike(network: nn.Module) -> None:
    image = normal(2, 2, 16, 16)
    torch.testing.assert_close(torch.jit.script(network)(image), network(image), atol=1e-5, rtol=1e-5)


def test_the_geometry_travels_in_the_weights(network: nn.Module) -> None:
    assert torch.equal(network.state_dict()["geometry"], geometry_fingerprint(TINY))


@pytest.mark.parametrize("shape", [(1, 2, 8, 16), (1, 1, 16, 16), (2, 16, 16)])
def test_an_image_of_another_shape_is_refused(network: nn.Module, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"images \[B\] \+ \[2, 16, 16\], got .*; resample them or use"):
        network(torch.zeros(shape))
