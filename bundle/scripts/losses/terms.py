"""Terms of a training objective: each measures how volumes x [B, 1, U, V, W] differ from the truth x0, in [-1, 1]."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from scripts.geometry import BiplanarGeometry
from scripts.intensity import MU_WATER_PER_MM, RADIOGRAPH_SCALE, hu_to_network, network_to_hu
from scripts.physics.separable import SeparableProjector


def bone_weighted_error(x: Tensor, x0: Tensor, power: float, weight: float, threshold_hu: float) -> Tensor:
    """Mean of |x - x0|^power, in which voxels of at least ``threshold_hu`` in truth count ``weight`` times.

    Bone is a twentieth of a body, thin and uncertain, so the median of all volumes that fit the radiographs has none.
    With a weight w, the best answer shows bone wherever it is likelier than 1 / (1 + w).
    """
    error = (x - x0).abs().pow(power)
    weights = torch.where(x0 >= _network(threshold_hu), weight, 1.0)
    return (error * weights).mean()


def difference_error(x: Tensor, x0: Tensor) -> Tensor:
    """L1 of first differences along the three axes, which counts edges; an error voxel by voxel hardly does."""
    rest = x - x0
    along_u, along_v, along_w = (rest.diff(dim=axis).abs().mean() for axis in (2, 3, 4))
    return (along_u + along_v + along_w) / 3


def reprojection_error(x: Tensor, x0: Tensor, projector: Callable[[Tensor], Tensor]) -> Tensor:
    """L1 between the radiographs of x and of x0 in network units, through the exam's own projector.

    It compares x with noise-free radiographs of the truth, not with the measured ones.
    """
    low, high = network_to_hu(torch.tensor([-1.0, 1.0])).tolist()
    mu_per_unit = (high - low) / 2 / 1000 * MU_WATER_PER_MM
    return RADIOGRAPH_SCALE * projector((x - x0) * mu_per_unit).abs().mean()


def _network(hu: float) -> float:
    return hu_to_network(torch.tensor(hu)).item()


class BoneWeightedLoss(nn.Module):
    """:func:`bone_weighted_error` as a term.

    Args:
        power: 1 for L1, 2 for L2.
        weight: how much a voxel of bone counts.
        threshold_hu: the least HU of bone; partial volume makes thin bone fainter than 200 HU.
    """

    def __init__(self, power: float, weight: float = 4.0, threshold_hu: float = 150.0) -> None:
        super().__init__()
        self.power, self.weight, self.threshold_hu = power, weight, threshold_hu

    def forward(self, x: Tensor, x0: Tensor) -> Tensor:
        """Scalar."""
        return bone_weighted_error(x, x0, self.power, self.weight, self.threshold_hu)


class DifferenceLoss(nn.Module):
    """:func:`difference_error` as a term."""

    def forward(self, x: Tensor, x0: Tensor) -> Tensor:
        """Scalar."""
        return difference_error(x, x0)


class ReprojectionLoss(nn.Module):
    """:func:`reprojection_error` as a term.

    Args:
        geometry: the exam.
    """

    def __init__(self, geometry: BiplanarGeometry) -> None:
        super().__init__()
        self.projector = SeparableProjector(geometry)

    def forward(self, x: Tensor, x0: Tensor) -> Tensor:
        """Scalar."""
        return reprojection_error(x, x0, self.projector)
