"""The adversarial losses are MONAI's, and smallest where each side has its way."""

import torch
from monai.losses import PatchAdversarialLoss

from scripts.losses.adversarial import DiscriminatorLoss, GeneratorLoss


def logits(seed: int) -> torch.Tensor:
    return torch.randn(2, 1, 3, 4, 5, generator=torch.Generator().manual_seed(seed))


def test_they_are_monais() -> None:
    theirs, real, fake = PatchAdversarialLoss(criterion="least_squares"), logits(0), logits(1)
    fooled = theirs(fake, target_is_real=True, for_discriminator=False)
    told_apart = theirs(real, target_is_real=True, for_discriminator=True) + theirs(
        fake, target_is_real=False, for_discriminator=True
    )
    torch.testing.assert_close(GeneratorLoss(0.3)(fake), 0.3 * fooled)
    torch.testing.assert_close(DiscriminatorLoss()(real, fake), told_apart / 2)


def test_the_generator_wants_ones_and_the_discriminator_ones_for_real_and_zeros_for_generated_volumes() -> None:
    one, zero = torch.ones(2, 1, 3, 3, 3), torch.zeros(2, 1, 3, 3, 3)
    assert GeneratorLoss()(one) == 0 < GeneratorLoss()(zero)
    assert DiscriminatorLoss()(one, zero) == 0
    assert DiscriminatorLoss()(one, one) > 0 and DiscriminatorLoss()(zero, zero) > 0
