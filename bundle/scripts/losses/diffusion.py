"""The training objective of DiffuX2CT (section 3.4)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from scripts.diffusion.training import Prediction
from scripts.losses.mean_projection import MeanProjectionLoss
from scripts.losses.structure import StructureLoss


class DiffusionLoss(nn.Module):
    """L_simple + lambda L_proj, eq (10): eq (7) in its L1 form, and eq (9) between x0-hat and x0.

    Args:
        projection_weight: lambda, 1/T in the paper. Zero is the ablation "w/o L_proj".
        structure_weight: weight of 1 - SSIM3D between x0-hat and x0, our addition to the paper; zero leaves it out.
    """

    def __init__(self, projection_weight: float = 1e-3, structure_weight: float = 0.0) -> None:
        super().__init__()
        self.projection_weight, self.structure_weight = projection_weight, structure_weight
        self.projection, self.structure = MeanProjectionLoss(), StructureLoss()

    def forward(self, prediction: Prediction, x0: Tensor) -> Tensor:
        """Return the scalar loss of one noisy batch against its clean volumes ``x0 [B, 1, U, V, W]``."""
        simple = F.l1_loss(prediction.output, prediction.target)
        loss = simple + self.projection_weight * self.projection(prediction.x0, x0)
        return loss + self.structure_weight * self.structure(prediction.x0, x0) if self.structure_weight else loss
