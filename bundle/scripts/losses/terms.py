"""Terms of a training objective, which compare volumes x [B, 1, U, V, W] with the truth x0, both in [-1, 1]."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from monai.losses import DiceLoss
from torch import Tensor, nn

from scripts.geometry import BiplanarGeometry
from scripts.intensity import HU_PER_UNIT, MU_PER_HU, RADIOGRAPH_SCALE, hu_to_network, network_to_hu
from scripts.metrics.volume import TISSUES_HU
from scripts.physics.separable import SeparableProjector


def bone_weighted_error(x: Tensor, x0: Tensor, power: float, weight: float, threshold_hu: float) -> Tensor:
    """Return the mean of |x - x0|^power, in which voxels of at least ``threshold_hu`` in x0 count ``weight`` times.

    Bone is a twentieth of a body, thin and uncertain, so the median of all volumes that fit the radiographs has none.
    With a weight w, the best answer shows bone wherever its probability exceeds 1 / (1 + w).
    """
    error = (x - x0).abs().pow(power)
    weights = torch.where(x0 >= _network(threshold_hu), weight, 1.0)
    return (error * weights).mean()


def difference_error(x: Tensor, x0: Tensor) -> Tensor:
    """Return the L1 of first differences along the three axes, which counts edges; voxel-wise errors hardly do."""
    rest = x - x0
    along_u, along_v, along_w = (rest.diff(dim=axis).abs().mean() for axis in (2, 3, 4))
    return (along_u + along_v + along_w) / 3


def roughness_error(x: Tensor, x0: Tensor, window: int) -> Tensor:
    """Return how much the mean absolute difference in cubes of about ``window`` voxels differs from the truth's.

    Errors of single voxels and differences reward a blurred answer wherever an edge's exact place is unknown. How rough
    a neighbourhood is remains known, and blur misses it. The mean is over cubes and the three axes.

    Differences are between voxels two apart. A network that computes the voxels of a cell of 2 x 2 x 2 at a time can
    draw a checkerboard everywhere, which first differences would count as detail.
    """
    along_u, along_v, along_w = (
        (_roughness(x, axis, window) - _roughness(x0, axis, window)).abs().mean() for axis in (2, 3, 4)
    )
    return (along_u + along_v + along_w) / 3


def _roughness(x: Tensor, axis: int, window: int) -> Tensor:
    steps = (x.narrow(axis, 2, x.shape[axis] - 2) - x.narrow(axis, 0, x.shape[axis] - 2)).abs()
    u, v, w = (max(n // window, 1) for n in steps.shape[2:])
    return F.adaptive_avg_pool3d(steps, (u, v, w))


def reprojection_error(x: Tensor, x0: Tensor, projector: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the L1 between the radiographs of x and of x0 in network units, by the exam's own projector.

    This compares x with noise-free radiographs of the truth, not with the measured ones.
    """
    return RADIOGRAPH_SCALE * projector((x - x0) * HU_PER_UNIT * MU_PER_HU).abs().mean()


def tissue_shares(x: Tensor, width_hu: float) -> Tensor:
    """Return how much each voxel belongs to air, lung, soft tissue and bone, ``[B, 4, U, V, W]`` with sum 1.

    The bounds are those of the metrics by tissue. Logistic functions of ``width_hu`` smooth them, so that a voxel near
    a bound has a gradient.
    """
    hu = network_to_hu(x)
    # Air begins at -inf, which every voxel has reached.
    reached = [torch.sigmoid((hu - low) / width_hu) for low, _ in TISSUES_HU.values()]
    passed = [*reached[1:], torch.zeros_like(hu)]
    return torch.cat([low - high for low, high in zip(reached, passed, strict=True)], dim=1)


def _network(hu: float) -> float:
    return hu_to_network(torch.tensor(hu)).item()


class BoneWeightedLoss(nn.Module):
    """Module for :func:`bone_weighted_error`.

    Args:
        power: 1 for L1, 2 for L2.
        weight: weight of a voxel of bone.
        threshold_hu: smallest HU of bone; partial volume makes thin bone fainter than 200 HU.
    """

    def __init__(self, power: float, weight: float = 4.0, threshold_hu: float = 150.0) -> None:
        super().__init__()
        self.power, self.weight, self.threshold_hu = power, weight, threshold_hu

    def forward(self, x: Tensor, x0: Tensor) -> Tensor:
        """Return the scalar error."""
        return bone_weighted_error(x, x0, self.power, self.weight, self.threshold_hu)


class DifferenceLoss(nn.Module):
    """Module for :func:`difference_error`."""

    def forward(self, x: Tensor, x0: Tensor) -> Tensor:
        """Return the scalar error."""
        return difference_error(x, x0)


class RoughnessLoss(nn.Module):
    """Module for :func:`roughness_error`.

    Args:
        window: side of the cubes in voxels; 8 are 20 mm on a grid of 2.5 mm, less than a vertebra's height.
    """

    def __init__(self, window: int = 8) -> None:
        super().__init__()
        self.window = window

    def forward(self, x: Tensor, x0: Tensor) -> Tensor:
        """Return the scalar error."""
        return roughness_error(x, x0, self.window)


class ReprojectionLoss(nn.Module):
    """Module for :func:`reprojection_error`.

    Args:
        geometry: geometry of the exam.
    """

    def __init__(self, geometry: BiplanarGeometry) -> None:
        super().__init__()
        self.projector = SeparableProjector(geometry)

    def forward(self, x: Tensor, x0: Tensor) -> Tensor:
        """Return the scalar error."""
        return reprojection_error(x, x0, self.projector)


class TissueLoss(nn.Module):
    """One minus the soft Dice coefficient of :func:`tissue_shares`, averaged over exams and tissues.

    Every tissue counts alike, however small its part of the body: supervision by segmentation (Milletari et al. 2016,
    arXiv:1606.04797) without a second output.

    Args:
        width_hu: width of the smoothed bounds.
    """

    def __init__(self, width_hu: float = 50.0) -> None:
        super().__init__()
        self.width_hu, self.dice = width_hu, DiceLoss(squared_pred=True)

    def forward(self, x: Tensor, x0: Tensor) -> Tensor:
        """Return the scalar error."""
        return self.dice(tissue_shares(x, self.width_hu), tissue_shares(x0, self.width_hu))
