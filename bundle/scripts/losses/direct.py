"""Objectives of the direct methods, which compare the predicted volume with the true one."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from scripts.diffusion.training import Prediction
from scripts.losses.mean_projection import MeanProjectionLoss


class X2CTLoss(nn.Module):
    """Reconstruction and projection loss of X2CT-GAN (Ying et al. 2019, eqs (3) and (4)); without a GAN, X2CT-CNN's.

    Args:
        reconstruction_weight: weight of the mean squared error.
        projection_weight: weight of the L1 distance between mean projections along the three axes.
    """

    def __init__(self, reconstruction_weight: float = 10.0, projection_weight: float = 10.0) -> None:
        super().__init__()
        self.reconstruction_weight, self.projection_weight = reconstruction_weight, projection_weight
        self.projection = MeanProjectionLoss()

    def forward(self, prediction: Prediction, x0: Tensor) -> Tensor:
        """Return the scalar loss of volumes ``prediction.x0`` against ``x0 [B, 1, U, V, W]``."""
        reconstruction = F.mse_loss(prediction.x0, x0)
        return self.reconstruction_weight * reconstruction + self.projection_weight * self.projection(prediction.x0, x0)


class MeanSquaredLoss(nn.Module):
    """Mean squared error of a direct method's volume."""

    def forward(self, prediction: Prediction, x0: Tensor) -> Tensor:
        """Return the scalar loss of volumes ``prediction.x0`` against ``x0 [B, 1, U, V, W]``."""
        return F.mse_loss(prediction.x0, x0)
