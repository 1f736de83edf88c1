"""What every direct method promises: radiographs to a volume, learnt by heart, scripted."""

import pytest
import torch
import torch.nn.functional as F
from tests.networks.factories import DIRECT, normal, speaking
from torch import nn


@pytest.fixture(params=DIRECT)
def network(request) -> nn.Module:
    return speaking(DIRECT[request.param])


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


@pytest.mark.parametrize(
    "network", [pytest.param(m, marks=[pytest.mark.slow] * (m == "x2ct")) for m in DIRECT], indirect=True
)
def test_one_case_is_learnt_by_heart(network: nn.Module) -> None:
    torch.manual_seed(0)  # for what disturbs the training
    image = normal(1, 2, 16, 16)
    truth = F.interpolate(normal(1, 1, 4, 4, 4, seed=1), size=(16, 16, 16), mode="trilinear").tanh()
    optimizer, losses = torch.optim.Adam(network.train().parameters(), 3e-3), []
    while len(losses) < 60 and (not losses or losses[-1] >= losses[0] / 2.5):
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
