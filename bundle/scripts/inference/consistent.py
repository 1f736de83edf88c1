"""Reconstruction whose volumes are changed at the end to meet their radiographs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from monai.utils import convert_to_tensor
from torch import Tensor, nn

from scripts.intensity import (
    AIR_BELOW_HU,
    HU_PER_UNIT,
    MU_PER_HU,
    TYPICAL_ERROR_HU,
    hu_to_mu,
    network_to_hu,
    network_to_radiograph,
)
from scripts.io.options import require_number, require_whole


class ConsistentInferer:
    """Inferer that lets another reconstruct, and makes every volume consistent with the radiographs.

    What is uncertain moves, and what is sure stays.

    Args:
        reconstruct: the other inferer.
        change: solver, called as ``change(mu, line_integrals, variance, sigma=..., steps=...)``; see
            :func:`~scripts.physics.consistency.consistent_change`.
        sigma: noise of the films in line integrals.
        steps: iterations of the solver.
        error: prediction of the standard deviation of one volume ``hu [U, V, W]`` from ``image [2, N, N]``, first of a
            pair, as by :class:`~scripts.inference.predicted_error.PredictedError`; None if none is known.

    Raises:
        ValueError: sigma is not a positive number, or steps is not a whole one of at least 0.
    """

    def __init__(
        self,
        reconstruct: Callable[[Tensor, nn.Module], Tensor],
        change: Callable[..., Tensor],
        sigma: float,
        steps: int,
        error: Callable[[Tensor, Tensor], tuple[np.ndarray, Any]] | None = None,
    ) -> None:
        require_number(consistency=sigma)
        require_whole(consistency_steps=steps)
        if not (sigma > 0 and math.isfinite(sigma)):
            raise ValueError(
                f"--consistency must be positive, the films' noise in line integrals, got {sigma}; try 0.02"
            )
        if steps < 0:
            raise ValueError(f"--consistency_steps must not be negative, got {steps}; 8 are usual")
        self.reconstruct, self.change, self.error = reconstruct, change, error
        self.sigma, self.steps = sigma, steps

    @torch.no_grad()
    def __call__(self, inputs: Tensor, network: nn.Module, *args: Any, **kwargs: Any) -> Tensor:
        """Return volumes ``[B, samples, U, V, W]`` in [-1, 1] for images ``[B, 2, N, N]``."""
        image, volumes = convert_to_tensor(inputs), self.reconstruct(inputs, network)
        return torch.cat([self._consistent(image, sample) for sample in volumes.split(1, dim=1)], dim=1)

    def _consistent(self, image: Tensor, volume: Tensor) -> Tensor:
        hu = network_to_hu(volume)
        variance = (MU_PER_HU * self._std_hu(image, hu)) ** 2
        mu, line_integrals = hu_to_mu(hu), network_to_radiograph(image)
        change = self.change(mu, line_integrals, variance, sigma=self.sigma, steps=self.steps)
        return (volume + change / (MU_PER_HU * HU_PER_UNIT)).clamp(-1.0, 1.0)

    def _std_hu(self, image: Tensor, hu: Tensor) -> Tensor:
        """Return the standard deviation of the error of ``hu [B, 1, U, V, W]``."""
        if self.error is None:
            return TYPICAL_ERROR_HU * (hu > AIR_BELOW_HU).to(hu.dtype)
        std = [self.error(exam.cpu(), volume[0].cpu())[0] for exam, volume in zip(image, hu, strict=True)]
        return torch.from_numpy(np.stack(std)[:, None]).to(hu)
