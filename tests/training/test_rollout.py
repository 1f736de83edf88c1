"""Batches of the network's own estimates: what the network is shown, and that the truth stays the target."""

import pytest
import torch
from torch import Tensor, nn

from scripts.diffusion.parametrisation import X0, Epsilon, Parametrisation, V
from scripts.diffusion.schedules import linear_alphas_cumprod, marginal
from scripts.training.inferers import DiffusionTrainingInferer

ALPHAS_CUMPROD = linear_alphas_cumprod(100)
TRUTH = torch.rand(3, 1, 4, 4, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1
IMAGE = torch.zeros(3, 2, 4, 4)


class Stubborn(nn.Module):
    """Always answers with the same volume, and remembers what it was asked."""

    def __init__(self, answer: float) -> None:
        super().__init__()
        self.answer = nn.Parameter(torch.tensor(answer))
        self.asked: list[tuple[Tensor, Tensor, bool]] = []

    def forward(self, image: Tensor, x: Tensor, timesteps: Tensor) -> Tensor:
        self.asked.append((x, timesteps, torch.is_grad_enabled()))
        return self.answer.expand_as(x)


def train(network: nn.Module, rollout: float, parametrisation: Parametrisation | None = None, seed: int = 0):
    torch.manual_seed(seed)
    return DiffusionTrainingInferer(parametrisation or X0(), ALPHAS_CUMPROD, rollout=rollout)(IMAGE, network, x0=TRUTH)


def test_without_it_noise_is_added_to_the_truth_and_the_network_asked_once() -> None:
    network = Stubborn(0.5)
    train(network, 0.0)
    ((x, t, _),) = network.asked
    alpha, sigma = marginal(ALPHAS_CUMPROD, t, x.ndim)
    noise = (x - alpha * TRUTH) / sigma
    assert abs(float(noise.mean())) < 0.3 and float(noise.std()) == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize(("answer", "estimate"), [(0.5, 0.5), (3.0, 1.0)])
def test_with_it_noise_is_added_to_the_networks_clipped_estimate_from_pure_noise(
    answer: float, estimate: float
) -> None:
    network = Stubborn(answer)
    train(network, 1.0)
    (start, last, with_gradient), (x, t, _) = network.asked
    assert (last == 99).all() and not with_gradient and network.asked[1][2]
    assert abs(float(start.mean())) < 0.3 and float(start.std()) == pytest.approx(1, abs=0.2)
    alpha, sigma = marginal(ALPHAS_CUMPROD, t, x.ndim)
    noise = (x - alpha * estimate) / sigma
    assert abs(float(noise.mean())) < 0.3 and float(noise.std()) == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize("rollout", [0.0, 1.0])
@pytest.mark.parametrize("parametrisation", [Epsilon(), X0(), V()], ids=lambda p: type(p).__name__)
def test_the_target_leads_to_the_truth(parametrisation: Parametrisation, rollout: float) -> None:
    network = Stubborn(0.5)
    prediction = train(network, rollout, parametrisation)
    x, t, _ = network.asked[-1]
    reached = parametrisation.to_x0(prediction.target, x, *marginal(ALPHAS_CUMPROD, t, x.ndim))
    torch.testing.assert_close(reached, TRUTH, atol=1e-3, rtol=0)


def test_it_happens_as_often_as_asked() -> None:
    network = Stubborn(0.0)
    for seed in range(200):
        train(network, 0.3, seed=seed)
    assert len(network.asked) - 200 == pytest.approx(60, abs=26)  # four standard deviations


def test_gradients_flow_through_the_second_evaluation_alone() -> None:
    network = Stubborn(0.5)
    train(network, 1.0).output.sum().backward()
    assert float(network.answer.grad) == TRUTH.numel()


def test_processes_do_not_wait_for_each_other_in_it() -> None:
    """The wrapper that synchronises them is asked once per batch, by all alike."""

    class Wrapper(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module, self.calls = Stubborn(0.5), 0

        def forward(self, *inputs: Tensor) -> Tensor:
            self.calls += 1
            return self.module(*inputs)

    wrapper = Wrapper()
    train(wrapper, 1.0)
    assert wrapper.calls == 1 and len(wrapper.module.asked) == 2
