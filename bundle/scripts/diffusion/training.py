"""One noisy training example of a diffusion model, for any network and parametrisation."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Prediction(NamedTuple):
    """What a denoising network said of one noisy batch; every tensor has the shape of the clean data.

    Attributes:
        output: the network's raw output.
        target: what the parametrisation wanted it to be.
        x0: the clean data that the output implies.
    """

    output: Tensor
    target: Tensor
    x0: Tensor
