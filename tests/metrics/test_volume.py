"""Laws of the volume metrics; PSNR and SSIM against scikit-image."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from tests.refusal import refused

from scripts.metrics.volume import (
    TISSUES_HU,
    bias_hu,
    gradient_ratio,
    mae_hu,
    psnr,
    reprojection_error,
    ssim3d,
    tissue_masks,
)


def smooth_volume(seed: int, batch: int = 1) -> torch.Tensor:
    """A CT-like volume ``[B, 1, 18, 16, 20]``: a textured body in uniform air, in [-1, 1]."""
    noise = torch.randn(batch, 1, 18, 16, 20, generator=torch.Generator().manual_seed(seed))
    texture = 4 * F.avg_pool3d(noise, 3, 1, 1)
    return torch.where(F.avg_pool3d(noise, 7, 1, 3) > 0, texture, torch.tensor(-1.0)).clamp(-1, 1)


@pytest.fixture(scope="module")
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    target = smooth_volume(0, batch=2)
    error = torch.tensor([0.1, 0.4]).view(2, 1, 1, 1, 1) * smooth_volume(1, batch=2)
    return target + error, target


def items(pair):
    return [(p.squeeze().double().numpy(), t.squeeze().double().numpy()) for p, t in zip(*pair, strict=True)]


@pytest.mark.parametrize("data_range", [1.0, 2.0, 4095.0])
def test_psnr_is_scikit_images(pair, data_range):
    expected = [peak_signal_noise_ratio(t, p, data_range=data_range) for p, t in items(pair)]
    np.testing.assert_allclose(psnr(*pair, data_range=data_range), expected, rtol=1e-5)


@pytest.mark.parametrize("data_range", [1.0, 2.0])
def test_ssim_is_scikit_images_with_the_gaussian_window(pair, data_range):
    expected = [
        structural_similarity(t, p, data_range=data_range, gaussian_weights=True, use_sample_covariance=False)
        for p, t in items(pair)
    ]
    assert 0.1 < min(expected) < max(expected) < 0.99  # neither end of the scale, where anything agrees
    np.testing.assert_allclose(ssim3d(*pair, data_range=data_range), expected, atol=2e-5)


def test_equal_volumes_have_infinite_psnr_and_unit_ssim(pair):
    target = pair[1]
    assert psnr(target, target, 2.0).isinf().all()
    torch.testing.assert_close(ssim3d(target, target, 2.0), torch.ones(2))


def test_more_noise_means_lower_psnr_and_ssim():
    target, noise = smooth_volume(0), torch.randn(1, 1, 18, 16, 20, generator=torch.Generator().manual_seed(5))
    for metric in (psnr, ssim3d):
        values = [metric(target + s * noise, target, 2.0).item() for s in (0.02, 0.1, 0.5)]
        assert values == sorted(values, reverse=True)


def test_twice_the_data_range_adds_six_decibels(pair):
    gain = psnr(*pair, data_range=2.0) - psnr(*pair, data_range=1.0)
    torch.testing.assert_close(gain, torch.full((2,), 20 * math.log10(2)))


def test_every_item_of_a_batch_is_measured_alone(pair):
    for metric in (lambda p, t: psnr(p, t, 2.0), lambda p, t: ssim3d(p, t, 2.0), mae_hu, bias_hu):
        alone = torch.cat([metric(p[None], t[None]) for p, t in zip(*pair, strict=True)])
        torch.testing.assert_close(metric(*pair), alone)


def test_hu_errors_of_a_constant_shift_are_the_shift():
    target = 1000 * smooth_volume(2)
    for shift in (-40.0, 25.0):
        torch.testing.assert_close(bias_hu(target + shift, target), torch.tensor([shift]), rtol=1e-4, atol=0)
        torch.testing.assert_close(mae_hu(target + shift, target), torch.tensor([abs(shift)]), rtol=1e-4, atol=0)


def test_hu_errors_are_numpys_over_the_mask(pair):
    mask = pair[1] > 0.1
    difference = (pair[0] - pair[1]).numpy()
    expected = [difference[i][mask.numpy()[i]] for i in range(2)]
    np.testing.assert_allclose(bias_hu(*pair, mask), [d.mean() for d in expected], rtol=1e-4)
    np.testing.assert_allclose(mae_hu(*pair, mask), [np.abs(d).mean() for d in expected], rtol=1e-4)


def test_errors_over_an_empty_mask_are_nan(pair):
    empty = torch.zeros_like(pair[1], dtype=torch.bool)
    assert mae_hu(*pair, empty).isnan().all() and bias_hu(*pair, empty).isnan().all()


def test_every_voxel_has_exactly_one_tissue():
    hu = torch.linspace(-1100, 3100, 4201).view(1, 1, 1, 1, -1)
    assert (sum(mask.int() for mask in tissue_masks(hu).values()) == 1).all()


@pytest.mark.parametrize("hu, tissue", [
    (-1000, "air"), (-900.5, "air"), (-900, "lung"), (-700, "lung"), (-500, "soft"), (-100, "soft"), (40, "soft"),
    (199.5, "soft"), (200, "bone"), (3000, "bone"),
])  # fmt: skip
def test_tissues_are_told_apart_by_the_true_hu(hu, tissue):
    masks = tissue_masks(torch.full((1, 1, 1, 1, 1), float(hu)))
    assert [name for name, mask in masks.items() if mask.all()] == [tissue]


def test_tissue_errors_weighted_by_volume_are_the_overall_error(pair):
    prediction, target = 1000 * pair[0], 1000 * pair[1]
    masks = tissue_masks(target)
    assert list(masks) == list(TISSUES_HU)
    for metric in (mae_hu, bias_hu):
        parts = [metric(prediction, target, m).nan_to_num() * m.flatten(1).float().mean(1) for m in masks.values()]
        torch.testing.assert_close(sum(parts), metric(prediction, target), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_gradient_ratio_scales_with_contrast_and_ignores_offsets(axis):
    target = smooth_volume(3)
    torch.testing.assert_close(gradient_ratio(0.3 * target - 5, target, axis), torch.tensor([0.3]), rtol=1e-4, atol=0)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_gradient_ratio_sees_blur_along_its_own_axis_only(axis):
    target = torch.randn(1, 1, 16, 16, 16, generator=torch.Generator().manual_seed(0))
    moved = target.roll(1, dims=axis + 2)
    for other in range(3):
        ratio = gradient_ratio((target + moved) / math.sqrt(2), target, other).item()
        assert (0.6 < ratio < 0.8) if other == axis else (0.95 < ratio < 1.05)


def test_gradient_ratio_of_noise_exceeds_one():
    target = smooth_volume(4)
    noisy = target + 0.5 * torch.randn(target.shape, generator=torch.Generator().manual_seed(1))
    assert all(gradient_ratio(noisy, target, axis).item() > 1.2 for axis in range(3))


def two_sums(mu: torch.Tensor) -> torch.Tensor:
    """A projector of parallel rays: frontal sums over v, lateral over u."""
    return torch.stack([mu.sum(3)[:, 0], mu.sum(2)[:, 0]], dim=1)


def test_reprojection_error_is_the_relative_l2_of_numpy():
    mu, other = (torch.rand(2, 1, 6, 6, 6, generator=torch.Generator().manual_seed(s)) for s in (0, 1))
    error = reprojection_error(other, two_sums(mu), two_sums)
    a, b = two_sums(other).numpy(), two_sums(mu).numpy()
    for i in range(2):
        assert error.together[i] == pytest.approx(np.linalg.norm(a[i] - b[i]) / np.linalg.norm(b[i]), rel=1e-5)
        for view in range(2):
            expected = np.linalg.norm(a[i, view] - b[i, view]) / np.linalg.norm(b[i, view])
            assert error.per_view[i, view] == pytest.approx(expected, rel=1e-5)


def test_reprojection_error_of_the_true_volume_is_zero_and_of_a_scaled_one_its_excess():
    mu = torch.rand(1, 1, 6, 6, 6, generator=torch.Generator().manual_seed(0))
    assert reprojection_error(mu, two_sums(mu), two_sums).together.item() == 0
    scaled = reprojection_error(1.2 * mu, two_sums(mu), two_sums)
    torch.testing.assert_close(torch.cat([scaled.together, scaled.per_view[0]]), torch.full((3,), 0.2))


def test_reprojection_error_blames_the_view_that_differs():
    mu = torch.rand(1, 1, 6, 6, 6, generator=torch.Generator().manual_seed(0))
    measured = two_sums(mu)
    measured[:, 1] *= 2
    frontal, lateral = reprojection_error(mu, measured, two_sums).per_view[0].tolist()
    assert frontal == 0 and lateral == pytest.approx(0.5)


def test_a_view_that_was_not_given_counts_for_nothing_in_the_reprojection_error():
    mu = torch.rand(2, 1, 6, 6, 6, generator=torch.Generator().manual_seed(0))
    both = reprojection_error(1.2 * mu, two_sums(mu), two_sums)
    for view in range(2):
        measured = two_sums(mu)
        measured[:, 1 - view] = 0
        one = reprojection_error(1.2 * mu, measured, two_sums)
        torch.testing.assert_close(one.per_view[:, view], both.per_view[:, view])
        torch.testing.assert_close(one.together, one.per_view[:, view])
        assert one.per_view[:, 1 - view].isnan().all()


@pytest.mark.parametrize("metric", [
    lambda p, t: psnr(p, t, 2.0), lambda p, t: ssim3d(p, t, 2.0), mae_hu, bias_hu, lambda p, t: gradient_ratio(p, t, 0),
    lambda p, t: reprojection_error(p, t, lambda mu: mu),
])  # fmt: skip
def test_volumes_of_different_shape_are_refused(metric):
    with pytest.raises(ValueError, match=r"prediction \(1, 1, 12, 12, 12\) and target \(1, 1, 12, 12, 13\) differ"):
        metric(torch.zeros(1, 1, 12, 12, 12), torch.zeros(1, 1, 12, 12, 13))


@pytest.mark.parametrize("metric", [psnr, ssim3d])
@pytest.mark.parametrize("data_range", [0.0, -1.0, math.inf, math.nan])
def test_a_data_range_that_is_none_is_refused(metric, data_range):
    volume = torch.zeros(1, 1, 12, 12, 12)
    with refused(ValueError, "data_range", "positive", f"got {data_range}"):
        metric(volume, volume, data_range)


@pytest.mark.parametrize("metric", [psnr, ssim3d])
def test_there_is_no_default_data_range(metric):
    with pytest.raises(TypeError, match="data_range"):
        metric(torch.zeros(1, 1, 12, 12, 12), torch.zeros(1, 1, 12, 12, 12))


def test_ssim_refuses_a_volume_smaller_than_its_window():
    volume = torch.zeros(1, 1, 12, 12, 10)
    with refused(ValueError, "at least 11 voxels", "(12, 12, 10)"):
        ssim3d(volume, volume, 2.0)
