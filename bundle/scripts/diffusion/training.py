"""Prediction of a diffusion model for one noisy batch, whatever the network and parametrisation."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Prediction(NamedTuple):
    """Prediction of a denoising network for one noisy batch; every tensor has the shape of the clean data.

    Attributes:
        output: the network's raw output.
        target: the desired output under the parametrisation.
        x0: the clean data that the output implies.
    """

    output: Tensor
    target: Tensor
    x0: Tensor
