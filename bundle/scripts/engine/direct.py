"""How an engine calls a direct method: the network makes a volume from the radiographs in one go."""

from __future__ import annotations

from typing import Any

import torch
from monai.inferers import Inferer
from monai.utils import convert_to_tensor
from torch import Tensor, nn

from scripts.diffusion.training import Prediction
from scripts.engine.inferers import mixed_precision


class DirectTrainingInferer(Inferer):
    """Asks the network for the volume; what it says and what is wanted is a :class:`Prediction` as in diffusion.

    Args:
        amp: evaluate the network in bfloat16.
    """

    def __init__(self, amp: bool = False) -> None:
        self.amp = amp

    def __call__(self, inputs: Tensor, network: nn.Module, *args: Any, x0: Tensor, **kwargs: Any) -> Prediction:
        """Evaluate ``network(image)`` on images ``[B, 2, N, N]`` whose volumes are ``x0 [B, 1, U, V, W]``."""
        with mixed_precision(inputs.device, self.amp):
            volume = network(inputs)
        volume = volume.float()
        return Prediction(volume, x0, volume)


class DirectInferer(Inferer):
    """Reconstructs with one evaluation of the network, clipped to its range.

    Args:
        amp: evaluate the network in bfloat16.
    """

    def __init__(self, amp: bool = False) -> None:
        self.amp = amp

    @torch.no_grad()
    def __call__(self, inputs: Tensor, network: nn.Module, *args: Any, **kwargs: Any) -> Tensor:
        """Volumes ``[B, 1, U, V, W]`` in [-1, 1] of images ``[B, 2, N, N]``."""
        inputs = convert_to_tensor(inputs)  # metadata would be carried through every operation of the network
        with mixed_precision(inputs.device, self.amp):
            volume = network(inputs)
        return volume.float().clamp(-1.0, 1.0)
