"""Laws of the slice metrics; PSNR and SSIM against scikit-image, slice by slice."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from tests.refusal import refused

from scripts.metrics.slices import slice_psnr, slice_ssim, slices, x2ct_compat
from scripts.metrics.volume import psnr
from scripts.report.figure import as_displayed

GAUSSIAN = {"gaussian_weights": True, "use_sample_covariance": False}


def body(seed: int) -> torch.Tensor:
    """A textured body in uniform air, ``[2, 1, 14, 12, 16]`` in [-1, 1]."""
    noise = torch.randn(2, 1, 14, 12, 16, generator=torch.Generator().manual_seed(seed))
    return torch.where(F.avg_pool3d(noise, 7, 1, 3) > 0, 4 * F.avg_pool3d(noise, 3, 1, 1), -1.0).clamp(-1, 1)


@pytest.fixture(scope="module")
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    target = body(0)
    return target + torch.tensor([0.1, 0.4]).view(2, 1, 1, 1, 1) * body(1), target


@pytest.fixture(scope="module")
def pair_hu(pair) -> list[torch.Tensor]:
    """Not whole HU, and beyond both ends of X2CT-GAN's scale."""
    return [250 + 1400 * volume for volume in pair]


def by_slice(metric, prediction: np.ndarray, target: np.ndarray) -> np.ndarray:
    """``[B, 3]``: means over slices of a metric of two images, by plain indexing."""
    return np.array(
        [
            [np.mean([metric(t.take(i, axis), p.take(i, axis)) for i in range(t.shape[axis])]) for axis in range(3)]
            for p, t in zip(prediction[:, 0], target[:, 0], strict=True)
        ]
    )


def arrays(volumes) -> list[np.ndarray]:
    return [volume.double().numpy() for volume in volumes]


@pytest.mark.parametrize("data_range", [1.0, 2.0])
def test_psnr_is_scikit_images_slice_by_slice(pair, data_range):
    def theirs(t, p, data_range=data_range):
        return peak_signal_noise_ratio(t, p, data_range=data_range)

    ours = slice_psnr(*pair, data_range).numpy()
    np.testing.assert_allclose(ours, by_slice(theirs, *arrays(pair)), rtol=1e-5)
    assert (np.abs(ours - by_slice(lambda t, p: theirs(t, p, 1.1 * data_range), *arrays(pair))) > 0.5).all()


@pytest.mark.parametrize("data_range", [1.0, 2.0])
def test_ssim_is_scikit_images_slice_by_slice_with_the_gaussian_window(pair, data_range):
    def theirs(t, p, **options):
        return structural_similarity(t, p, data_range=data_range, **GAUSSIAN | options)

    ours = slice_ssim(*pair, data_range).numpy()
    assert 0.1 < ours.min() < ours.max() < 0.99  # neither end of the scale, where anything agrees
    np.testing.assert_allclose(ours, by_slice(theirs, *arrays(pair)), atol=2e-5)
    for other in ({"gaussian_weights": False}, {"K2": 0.05}, {"sigma": 1.3, "win_size": 11}):
        assert np.abs(ours - by_slice(lambda t, p, o=other: theirs(t, p, **o), *arrays(pair))).max() > 2e-3, other


def test_equal_volumes_have_a_hundred_decibels_and_unit_ssim(pair):
    target = pair[1]
    assert (slice_psnr(target, target, 2.0) == 100).all()
    torch.testing.assert_close(slice_ssim(target, target, 2.0), torch.ones(2, 3))


def test_a_slice_without_error_counts_with_a_hundred_decibels():
    target = body(0)[:1]
    prediction = target.clone()
    prediction[..., 5] += 0.2  # of 16 axial slices
    mean = slice_psnr(prediction, target, 2.0)[0, 2].item()
    assert mean == pytest.approx((15 * 100 + 20 * math.log10(2 / 0.2)) / 16, rel=1e-5)


def test_a_slice_almost_without_error_counts_no_more_than_one_without(pair):
    target = pair[1]
    assert (slice_psnr(target + 1e-6, target, 2.0) == 100).all()


def test_psnr_over_slices_exceeds_psnr_of_the_volume(pair):
    assert (slice_psnr(*pair, 2.0) >= psnr(*pair, 2.0)[:, None]).all()


@pytest.mark.parametrize("metric", [slice_psnr, slice_ssim])
def test_axes_are_told_apart(pair, metric):
    turned = metric(*(volume.permute(0, 1, 4, 2, 3) for volume in pair), 2.0)  # u, v, w become w, u, v
    expected = metric(*pair, 2.0)[:, [2, 0, 1]]
    torch.testing.assert_close(turned, expected)
    assert (expected[:, 0] - expected[:, 1]).abs().min() > 1e-4


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slices_are_shown_as_in_the_figures(axis):
    volume = torch.randn(1, 1, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    shown = slices(volume, axis)
    assert shown.shape[1] == volume.shape[axis + 2]
    for i, picture in enumerate(shown[0]):
        np.testing.assert_array_equal(picture, as_displayed(volume[0, 0].numpy().take(i, axis)))


def x2ct_psnr(pair_hu, whole=np.trunc, peak=4095.0) -> np.ndarray:
    def theirs(t, p):
        return peak_signal_noise_ratio(t, p, data_range=peak) if (t != p).any() else 100.0

    return by_slice(theirs, *(whole((hu + 1000).clip(0, 2500)) for hu in arrays(pair_hu))).mean(1)


def x2ct_ssim(pair_hu, **options) -> np.ndarray:
    def theirs(t, p):
        return structural_similarity(t, p, data_range=1.0, **options)

    return by_slice(theirs, *((hu + 1000).clip(0, 2500) / 2500 for hu in arrays(pair_hu))).mean(1)


def test_x2ct_compat_psnr_is_of_integers_with_peak_4095(pair_hu):
    near = [pair_hu[1] + 0.6 * body(2), pair_hu[1]]  # where it matters that voxels are cut to integers
    for volumes in (pair_hu, near):
        np.testing.assert_allclose(x2ct_compat(*volumes).psnr_db, x2ct_psnr(volumes), rtol=1e-5)
    assert np.abs(x2ct_compat(*near).psnr_db.numpy() - x2ct_psnr(near, whole=np.asarray)).min() > 0.1


def test_x2ct_compat_psnr_exceeds_that_of_the_true_range_by_four_decibels(pair_hu):
    gain = x2ct_compat(*pair_hu).psnr_db.numpy() - x2ct_psnr(pair_hu, peak=2500.0)
    np.testing.assert_allclose(gain, 20 * math.log10(4095 / 2500), rtol=1e-4)


def test_x2ct_compat_ssim_is_scikit_images_default(pair_hu):
    ours = x2ct_compat(*pair_hu).ssim.numpy()
    np.testing.assert_allclose(ours, x2ct_ssim(pair_hu), atol=1e-5)
    for other in ({"use_sample_covariance": False}, GAUSSIAN, {"win_size": 9}):
        assert np.abs(ours - x2ct_ssim(pair_hu, **other)).max() > 1e-4, other


def test_x2ct_compat_does_not_see_beyond_its_scale(pair_hu):
    prediction, target = pair_hu
    outside = (target < -1000) | (target > 1500)
    assert outside.any()
    other = torch.where(outside, 3 * target, target)
    for ours, same in zip(x2ct_compat(prediction, target), x2ct_compat(prediction, other), strict=True):
        torch.testing.assert_close(ours, same)


def test_x2ct_compat_counts_slices_without_error_with_a_hundred_decibels(pair_hu):
    compat = x2ct_compat(pair_hu[1], pair_hu[1])
    assert (compat.psnr_db == 100).all()
    torch.testing.assert_close(compat.ssim, torch.ones(2))


def test_every_item_of_a_batch_is_measured_alone(pair, pair_hu):
    for metric in (lambda p, t: slice_psnr(p, t, 2.0), lambda p, t: slice_ssim(p, t, 2.0)):
        torch.testing.assert_close(metric(*pair)[1:], metric(*(volume[1:] for volume in pair)))
    for both, alone in zip(x2ct_compat(*pair_hu), x2ct_compat(*(hu[1:] for hu in pair_hu)), strict=True):
        torch.testing.assert_close(both[1:], alone)


METRICS = [lambda p, t: slice_psnr(p, t, 2.0), lambda p, t: slice_ssim(p, t, 2.0), x2ct_compat]


@pytest.mark.parametrize("metric", METRICS)
def test_volumes_of_different_shape_are_refused(metric):
    with pytest.raises(ValueError, match=r"prediction \(1, 1, 12, 12, 12\) and target \(1, 1, 12, 12, 13\) differ"):
        metric(torch.zeros(1, 1, 12, 12, 12), torch.zeros(1, 1, 12, 12, 13))


@pytest.mark.parametrize("metric, window", [(METRICS[1], 11), (METRICS[2], 7)])
def test_volumes_smaller_than_the_window_are_refused(metric, window):
    volume = torch.zeros(1, 1, 12, 12, window - 1)
    with refused(ValueError, f"at least {window} voxels", f"(12, 12, {window - 1})"):
        metric(volume, volume)


@pytest.mark.parametrize("metric", [slice_psnr, slice_ssim])
def test_the_data_range_must_be_given_and_be_one(metric):
    volume = torch.zeros(1, 1, 12, 12, 12)
    with pytest.raises(TypeError, match="data_range"):
        metric(volume, volume)
    for value in (0.0, -1.0, math.inf, math.nan):
        with refused(ValueError, "data_range", "positive", f"got {value}"):
            metric(volume, volume, value)
