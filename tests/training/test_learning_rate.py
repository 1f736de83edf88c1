"""The learning rate is a function of the configuration and the epoch."""

import math

import pytest
import torch

from scripts.training.learning_rate import EpochSchedule, warm_cosine


def test_factor_rises_to_one_and_falls_to_the_floor():
    factors = [warm_cosine(epoch, 20, warmup=3, floor=0.1) for epoch in range(21)]
    assert factors[:4] == pytest.approx([1 / 4, 2 / 4, 3 / 4, 1.0])
    assert all(a > b for a, b in zip(factors[3:], factors[4:], strict=False))
    assert factors[20] == pytest.approx(0.1)


def test_half_way_down_is_half_the_cosine():
    assert warm_cosine(11, 21, warmup=1, floor=0.0) == pytest.approx(0.5)
    assert warm_cosine(6, 21, warmup=1, floor=0.0) == pytest.approx((1 + math.cos(math.pi / 4)) / 2)


@pytest.mark.parametrize("max_epochs", [1, 2, 3])
def test_factor_is_positive_and_at_most_one_however_short_the_run(max_epochs):
    assert all(0 < warm_cosine(epoch, max_epochs) <= 1 for epoch in range(max_epochs + 5))


def schedule(rate: float, max_epochs: int, **options) -> EpochSchedule:
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=rate, **options)
    return EpochSchedule(optimizer, lambda epoch: warm_cosine(epoch, max_epochs))


def run(made: EpochSchedule, epochs: int) -> list[float]:
    """The learning rate of each of the next epochs."""
    rates = []
    for _ in range(epochs):
        rates.append(made.optimizer.param_groups[0]["lr"])
        made.optimizer.step()
        made.step()
    return rates


def resumed(before: EpochSchedule, rate: float, max_epochs: int, **options) -> EpochSchedule:
    made = schedule(rate, max_epochs, **options)
    made.optimizer.load_state_dict(before.optimizer.state_dict())
    made.load_state_dict(before.state_dict())
    return made


def test_resumed_schedule_continues_exactly():
    unbroken = schedule(1e-3, 10)
    rates = run(unbroken, 10)
    broken = schedule(1e-3, 10)
    assert run(broken, 4) == rates[:4]
    again = resumed(broken, 1e-3, 10)
    assert again.state_dict() == broken.state_dict()
    assert run(again, 6) == rates[4:]


@pytest.mark.parametrize(("rate", "max_epochs"), [(1e-3, 20), (5e-4, 10), (5e-4, 20)])
def test_resumed_schedule_follows_the_new_configuration_at_once(rate, max_epochs):
    broken = schedule(1e-3, 10)
    run(broken, 4)
    expected = [rate * warm_cosine(epoch, max_epochs) for epoch in range(4, 10)]
    assert run(resumed(broken, rate, max_epochs), 6) == pytest.approx(expected)


def test_a_resumed_optimizer_keeps_its_moments_and_takes_the_new_weight_decay():
    broken = schedule(1e-3, 10, weight_decay=0.0)
    broken.optimizer.param_groups[0]["params"][0].grad = torch.ones(1)
    run(broken, 4)
    again = resumed(broken, 1e-3, 10, weight_decay=0.1)
    assert again.optimizer.param_groups[0]["weight_decay"] == 0.1
    before, after = (made.optimizer.state_dict()["state"][0]["exp_avg"] for made in (broken, again))
    assert torch.equal(before, after)
