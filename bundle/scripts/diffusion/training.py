"""Prediction of a diffusion model for one noisy batch, whatever the network and parametrisation."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Prediction(NamedTuple):
    """A denoising network's prediction for one noisy batch; all tensors have the shape of the clean data.

    Attributes:
        output: the network's raw output.
        target: the correct output under the parametrisation.
        x0: the clean data that the output implies.
        truth: the clean data that ``x0`` should equal, if it is not the batch's: a part of it, or repeated.
    """

    output: Tensor
    target: Tensor
    x0: Tensor
    truth: Tensor | None = None
