"""Adapters of MONAI's ``AdversarialTrainer`` for a *conditional* GAN on pairs of radiographs and volumes.

That trainer shows its inputs to the discriminator as the real examples. Therefore the volume is the input here, and
both networks get the radiographs as a named argument.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from scripts.diffusion.training import Prediction
from scripts.inference.network import DirectNetwork
from scripts.inference.precision import mixed_precision
from scripts.training.prepare_batch import ForEngine


def with_condition(image: Tensor, x0: Tensor) -> ForEngine:
    """Return the volume as the real example and the target, with the radiographs as a named argument."""
    return x0, x0, (), {"image": image}


class GeneratorInferer:
    """Inferer of the generator, which sees only the radiographs, never the real volume.

    Args:
        amp: whether to evaluate the network in bfloat16.
    """

    def __init__(self, amp: bool = False) -> None:
        self.amp = amp

    def __call__(self, inputs: Tensor, network: DirectNetwork, *args: Any, image: Tensor, **kwargs: Any) -> Tensor:
        """Return volumes ``[B, 1, U, V, W]`` for ``image [B, 2, N, N]``."""
        with mixed_precision(image.device, self.amp):
            volume = network(image)
        return volume.float()


class DiscriminatorInferer:
    """Inferer of the discriminator, which judges a volume together with its radiographs.

    Args:
        amp: whether to evaluate the network in bfloat16.
    """

    def __init__(self, amp: bool = False) -> None:
        self.amp = amp

    def __call__(
        self, inputs: Tensor, network: Callable[[Tensor, Tensor], Tensor], *args: Any, image: Tensor, **kwargs: Any
    ) -> Tensor:
        """Return logits for volumes ``inputs [B, 1, U, V, W]`` with ``image [B, 2, N, N]``."""
        with mixed_precision(image.device, self.amp):
            logits = network(inputs, image)
        return logits.float()


@dataclass(frozen=True)
class OfVolume:
    """Adapter of a loss on :class:`Prediction` to one on the volume itself.

    Args:
        loss: takes (prediction, x0).
    """

    loss: Callable[[Prediction, Tensor], Tensor]

    def __call__(self, volume: Tensor, x0: Tensor) -> Tensor:
        """Return the loss of ``volume`` against ``x0``, both ``[B, 1, U, V, W]``."""
        return self.loss(Prediction(volume, x0, volume), x0)
