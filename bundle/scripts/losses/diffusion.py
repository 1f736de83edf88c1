"""The training objective of DiffuX2CT (section 3.4)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from scripts.diffusion.training import Prediction
from scripts.losses.projection import MeanProjectionLoss


class DiffusionLoss(nn.Module):
    """L_simple + lambda L_proj, eq (10): eq (7) in its L1 form, and eq (9) between x0-hat and x0.

    Args:
        projection_weight: lambda; the paper's is 1/T. Zero is the ablation "w/o L_proj".
    """

    def __init__(self, projection_weight: float = 1e-3) -> None:
        super().__init__()
        self.projection_weight = projection_weight
        self.projection = MeanProjectionLoss()

    def forward(self, prediction: Prediction, x0: Tensor) -> Tensor:
        """Scalar loss of one noisy batch against its clean volumes ``x0 [B, 1, U, V, W]``."""
        simple = F.l1_loss(prediction.output, prediction.target)
        return simple + self.projection_weight * self.projection(prediction.x0, x0)
