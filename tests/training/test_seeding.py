"""Random numbers are a function of seed, rank and iteration."""

import torch
from ignite.engine import Engine

from scripts.training.seeding import SeedIterations


def draws(seed: int, rank: int = 0, start: int = 0, stop: int = 6) -> list[float]:
    """What each iteration after ``start`` draws, up to ``stop``."""
    drawn: list[float] = []
    engine = Engine(lambda engine, batch: drawn.append(torch.rand(()).item()))
    SeedIterations(seed, rank).attach(engine)
    engine.load_state_dict({"iteration": start, "epoch_length": 2, "max_epochs": stop // 2})
    engine.run(range(2), max_epochs=stop // 2)
    return drawn


def test_draws_do_not_depend_on_where_the_run_started():
    assert draws(3, start=2) == draws(3)[2:]


def test_draws_do_not_depend_on_the_global_generator():
    torch.manual_seed(1)
    first = draws(3)
    torch.manual_seed(2)
    assert draws(3) == first


def test_every_seed_rank_and_iteration_draws_something_else():
    every = [value for seed in range(3) for rank in range(4) for value in draws(seed, rank)]
    assert len(every) == len(set(every)) == 72
