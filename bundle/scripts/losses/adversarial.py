"""Least-squares GAN (Mao et al. 2017, arXiv:1611.04076), on MONAI's patch loss."""

from __future__ import annotations

from monai.losses import PatchAdversarialLoss
from torch import Tensor, nn


class GeneratorLoss(nn.Module):
    """How far the discriminator is from taking the generator's volumes for real.

    Args:
        weight: beside the reconstruction loss; X2CT-GAN's is 0.1.
    """

    def __init__(self, weight: float = 0.1) -> None:
        super().__init__()
        self.weight, self.loss = weight, PatchAdversarialLoss(criterion="least_squares")

    def forward(self, fake_logits: Tensor) -> Tensor:
        """Scalar loss of the discriminator's logits of generated volumes."""
        return self.weight * self.loss(fake_logits, target_is_real=True, for_discriminator=False)


class DiscriminatorLoss(nn.Module):
    """How far the discriminator is from telling real volumes (1) from generated ones (0)."""

    def __init__(self) -> None:
        super().__init__()
        self.loss = PatchAdversarialLoss(criterion="least_squares")

    def forward(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """Scalar loss, the mean over real and generated volumes."""
        real = self.loss(real_logits, target_is_real=True, for_discriminator=True)
        return 0.5 * (real + self.loss(fake_logits, target_is_real=False, for_discriminator=True))
