"""Dice and HD95 against closed forms and brute force; empty structures."""

import math
import warnings

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_erosion
from scipy.spatial.distance import cdist

from scripts.metrics.overlap import dice, hd95_mm, measure_overlap

SIDE = 8


def box(*start: int, shape=(20, 20, 20), side=SIDE) -> torch.Tensor:
    """A cube ``[1, 1, U, V, W]`` of ``side`` voxels whose first corner is ``start``."""
    mask = torch.zeros(1, 1, *shape, dtype=torch.bool)
    mask[(0, 0, *(slice(i, i + side) for i in start))] = True
    return mask


EMPTY = torch.zeros(1, 1, 20, 20, 20, dtype=torch.bool)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("shift", [0, 1, 3])
def test_a_shifted_box_has_the_dice_and_the_distance_of_its_shift(axis, shift):
    spacing_mm = (1.5, 2.0, 5.0)
    start = [5, 5, 5]
    start[axis] += shift
    moved = box(*start)
    assert dice(moved, box(5, 5, 5)).item() == pytest.approx((SIDE - shift) / SIDE)
    assert hd95_mm(moved, box(5, 5, 5), spacing_mm).item() == pytest.approx(shift * spacing_mm[axis])


def test_disjoint_boxes_do_not_overlap_and_still_have_a_distance():
    a, b = box(0, 5, 5), box(12, 5, 5)
    assert dice(a, b).item() == 0
    assert hd95_mm(a, b, (2.0, 2.0, 2.0)).item() == pytest.approx(24.0)


def test_a_box_in_a_box_has_the_dice_of_their_volumes():
    assert dice(box(5, 5, 5), box(5, 5, 5, side=4)).item() == pytest.approx(2 * 4**3 / (8**3 + 4**3))


def test_hd95_forgives_a_speck_that_the_largest_distance_would_not():
    speck = box(10, 10, 10)
    speck[0, 0, 0, 0, 0] = True
    assert hd95_mm(speck, box(10, 10, 10), (1.0, 1.0, 1.0)).item() == 0


def test_hd95_is_that_of_brute_force():
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.rand(1, 1, 9, 10, 11, generator=generator) > 0.7 for _ in range(2))
    spacing_mm = np.array([1.0, 2.5, 4.0])
    points = [np.argwhere(m & ~binary_erosion(m)) * spacing_mm for m in (a[0, 0].numpy(), b[0, 0].numpy())]
    distances = cdist(*points)
    expected = max(np.percentile(distances.min(1), 95), np.percentile(distances.min(0), 95))
    assert hd95_mm(a, b, spacing_mm).item() == pytest.approx(expected, rel=1e-5)


def test_both_metrics_are_symmetric():
    a, b = box(2, 3, 4), box(5, 5, 5, side=6)
    assert dice(a, b) == dice(b, a) and hd95_mm(a, b, (1, 2, 3)) == hd95_mm(b, a, (1, 2, 3))


@pytest.mark.parametrize("prediction, reference, expected", [
    (EMPTY, EMPTY, math.nan), (EMPTY, box(5, 5, 5), 0.0), (box(5, 5, 5), EMPTY, 0.0),
])  # fmt: skip
def test_an_empty_mask_has_no_distance_and_two_of_them_no_dice(prediction, reference, expected):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert dice(prediction, reference).item() == pytest.approx(expected, nan_ok=True)
        assert math.isnan(hd95_mm(prediction, reference, (1.0, 1.0, 1.0)).item())


def test_items_of_a_batch_do_not_influence_each_other():
    prediction, reference = torch.cat([EMPTY, box(6, 5, 5), EMPTY]), torch.cat([EMPTY, box(5, 5, 5), box(5, 5, 5)])
    assert dice(prediction, reference).tolist() == pytest.approx([math.nan, 7 / 8, 0], nan_ok=True)
    assert hd95_mm(prediction, reference, (2.0, 1.0, 1.0)).tolist() == pytest.approx(
        [math.nan, 2, math.nan], nan_ok=True
    )


@pytest.mark.parametrize("metric", [dice, lambda p, r: hd95_mm(p, r, (1.0, 1.0, 1.0))])
def test_masks_of_different_shape_are_refused(metric):
    with pytest.raises(ValueError, match=r"prediction \(1, 1, 20, 20, 20\) and target \(1, 1, 20, 20, 21\) differ"):
        metric(EMPTY, box(5, 5, 5, shape=(20, 20, 21)))


def test_a_row_has_every_structure_their_mean_and_what_only_one_side_has():
    found = {"same": box(5, 5, 5), "moved": box(7, 5, 5), "lost": EMPTY, "new": box(0, 0, 0), "none": EMPTY}
    known = {"same": box(5, 5, 5), "moved": box(5, 5, 5), "lost": box(5, 5, 5), "new": EMPTY, "none": EMPTY}
    row = measure_overlap(found, known, (5.0, 5.0, 5.0))
    assert list(row)[:3] == ["dice", "missed", "invented"]
    assert (row["missed"], row["invented"]) == (1, 1)
    assert [row[f"dice_{n}"] for n in found] == pytest.approx([1, 0.75, 0, 0, math.nan], nan_ok=True)
    assert [row[f"hd95_{n}_mm"] for n in found] == pytest.approx([0, 10, *[math.nan] * 3], nan_ok=True)
    assert row["dice"] == pytest.approx(1.75 / 4)


def test_what_the_reference_does_not_name_is_not_measured():
    found = {"a": box(5, 5, 5), "b": box(5, 5, 5)}
    partly = measure_overlap(found, {"a": box(5, 5, 5)}, (1.0, 1.0, 1.0))
    assert partly["dice"] == 1 and math.isnan(partly["dice_b"]) and math.isnan(partly["hd95_b_mm"])
    assert partly["invented"] == 0
    nothing = measure_overlap(found, {}, (1.0, 1.0, 1.0))
    assert list(nothing) == list(partly) and all(math.isnan(value) for value in nothing.values())
