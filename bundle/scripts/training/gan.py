"""What MONAI's ``AdversarialTrainer`` needs to train a *conditional* GAN on pairs of radiographs and volumes.

That trainer shows its inputs to the discriminator as the real examples. So the volume is the input here, and the
radiographs travel beside it to both networks.
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
    """The volume as the real example and as the target, with the radiographs beside it."""
    return x0, x0, (), {"image": image}


class GeneratorInferer:
    """The generator's volume of the radiographs; it never sees the real one.

    Args:
        amp: evaluate the network in bfloat16.
    """

    def __init__(self, amp: bool = False) -> None:
        self.amp = amp

    def __call__(self, inputs: Tensor, network: DirectNetwork, *args: Any, image: Tensor, **kwargs: Any) -> Tensor:
        """Volumes ``[B, 1, U, V, W]`` of ``image [B, 2, N, N]``."""
        with mixed_precision(image.device, self.amp):
            volume = network(image)
        return volume.float()


class DiscriminatorInferer:
    """The discriminator's logits of a volume and the radiographs it should belong to.

    Args:
        amp: evaluate the network in bfloat16.
    """

    def __init__(self, amp: bool = False) -> None:
        self.amp = amp

    def __call__(
        self, inputs: Tensor, network: Callable[[Tensor, Tensor], Tensor], *args: Any, image: Tensor, **kwargs: Any
    ) -> Tensor:
        """Logits of volumes ``inputs [B, 1, U, V, W]`` with ``image [B, 2, N, N]``."""
        with mixed_precision(image.device, self.amp):
            logits = network(inputs, image)
        return logits.float()


@dataclass(frozen=True)
class OfVolume:
    """A loss on :class:`Prediction` as one on the volume itself.

    Args:
        loss: takes (prediction, x0).
    """

    loss: Callable[[Prediction, Tensor], Tensor]

    def __call__(self, volume: Tensor, x0: Tensor) -> Tensor:
        """The loss of ``volume`` against ``x0``, both ``[B, 1, U, V, W]``."""
        return self.loss(Prediction(volume, x0, volume), x0)
