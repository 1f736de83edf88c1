"""What a network that corrects its estimate is asked in training: what a sampler will ask."""

import pytest
import torch
from tests.refusal import refused
from torch import Tensor, nn

from scripts.diffusion.parametrisation import X0
from scripts.diffusion.schedules import linear_alphas_cumprod, marginal
from scripts.training.inferers import CorrectingTrainingInferer, DiffusionTrainingInferer

ALPHAS_CUMPROD = linear_alphas_cumprod(100)
COUNT = 200
TRUTH = torch.full((COUNT, 1, 3, 3, 3), 0.25)
IMAGE = torch.zeros(COUNT, 2, 4, 4)


class Stubborn(nn.Module):
    """Always answers with the same volume, and remembers what it was asked."""

    met = 0.0

    def __init__(self, answer: float) -> None:
        super().__init__()
        self.answer, self.asked, self.conditions = nn.Parameter(torch.tensor(answer)), [], []

    def condition(self, image: Tensor) -> list[Tensor]:
        self.conditions.append([image, self.answer])
        return self.conditions[-1]

    def forward(
        self, image: Tensor, x: Tensor, timesteps: Tensor, estimate: Tensor | None, condition: list[Tensor]
    ) -> Tensor:
        assert image is IMAGE and condition is self.conditions[0]
        self.asked.append((x, timesteps, estimate))
        return self.answer.expand_as(x)

    def meet(self, x0: Tensor, condition: list[Tensor]) -> Tensor:
        assert condition is self.conditions[0] and not x0.requires_grad
        return x0 + self.met


def ask(answer: float = -0.5, **options):
    torch.manual_seed(0)
    network = Stubborn(answer)
    prediction = CorrectingTrainingInferer(ALPHAS_CUMPROD, **options)(IMAGE, network, x0=TRUTH)
    return network, prediction


@pytest.mark.parametrize("option, value", [("power", -1.0), ("power", 0), ("from_truth", 50), ("from_truth", "all")])
def test_impossible_shares_and_exponents_are_refused_by_name(option, value) -> None:
    with refused(ValueError, {"power": "--noise_power"}.get(option, f"--{option}"), str(value)):
        CorrectingTrainingInferer(ALPHAS_CUMPROD, **{option: value})


def test_a_rollout_that_is_no_probability_is_refused() -> None:
    with refused(ValueError, "--rollout", "50"):
        DiffusionTrainingInferer(X0(), ALPHAS_CUMPROD, rollout=50)


def centres(x: Tensor, t: Tensor) -> Tensor:
    """What noise was added to, roughly: the mean of x_t / alpha_t over an exam's voxels, where noise is small."""
    alpha, sigma = marginal(ALPHAS_CUMPROD, t, x.ndim)
    return (x / alpha).flatten(1).mean(1)[(sigma / alpha).flatten() < 0.3]


def test_first_it_sees_pure_noise_and_no_estimate_then_its_own_clipped_answer_without_gradient() -> None:
    network, _ = ask(answer=-3.0)
    (x, t, estimate), (_, _, later) = network.asked
    assert (t == 99).all() and estimate is None
    assert x.mean().abs() < 0.05 and x.std().item() == pytest.approx(1, abs=0.05)
    assert (later == -1.0).all() and not later.requires_grad


@pytest.mark.parametrize(("share", "expected"), [(0.0, {-0.5}), (1.0, {0.25}), (0.5, {-0.5, 0.25})])
def test_later_noise_lies_on_the_truth_for_the_share_asked_for_else_on_the_answer(share, expected) -> None:
    network, _ = ask(from_truth=share, power=4.0)
    means = centres(*network.asked[1][:2])
    nearest = {min((-0.5, 0.25), key=lambda c: abs(c - mean)) for mean in means.tolist()}
    assert len(means) > 50 and nearest == expected


def test_the_condition_is_computed_once() -> None:
    network, _ = ask()
    assert len(network.conditions) == 1 and len(network.asked) == 2


def test_the_estimate_that_it_sees_meets_the_radiographs(monkeypatch) -> None:
    monkeypatch.setattr(Stubborn, "met", 0.125)
    network, prediction = ask(answer=-0.5)
    assert (network.asked[1][2] == -0.375).all() and (prediction.x0 == -0.5).all()


@pytest.mark.parametrize("power", [0.1, 1.0, 2.0, 4.0])
def test_later_timesteps_follow_the_power_law(power) -> None:
    network, _ = ask(power=power)
    t = network.asked[1][1].double() / 100
    assert t.min() >= 0 and t.max() < 1
    assert t.mean().item() == pytest.approx(1 / (1 + power), abs=0.07)


def test_both_answers_are_held_to_the_truth_and_both_teach() -> None:
    network, prediction = ask()
    assert torch.equal(prediction.truth, torch.cat([TRUTH, TRUTH]))
    prediction.x0[:COUNT].sum().backward(retain_graph=True)
    first = network.answer.grad.clone()
    prediction.x0[COUNT:].sum().backward()
    assert first > 0 and network.answer.grad.item() == pytest.approx(2 * first.item())
