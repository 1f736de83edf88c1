"""Least-squares GAN (Mao et al. 2017, arXiv:1611.04076)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


def least_squares(logits: Tensor, label: float) -> Tensor:
    """Return the mean squared distance of a discriminator's logits, of any shape, from the label.

    As in MONAI's PatchAdversarialLoss, a leaky ReLU is applied first. That class copies the label from the CPU at every
    call, which makes the CPU wait for a GPU.
    """
    return (F.leaky_relu(logits, 0.05) - label).square().mean()


class GeneratorLoss(nn.Module):
    """Generator loss: penalises volumes that the discriminator does not take for real.

    Args:
        weight: weight relative to the reconstruction loss; X2CT-GAN uses 0.1.
    """

    def __init__(self, weight: float = 0.1) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, fake_logits: Tensor) -> Tensor:
        """Return the scalar loss of the discriminator's logits for generated volumes."""
        return self.weight * least_squares(fake_logits, 1.0)


class DiscriminatorLoss(nn.Module):
    """Discriminator loss: penalises confusion of real volumes (1) with generated ones (0)."""

    def forward(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """Return the scalar loss, the mean over real and generated volumes."""
        return 0.5 * (least_squares(real_logits, 1.0) + least_squares(fake_logits, 0.0))
