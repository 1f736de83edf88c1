"""Training objective: a weighted sum of named terms chosen by the configuration."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce

import torch
from torch import Tensor, nn

from scripts.diffusion.training import Prediction


class Objective(nn.Module):
    """Weighted sum of terms that compare x0-hat with the truth.

    Args:
        terms: modules of (x [B, 1, U, V, W], x0) by name.
        weights: weights by the same names; a term of weight 0 is not computed.

    Raises:
        ValueError: a weight has no term or is negative, or none is positive.
    """

    def __init__(self, terms: Mapping[str, nn.Module], weights: Mapping[str, float]) -> None:
        super().__init__()
        unknown = sorted(weights.keys() - terms.keys())
        if unknown or any(weight < 0 for weight in weights.values()):
            raise ValueError(
                f"loss_weights: weights must be non-negative and named after a term of {', '.join(terms)}, got "
                f"{dict(weights)}; correct the names or the signs"
            )
        if not any(weights.values()):
            raise ValueError(
                f"loss_weights: an objective needs at least one term of positive weight, got {dict(weights)}; give one "
                f"of {', '.join(terms)} a weight"
            )
        self.weights = {name: float(weight) for name, weight in weights.items() if weight}
        self.terms = nn.ModuleDict({name: terms[name] for name in self.weights})

    def forward(self, prediction: Prediction, x0: Tensor) -> Tensor:
        """Return the scalar loss of a prediction against its own truth, or against ``x0 [B, 1, U, V, W]``."""
        truth = x0 if prediction.truth is None else prediction.truth
        losses = (weight * self.terms[name](prediction.x0, truth) for name, weight in self.weights.items())
        return reduce(torch.add, losses)
