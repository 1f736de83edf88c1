"""A training inferer whose random draws belong to the sample, not to the batch it comes in."""

from __future__ import annotations

from typing import Any

import torch
from monai.inferers import Inferer
from torch import Tensor, nn

from scripts.diffusion.training import Prediction


class PerSample(Inferer):
    """Calls ``inferer`` on one sample at a time, each seeded by its own voxels."""

    def __init__(self, inferer: Inferer) -> None:
        self.inferer = inferer

    def __call__(self, inputs: Tensor, network: nn.Module, *args: Any, x0: Tensor, **kwargs: Any) -> Prediction:
        """One prediction for the whole batch."""
        predictions = []
        for image, volume in zip(inputs.split(1), x0.split(1), strict=True):
            torch.manual_seed(int(volume.double().abs().sum() * 1e6))
            predictions.append(self.inferer(image, network, x0=volume))
        return Prediction(*(torch.cat(parts) for parts in zip(*(made[:3] for made in predictions), strict=True)))
