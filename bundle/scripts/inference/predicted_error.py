"""Reconstruction together with the predicted scale of its error."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from scripts.inference.intervals import Intervals, read_intervals, require_level
from scripts.inference.weights import load_weights
from scripts.intensity import HU_PER_UNIT, NETWORK_HU_RANGE, hu_to_network

Bounds = tuple[np.ndarray, np.ndarray]
logger = logging.getLogger(__name__)


class ErrorScaleInferer:
    """Inferer that reconstructs by a frozen network and evaluates another one on the result.

    Args:
        reconstruct: inferer of the frozen network.
        base: the frozen network.
    """

    def __init__(self, reconstruct: Callable[[Tensor, nn.Module], Tensor], base: nn.Module) -> None:
        self.reconstruct, self.base = reconstruct, base.requires_grad_(False).eval()

    def __call__(
        self, inputs: Tensor, network: Callable[[Tensor, Tensor], Tensor], *args: Any, **kwargs: Any
    ) -> Tensor:
        """Return volumes and scales ``[B, 2, U, V, W]`` in network range for images ``[B, 2, N, N]``."""
        with torch.no_grad():
            volume = self.reconstruct(inputs, self.base).mean(dim=1, keepdim=True)
        return torch.cat([volume, network(inputs, volume)], dim=1)


@dataclass(frozen=True)
class PredictedError:
    """Error of a reconstruction as predicted by a network and calibrated by :class:`Intervals`.

    Attributes:
        network: predicts the scale of the error, in the geometry of the reconstruction.
        intervals: the calibration.
    """

    network: Any
    intervals: Intervals

    def require_level(self, level: float) -> None:
        """Raise a ValueError if there is no interval of this level."""
        require_level(level)

    @torch.no_grad()
    def scale(self, image: Tensor, hu: Tensor) -> np.ndarray:
        """Return the uncalibrated scale in HU of a volume ``hu [U, V, W]`` from ``image [2, N, N]``."""
        device = self.network.geometry.device
        volume = hu_to_network(hu)[None, None].to(device)
        return HU_PER_UNIT * self.network(image[None].float().to(device), volume)[0, 0].cpu().double().numpy()

    def __call__(self, image: Tensor, hu: Tensor, level: float | None = None) -> tuple[np.ndarray, Bounds | None]:
        """Predict the error of a volume ``hu [U, V, W]`` from ``image [2, N, N]`` in network units.

        Returns:
            The standard deviation in HU, and the ends of the interval of ``level``, clipped to the network's range.

        Raises:
            ValueError: the level is outside the fitted range.
        """
        intervals = self.intervals.of(hu.double().numpy(), self.scale(image, hu))
        std = intervals.std.astype(np.float32)
        if level is None:
            return std, None
        low, high = (np.clip(end, *NETWORK_HU_RANGE) for end in intervals.bounds(level))
        return std, (low.astype(np.float32), high.astype(np.float32))


def load_error(
    build: Callable[[], nn.Module],
    path: str | Path,
    device: torch.device,
    intervals: str | Path,
    made_by: Mapping[str, Any],
) -> PredictedError | None:
    """Load the prediction of errors, or return None if it belongs to other weights, or to another sampler.

    Args:
        build: builds the network of the scale.
        path: its weights.
        device: where it runs.
        intervals: file of :class:`~scripts.inference.intervals.Intervals`.
        made_by: what makes the reconstructions, as in ``valid_for`` of the intervals.

    Raises:
        ValueError: a file is missing or damaged.
    """
    known = read_intervals(intervals)
    if dict(known.valid_for) != dict(made_by):
        logger.info("%s: fitted for other weights or sampling; no error is predicted", intervals)
        return None
    return PredictedError(load_weights(build().to(device), path, "--scale_weights"), known)
