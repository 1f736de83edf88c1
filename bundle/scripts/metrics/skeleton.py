"""Metrics of the skeleton: where a reconstruction has bone, and how much of it.

Bone is every voxel of at least ``threshold_hu``, an argument without default: at the edges of thin bone the voxels are
means of bone and what surrounds it, so the skeleton that a threshold finds depends on the spacing. Volumes are
``[B, 1, U, V, W]`` in HU. Every function returns ``[B]`` and raises ValueError if prediction and target differ in
shape. A value that a volume without bone leaves undefined is NaN, never a placeholder.

A rib is one or two voxels wide at 5 mm: a shift by a single voxel takes most of its Dice. Precision and recall
therefore accept a voxel within one voxel of its place, diagonals included (26-neighbourhood), and tell displaced bone
from missing and from invented bone.
"""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn.functional import max_pool3d

from scripts.metrics.overlap import dice
from scripts.metrics.volume import check_same_shape


def bone_dice(prediction_hu: Tensor, target_hu: Tensor, threshold_hu: float) -> Tensor:
    """Return the Dice coefficient of the bones: 0 if only one volume has bone, NaN if neither has."""
    return dice(prediction_hu >= threshold_hu, target_hu >= threshold_hu)


def bone_precision(prediction_hu: Tensor, target_hu: Tensor, threshold_hu: float) -> Tensor:
    """Return the share of predicted bone voxels with true bone within one voxel; NaN without predicted bone."""
    check_same_shape("bone_precision", prediction_hu, target_hu)
    return _share_near(prediction_hu >= threshold_hu, target_hu >= threshold_hu)


def bone_recall(prediction_hu: Tensor, target_hu: Tensor, threshold_hu: float) -> Tensor:
    """Return the share of true bone voxels with predicted bone within one voxel; NaN without true bone."""
    check_same_shape("bone_recall", prediction_hu, target_hu)
    return _share_near(target_hu >= threshold_hu, prediction_hu >= threshold_hu)


def bone_volume_ratio(prediction_hu: Tensor, target_hu: Tensor, threshold_hu: float) -> Tensor:
    """Return the ratio of predicted to true bone voxels: below 1 is lost bone; NaN without true bone."""
    check_same_shape("bone_volume_ratio", prediction_hu, target_hu)
    found, true = (_count(volume >= threshold_hu) for volume in (prediction_hu, target_hu))
    return (found / true).where(true > 0, math.nan)


def _share_near(bone: Tensor, other: Tensor) -> Tensor:
    """Return the share of one mask's voxels with a voxel of the other within one voxel; NaN for an empty mask."""
    near = max_pool3d(other.float(), kernel_size=3, stride=1, padding=1) > 0
    return _count(bone & near) / _count(bone)


def _count(mask: Tensor) -> Tensor:
    return mask.flatten(1).sum(1)
