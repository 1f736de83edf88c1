"""One noisy training example of a diffusion model, for any network and parametrisation."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Prediction(NamedTuple):
    """A denoising network's answer to one noisy batch; every tensor has the shape of the clean data.

    Attributes:
        output: the network's raw output.
        target: what the output should be, by the parametrisation.
        x0: the clean data that the output implies.
    """

    output: Tensor
    target: Tensor
    x0: Tensor
