import math

import pytest
import torch
from tests.refusal import refused

from scripts.physics.noise import poisson_noise

SAMPLES = 200_000
DEVICES = ("cpu", pytest.param("cuda", marks=pytest.mark.cuda))


def noisy(line_integral, photons=1e4, seed=0, sigma=0.0, count=SAMPLES, device="cpu"):
    clean = torch.full((count,), line_integral, dtype=torch.float64, device=device)
    return poisson_noise(clean, photons, torch.Generator(device).manual_seed(seed), sigma)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("line_integral", [0.0, 1.0, 3.0, 5.0])
def test_variance_is_the_inverse_of_the_expected_count(line_integral, device):
    variance = float(noisy(line_integral, device=device).var())
    assert variance == pytest.approx(math.exp(line_integral) / 1e4, rel=0.05)


@pytest.mark.parametrize("line_integral", [0.0, 1.0, 3.0, 5.0])
def test_mean_is_the_line_integral_plus_half_the_variance(line_integral):
    variance = math.exp(line_integral) / 1e4
    standard_error = math.sqrt(variance / SAMPLES)
    bias = float(noisy(line_integral).mean()) - line_integral
    assert bias == pytest.approx(variance / 2, abs=5 * standard_error + variance**2)


def test_electronic_noise_adds_its_variance_to_that_of_the_photons():
    expected_count = 1e4 * math.exp(-2.0)
    variance = float(noisy(2.0, sigma=30.0).var())
    assert variance == pytest.approx((expected_count + 30.0**2) / expected_count**2, rel=0.05)


def test_many_photons_leave_the_image_clean():
    clean = torch.linspace(0, 4, 100, dtype=torch.float64)
    seen = poisson_noise(clean, 1e12, torch.Generator().manual_seed(0))
    torch.testing.assert_close(seen, clean, atol=1e-4, rtol=0)


def test_a_starved_pixel_reads_one_photon():
    expected = torch.full((8,), math.log(1e4), dtype=torch.float64)
    torch.testing.assert_close(noisy(60.0, count=8), expected)
    assert bool((noisy(60.0, sigma=5.0) <= math.log(1e4)).all())


def test_the_generator_decides_everything():
    first, again, other = noisy(2.0, seed=3, sigma=2.0), noisy(2.0, seed=3, sigma=2.0), noisy(2.0, seed=4, sigma=2.0)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_global_generator_is_left_alone():
    before = torch.get_rng_state()
    noisy(2.0, sigma=2.0, count=10)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shape_dtype_and_input_are_kept(dtype):
    clean = torch.ones(2, 2, 3, 3, dtype=dtype)
    seen = poisson_noise(clean, 1e5, torch.Generator().manual_seed(0))
    assert seen.shape == clean.shape and seen.dtype == dtype
    assert torch.equal(clean, torch.ones_like(clean))


@pytest.mark.parametrize("photons", [0, -5.0, math.nan, math.inf])
def test_photons_must_be_positive_and_finite(photons):
    with refused(ValueError, "photons", "positive", f"got {photons}", "1e5"):
        poisson_noise(torch.ones(1), photons, torch.Generator())


@pytest.mark.parametrize("sigma", [-1.0, math.nan, math.inf])
def test_electronic_noise_must_be_finite_and_not_negative(sigma):
    with refused(ValueError, "electronic_sigma", "not negative", f"got {sigma}"):
        poisson_noise(torch.ones(1), 1e5, torch.Generator(), sigma)
