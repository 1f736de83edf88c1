"""Least-squares GAN (Mao et al. 2017, arXiv:1611.04076)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


def least_squares(logits: Tensor, label: float) -> Tensor:
    """Mean squared distance of a discriminator's logits, of any shape, to the label.

    A leaky ReLU comes first, as in MONAI's PatchAdversarialLoss. That class copies the label from the CPU at every
    call, which makes the CPU wait for a GPU.
    """
    return (F.leaky_relu(logits, 0.05) - label).square().mean()


class GeneratorLoss(nn.Module):
    """How far the discriminator is from taking the generator's volumes for real.

    Args:
        weight: beside the reconstruction loss; X2CT-GAN's is 0.1.
    """

    def __init__(self, weight: float = 0.1) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, fake_logits: Tensor) -> Tensor:
        """Scalar loss of the discriminator's logits of generated volumes."""
        return self.weight * least_squares(fake_logits, 1.0)


class DiscriminatorLoss(nn.Module):
    """How far the discriminator is from telling real volumes (1) from generated ones (0)."""

    def forward(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """Scalar loss, the mean over real and generated volumes."""
        return 0.5 * (least_squares(real_logits, 1.0) + least_squares(fake_logits, 0.0))
