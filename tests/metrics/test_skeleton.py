"""Laws of the bone metrics; Dice against MONAI, precision and recall against SciPy."""

import math

import numpy as np
import pytest
import torch
from monai.metrics import compute_dice
from scipy.ndimage import binary_dilation
from tests.refusal import refused

from scripts.metrics.skeleton import bone_dice, bone_precision, bone_recall, bone_volume_ratio

THRESHOLD = 200.0
METRICS = (bone_dice, bone_precision, bone_recall, bone_volume_ratio)


def volume(*bone: tuple) -> torch.Tensor:
    """Soft tissue ``[1, 1, 10, 11, 12]`` with bone at the given places."""
    hu = torch.full((1, 1, 10, 11, 12), 40.0)
    for place in bone:
        hu[(0, 0, *place)] = 700.0
    return hu


RIB = (slice(2, 8), 4, slice(5, 6))
NONE = volume()


def speckle(seed: int) -> torch.Tensor:
    """Two volumes with bone in a twentieth of their voxels, also at the borders."""
    return 100 * torch.randn(2, 1, 10, 11, 12, generator=torch.Generator().manual_seed(seed)) + 35


@pytest.mark.parametrize("metric", METRICS)
def test_a_skeleton_agrees_with_itself(metric):
    assert metric(speckle(0), speckle(0), THRESHOLD).tolist() == [1, 1]


@pytest.mark.parametrize("shift", [(1, 0, 0), (0, -1, 0), (0, 1, 1), (-1, 1, -1)])
def test_a_shift_by_one_voxel_costs_dice_and_neither_precision_nor_recall(shift):
    moved = torch.roll(volume(RIB), shift, dims=(2, 3, 4))
    assert bone_dice(moved, volume(RIB), THRESHOLD) < 0.9
    assert bone_precision(moved, volume(RIB), THRESHOLD) == bone_recall(moved, volume(RIB), THRESHOLD) == 1
    assert bone_volume_ratio(moved, volume(RIB), THRESHOLD) == 1


def test_a_shift_by_two_voxels_is_no_longer_tolerated():
    moved = torch.roll(volume(RIB), 2, dims=3)
    assert bone_precision(moved, volume(RIB), THRESHOLD) == bone_recall(moved, volume(RIB), THRESHOLD) == 0


def test_a_missing_bone_costs_recall_alone_and_an_invented_one_precision_alone():
    other = (slice(2, 8), 9, slice(5, 6))
    one, two = volume(RIB), volume(RIB, other)
    assert (bone_precision(one, two, THRESHOLD), bone_recall(one, two, THRESHOLD)) == (1, 0.5)
    assert (bone_precision(two, one, THRESHOLD), bone_recall(two, one, THRESHOLD)) == (0.5, 1)
    assert (bone_volume_ratio(one, two, THRESHOLD), bone_volume_ratio(two, one, THRESHOLD)) == (0.5, 2)


def test_the_threshold_itself_is_bone():
    hu = torch.full((1, 1, 4, 4, 4), THRESHOLD)
    assert bone_volume_ratio(hu, hu, THRESHOLD) == 1 and bone_volume_ratio(hu, hu, THRESHOLD + 1).isnan()


def test_dice_is_monais():
    prediction, target = speckle(0), speckle(0) + 0.7 * speckle(1)
    expected = compute_dice((prediction >= THRESHOLD).float(), (target >= THRESHOLD).float()).flatten()
    assert expected.min() > 0.1 and expected.max() < 0.9
    torch.testing.assert_close(bone_dice(prediction, target, THRESHOLD), expected)


def test_precision_and_recall_are_scipys_with_a_dilation_by_the_26_neighbours():
    prediction, target = speckle(0), speckle(1)
    for i in range(2):
        found, true = (hu[i, 0].numpy() >= THRESHOLD for hu in (prediction, target))
        near_true, near_found = (binary_dilation(mask, np.ones((3, 3, 3))) for mask in (true, found))
        precision, recall = near_true[found].mean(), near_found[true].mean()
        assert min(precision, recall) > 0.3 and max(precision, recall) < 0.95
        assert bone_precision(prediction, target, THRESHOLD)[i].item() == pytest.approx(precision)
        assert bone_recall(prediction, target, THRESHOLD)[i].item() == pytest.approx(recall)


@pytest.mark.parametrize(
    "prediction, target, expected",
    [
        (NONE, volume(RIB), (0, math.nan, 0, 0)),
        (volume(RIB), NONE, (0, 0, math.nan, math.nan)),
        (NONE, NONE, (math.nan, math.nan, math.nan, math.nan)),
    ],
)
def test_without_bone_what_is_undefined_is_nan(prediction, target, expected):
    found = [metric(prediction, target, THRESHOLD).item() for metric in METRICS]
    assert found == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize("metric", METRICS)
def test_volumes_of_different_shape_are_refused(metric):
    with refused(ValueError, "differ in shape", "resample"):
        metric(NONE, NONE[..., 1:], THRESHOLD)
