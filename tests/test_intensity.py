import pytest
import torch

from scripts.intensity import (
    AIR_HU,
    MU_WATER_PER_MM,
    NETWORK_HU_RANGE,
    RADIOGRAPH_SCALE,
    hu_to_mu,
    hu_to_network,
    mu_to_hu,
    network_to_hu,
    network_to_radiograph,
    radiograph_to_network,
)

FUNCTIONS = (hu_to_mu, hu_to_network, mu_to_hu, network_to_hu, network_to_radiograph, radiograph_to_network)


def hu_line(low=-1024.0, high=1500.0):
    return torch.linspace(low, high, 257, dtype=torch.float64)


def test_network_round_trip_restores_hu_in_the_range():
    torch.testing.assert_close(network_to_hu(hu_to_network(hu_line())), hu_line())


def test_mu_round_trip_restores_hu_above_air():
    hu = hu_line(low=AIR_HU, high=30000.0)
    torch.testing.assert_close(mu_to_hu(hu_to_mu(hu)), hu)


def test_radiograph_round_trip_restores_line_integrals():
    line_integral = hu_line(0.0, 12.0)
    torch.testing.assert_close(network_to_radiograph(radiograph_to_network(line_integral)), line_integral)


def test_the_network_range_maps_to_plus_minus_one_and_clips():
    low, high = NETWORK_HU_RANGE
    network = hu_to_network(torch.tensor([low - 500, low, (low + high) / 2, high, high + 5000]))
    torch.testing.assert_close(network, torch.tensor([-1.0, -1.0, 0.0, 1.0, 1.0]))


def test_air_is_zero_water_is_mu_water_and_metal_is_not_clipped():
    mu = hu_to_mu(torch.tensor([AIR_HU, 0.0, 20000.0], dtype=torch.float64))
    expected = torch.tensor([0.0, MU_WATER_PER_MM, 21 * MU_WATER_PER_MM], dtype=torch.float64)
    torch.testing.assert_close(mu, expected)


def test_attenuation_is_never_negative():
    assert float(hu_to_mu(torch.tensor([-1024.0, -3000.0])).abs().max()) == 0


def test_a_radiograph_is_scaled_by_one_constant_whatever_the_image():
    image = torch.rand(3, 2, 4, 4)
    torch.testing.assert_close(radiograph_to_network(image), RADIOGRAPH_SCALE * image)
    torch.testing.assert_close(radiograph_to_network(image)[:1], radiograph_to_network(image[:1]))


@pytest.mark.parametrize("function", FUNCTIONS)
def test_every_scale_is_monotone_and_leaves_shape_dtype_and_input_alone(function):
    x = hu_line(-0.9, 0.9).reshape(1, 1, 257)
    before = x.clone()
    y = function(x)
    assert y.shape == x.shape and y.dtype == x.dtype
    assert bool((y.diff() > 0).all())
    torch.testing.assert_close(x, before)


def test_integer_hu_become_floating_point():
    hu = torch.tensor([-1024, 0, 1500], dtype=torch.int16)
    torch.testing.assert_close(hu_to_network(hu), hu_to_network(hu.float()))
    torch.testing.assert_close(hu_to_mu(hu), hu_to_mu(hu.float()))
