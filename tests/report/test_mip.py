"""Laws of the projections."""

import numpy as np
import pytest

from scripts.report.mip import PROJECTIONS

FRONTAL, LATERAL = PROJECTIONS


@pytest.mark.parametrize("projection, axes", [(FRONTAL, (0, 2)), (LATERAL, (1, 2))])
def test_the_picture_has_the_axes_of_its_radiograph(projection, axes):
    assert (projection.across, projection.up) == axes
    assert projection.of(np.zeros((2, 3, 4))).shape == tuple((2, 3, 4)[axis] for axis in axes)


def test_a_projection_is_the_largest_value_on_each_line_of_sight_against_brute_force():
    volume = np.random.default_rng(0).normal(0, 300, (3, 4, 5))
    frontal, lateral = FRONTAL.of(volume), LATERAL.of(volume)
    for w in range(5):
        assert frontal[:, w].tolist() == [max(volume[u, v, w] for v in range(4)) for u in range(3)]
        assert lateral[:, w].tolist() == [max(volume[u, v, w] for u in range(3)) for v in range(4)]


@pytest.mark.parametrize("projection", PROJECTIONS)
def test_moving_along_the_line_of_sight_changes_nothing(projection):
    volume = np.random.default_rng(0).normal(0, 300, (3, 4, 5))
    moved = np.roll(volume, 1, axis=projection.along)
    np.testing.assert_array_equal(projection.of(moved), projection.of(volume))
