"""What a detector does to line integrals, in closed form; nothing where the strength is zero, and never NaN."""

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import distance_transform_edt, gaussian_filter

from scripts.physics.detector import add_scatter, blur, collimate, contrast_curve, expose, gaussian_matrix

N, SPACING_MM = 24, 5.0
P = torch.rand(3, 2, N, N, generator=torch.Generator().manual_seed(0)) * 8
ZERO, ONE = torch.zeros(3, 2), torch.ones(3, 2)
WHOLE = torch.tensor([0, N - 1, 0, N - 1]).expand(3, 2, 4)
AT_ZERO_STRENGTH = {
    "scatter": lambda p: add_scatter(p, ZERO, 30.0, SPACING_MM),
    "blur": lambda p: blur(p, ZERO, SPACING_MM),
    "exposure": lambda p: expose(p, 1.0),
    "contrast": lambda p: contrast_curve(p, ONE, 6.0),
    "collimation": lambda p: collimate(p, WHOLE, 4.0),
}
STRONG = {
    "scatter": lambda p: add_scatter(p, ONE, 30.0, SPACING_MM),
    "blur": lambda p: blur(p, 7 * ONE, SPACING_MM),
    "exposure": lambda p: expose(p, 2.0),
    "contrast": lambda p: contrast_curve(p, 0.5 * ONE, 6.0),
    "collimation": lambda p: collimate(p, WHOLE * 0 + 3, 4.0),
}


@pytest.mark.parametrize("effect", AT_ZERO_STRENGTH.values(), ids=AT_ZERO_STRENGTH)
def test_zero_strength_is_the_identity_bit_for_bit(effect):
    assert torch.equal(effect(P), P)
    assert torch.equal(effect(P - 0.1), P - 0.1)  # noise makes the open beam negative


@pytest.mark.parametrize("effect", STRONG.values(), ids=STRONG)
@pytest.mark.parametrize("largest", [0.0, 30.0, 500.0])
def test_no_attenuation_makes_nan_or_infinity(effect, largest):
    metal = torch.zeros(3, 2, N, N)
    metal[..., 5:9, 5:9] = largest
    assert torch.isfinite(effect(metal)).all() and torch.isfinite(effect(metal - 0.3)).all()
    assert torch.isfinite(effect(torch.full_like(metal, largest))).all()


@pytest.mark.parametrize("effect", STRONG.values(), ids=STRONG)
def test_the_image_given_is_left_alone_and_images_do_not_mix(effect):
    before = P.clone()
    whole = effect(P)
    assert torch.equal(P, before)
    other = P.clone()
    other[1:] = 0
    torch.testing.assert_close(effect(other)[0], whole[0])


def test_an_open_beam_brighter_than_believed_is_an_exact_offset():
    torch.testing.assert_close(expose(P, 1.2), P - math.log(1.2))
    factors = torch.tensor([0.5, 2.0])[None, :, None, None]
    gained = P - expose(P, factors)
    torch.testing.assert_close(gained[:, 1] - gained[:, 0], torch.full((3, N, N), math.log(4)), rtol=0, atol=1e-5)


def test_a_wide_uniform_field_has_the_scatter_to_primary_ratio_that_is_stated():
    ratio = torch.tensor([0.05, 0.3])
    p = torch.tensor([2.0, 6.0])[:, None, None].expand(2, N, N)
    torch.testing.assert_close(add_scatter(p, ratio, 30.0, SPACING_MM), p - torch.log1p(ratio[:, None, None] * p))


def test_every_scattered_photon_is_counted_once():
    p = P.double()
    gained = torch.exp(-add_scatter(p, 0.2 * ONE.double(), 30.0, SPACING_MM)) - torch.exp(-p)
    torch.testing.assert_close(gained.sum((2, 3)), 0.2 * (p * torch.exp(-p)).sum((2, 3)))
    assert (gained > 0).all()


def test_an_open_beam_scatters_nothing():
    assert torch.equal(add_scatter(torch.zeros(2, N, N), torch.ones(2), 30.0, SPACING_MM), torch.zeros(2, N, N))


def test_scatter_fills_in_behind_metal():
    p = torch.full((1, N, N), 2.0, dtype=torch.float64)
    p[:, 12, 12] = 200.0
    seen = add_scatter(p, torch.tensor([0.1], dtype=torch.float64), 30.0, SPACING_MM)
    assert seen[0, 12, 12].item() == pytest.approx(-math.log(0.1 * 2 * math.exp(-2)), abs=0.02)


def test_blur_keeps_the_number_of_photons_and_a_uniform_image():
    p = P.double()
    seen = blur(p, 7 * ONE.double(), SPACING_MM)
    torch.testing.assert_close(torch.exp(-seen).mean((2, 3)), torch.exp(-p).mean((2, 3)))
    flat = torch.full((3, 2, N, N), 5.0)
    torch.testing.assert_close(blur(flat, 7 * ONE, SPACING_MM), flat)


@pytest.mark.parametrize("sigma_mm", [3.0, 12.0])
def test_blur_is_scipys_of_the_intensity(sigma_mm):
    p = P[0, 0].double()
    reference = gaussian_filter(np.exp(-p.numpy()), sigma_mm / SPACING_MM, mode="reflect", truncate=12)
    seen = torch.exp(-blur(p, torch.tensor(sigma_mm, dtype=torch.float64), SPACING_MM))
    np.testing.assert_allclose(seen.numpy(), reference, rtol=1e-9)


@pytest.mark.parametrize("frequency", [1, 3, 6])
def test_a_waves_contrast_falls_by_the_gaussian_modulation_transfer(frequency):
    sigma, angle = 1.5, math.pi * frequency / N
    wave = torch.cos(angle * (torch.arange(N, dtype=torch.float64) + 0.5))  # mirrored at its ends as the detector is
    matrix = gaussian_matrix(torch.tensor(sigma, dtype=torch.float64), N)
    torch.testing.assert_close(matrix @ wave, math.exp(-((sigma * angle) ** 2) / 2) * wave, rtol=0, atol=1e-7)


@pytest.mark.parametrize("sigma", [0.0, 0.3, 2.0, 7.0])
def test_smoothing_matrices_are_symmetric_and_sum_to_one_both_ways(sigma):
    matrix = gaussian_matrix(torch.tensor([sigma], dtype=torch.float64), N)[0]
    torch.testing.assert_close(matrix, matrix.mT)
    torch.testing.assert_close(matrix.sum(0), torch.ones(N, dtype=torch.float64), rtol=0, atol=1e-6)


@pytest.mark.parametrize("gamma", [0.7, 1.0, 1.4])
def test_contrast_curves_increase_and_keep_air_and_their_fixed_point(gamma):
    p = torch.linspace(-1, 20, 2101, dtype=torch.float64).expand(1, 1, -1)
    curve = contrast_curve(p, torch.tensor([gamma], dtype=torch.float64), 6.0)[0, 0]
    assert (curve.diff() > 0).all()
    assert curve[100].item() == pytest.approx(0, abs=1e-12) and curve[700].item() == pytest.approx(6)
    assert curve[1300].item() == pytest.approx(6 * 2**gamma)  # at 12
    torch.testing.assert_close(curve[:201], -curve[:201].flip(0))


def test_contrast_curves_are_undone_by_the_inverse_exponent():
    p = 1 + P  # above the straight part, both before and after
    gamma = 1.25 * ONE
    torch.testing.assert_close(contrast_curve(contrast_curve(p, gamma, 6.0), 1 / gamma, 6.0), p)


def test_outside_its_field_an_image_repeats_the_nearest_pixel():
    field = torch.tensor([[[3, 20, 0, 23], [0, 23, 5, 9]], [[7, 7, 11, 11], [2, 21, 4, 19]], [[0, 1, 0, 1]] * 2])
    seen = collimate(P, field, math.inf)
    images, rectangles = (P.flatten(0, 1), seen.flatten(0, 1)), field.flatten(0, 1).tolist()
    for image, made, (top, bottom, left, right) in zip(*images, rectangles, strict=True):
        shown = np.zeros((N, N), bool)
        shown[top : bottom + 1, left : right + 1] = True
        nearest = distance_transform_edt(~shown, return_distances=False, return_indices=True)
        np.testing.assert_array_equal(made.numpy(), image.numpy()[tuple(nearest)])


def test_beside_its_field_an_image_falls_to_air_and_above_and_below_it_goes_on():
    seen = collimate(torch.ones(1, N, N), torch.tensor([[6, 15, 8, 9]]), 4.0)[0]
    expected = torch.ones(N)
    expected[:6], expected[16:] = torch.tensor([0, 0, 0, 0.25, 0.5, 0.75]), torch.tensor([0.75, 0.5, 0.25] + 5 * [0.0])
    assert torch.equal(seen, expected[:, None].expand(N, N))
