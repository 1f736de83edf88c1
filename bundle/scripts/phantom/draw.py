"""The only source of randomness of a phantom."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor

Point = tuple[float, float, float]
Interval = tuple[float, float]
Choice = TypeVar("Choice")


class Draw:
    """Random numbers determined by a seed and the order of the calls."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(int(seed))

    def uniform(self, low: float, high: float) -> float:
        """Draw a number from `low` to `high`."""
        return low + (high - low) * torch.rand((), generator=self.generator).item()

    def chance(self, probability: float) -> bool:
        """Return True with the given probability."""
        return self.uniform(0.0, 1.0) < probability

    def side(self) -> int:
        """Draw a side: 1 for the patient's right, -1 for the left."""
        return 1 if self.chance(0.5) else -1

    def whole(self, low: int, high: int) -> int:
        """Draw a whole number from `low` to `high`, both included."""
        return min(low + int(self.uniform(0, high - low + 1)), high)

    def one(self, choices: Sequence[Choice], weights: Sequence[float]) -> Choice:
        """Draw one of `choices` with probability proportional to its weight."""
        return choices[int(torch.multinomial(torch.tensor(weights, dtype=torch.float32), 1, generator=self.generator))]

    def near(self, point: Point, jitter: float) -> Point:
        """Return `point` moved by at most `jitter` mm along each axis."""
        x, y, z = (p + self.uniform(-jitter, jitter) for p in point)
        return x, y, z

    def uniforms(self, *shape: int, reach: float) -> Tensor:
        """Draw independent numbers from -`reach` to `reach`."""
        return reach * (2 * torch.rand(shape, generator=self.generator) - 1)

    def normal(self, *shape: int) -> Tensor:
        """Draw independent standard normals."""
        return torch.randn(shape, generator=self.generator)
