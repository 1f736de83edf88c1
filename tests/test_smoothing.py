import numpy as np
import pytest

from scripts.smoothing import smoothed


@pytest.mark.parametrize("wider", [4.0, 5.0, 8.0])
def test_an_impulse_gets_the_variance_that_the_wider_box_adds(wider):
    impulse = np.zeros(101)
    impulse[50] = 1
    spread = smoothed(impulse, np.array([wider]), mode="constant")
    offset = np.arange(101) - 50
    assert spread.sum() == pytest.approx(1)
    assert spread @ offset**2 == pytest.approx((wider**2 - 1) / 12, rel=0.02)


def test_values_stay_where_the_new_pixels_are_no_larger():
    values = np.random.default_rng(0).normal(size=(6, 5))
    np.testing.assert_array_equal(smoothed(values, np.array([1.0, 0.5]), mode="nearest"), values)
