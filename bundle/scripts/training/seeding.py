"""Stateless randomness: every run and every iteration seeds the generators again."""

from __future__ import annotations

import torch
from ignite.engine import Engine, Events
from monai.utils import set_determinism

from scripts.io.options import require_seed


def start_from_seed(seed: int, fastest: bool = False) -> None:
    """Seed all global generators, and let cuDNN use deterministic kernels, or the fastest ones.

    Raises:
        ValueError: the seed is not valid.
    """
    require_seed(seed=seed)
    set_determinism(seed)
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = not fastest, fastest


class SeedIterations:
    """Handler that seeds the global generators from (seed, rank, iteration) before every iteration.

    Randomness then has no state to save: a resumed run draws the same numbers as an uninterrupted one.
    """

    def __init__(self, seed: int, rank: int = 0) -> None:
        self.seed, self.rank = seed, rank

    def attach(self, engine: Engine) -> None:
        """Seed at the start of every iteration of ``engine``."""
        engine.add_event_handler(Events.ITERATION_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Seed for the current iteration."""
        torch.manual_seed(((self.seed * 1009 + self.rank) * 10_000_019 + engine.state.iteration) % 2**64)
