"""Metrics of all slices of volumes along the three axes, as papers report them; means over the slices of a volume.

Volumes are ``[B, 1, U, V, W]``. Every function raises ValueError if prediction and target differ in shape. PSNR over
slices is larger than over the volume (the mean of logarithms rewards slices that are nearly empty), so the two are
never compared with each other.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from monai.metrics import SSIMMetric
from torch import Tensor

from scripts.metrics.volume import SSIM_SIGMA, SSIM_WINDOW, check_same_shape, checked_range, psnr

AXES = "uvw"
"""Slices across u are sagittal, across v coronal, across w axial."""
LARGEST_SLICE_PSNR = 100.0
"""dB, for a slice without error."""
X2CT_AIR_HU = -1000.0
"""HU that is 0 on X2CT-GAN's scale."""
X2CT_RANGE = 2500.0
"""Width of that scale in HU; what lies outside is clipped."""
X2CT_PEAK = 4095.0
"""The peak that X2CT-GAN's PSNR takes, though its scale ends at 2500: this adds 4.29 dB."""
X2CT_SSIM_WINDOW = 7
"""Pixels along each side of X2CT-GAN's uniform SSIM window."""
Metric = Callable[[Tensor, Tensor], Any]


def slices(volume: Tensor, axis: int) -> Tensor:
    """All slices across one axis (0, 1, 2 for u, v, w), ``[B, n, rows, columns]``, as a radiologist sees them.

    Superior (axial: anterior) is up, the patient's right (sagittal: anterior) on the left.
    """
    return volume[:, 0].movedim(axis + 1, 1).flip((-2, -1)).transpose(-2, -1)


def slice_psnr(prediction: Tensor, target: Tensor, data_range: float) -> Tensor:
    """PSNR of every slice in dB, averaged over the slices across each axis, ``[B, 3]``.

    A slice without error would have an infinite PSNR, and the mean with it: every slice counts with 100 dB at most.
    Leaving it out instead would average over other slices for one method than for another.

    Args:
        prediction: ``[B, 1, U, V, W]``.
        target: likewise.
        data_range: largest minus smallest possible value, 2 for the networks' [-1, 1].
    """
    check_same_shape("slice_psnr", prediction, target)

    def capped(p: Tensor, t: Tensor) -> Tensor:
        return psnr(p, t, data_range).clamp(max=LARGEST_SLICE_PSNR)

    return _mean_over_slices(capped, prediction, target)


def slice_ssim(prediction: Tensor, target: Tensor, data_range: float) -> Tensor:
    """SSIM of every slice, averaged over the slices across each axis, ``[B, 3]``; 1 for a slice without error.

    Gaussian window and constants as in :func:`~scripts.metrics.volume.ssim3d`, in 2D.

    Args:
        prediction: ``[B, 1, U, V, W]``, at least ``SSIM_WINDOW`` voxels along each axis.
        target: likewise.
        data_range: as in :func:`slice_psnr`.
    """
    _check_windowed("slice_ssim", prediction, target, SSIM_WINDOW)
    metric = SSIMMetric(2, checked_range("slice_ssim", data_range), win_size=SSIM_WINDOW, kernel_sigma=SSIM_SIGMA)
    return _mean_over_slices(metric, prediction, target)


class X2ctCompat(NamedTuple):
    """PSNR in dB and SSIM as X2CT-GAN's test script has them, each ``[B]``."""

    psnr_db: Tensor
    ssim: Tensor


def x2ct_compat(prediction_hu: Tensor, target_hu: Tensor) -> X2ctCompat:
    """PSNR and SSIM by the definitions of X2CT-GAN's test script, only for comparison with the literature.

    Both volumes go to its scale: HU + 1000, clipped to [0, 2500]. Its files do not say which offset theirs had; 1000 is
    what its DRR script subtracts, and makes the top of the networks' range, 1500 HU, the top of the scale. PSNR: voxels
    cut to integers, peak 4095, 100 dB for a slice without error, mean over the slices of each axis, then over the axes.
    SSIM: the same means, of scikit-image's default (uniform window of 7 pixels, sample covariance) with data range
    2500. That script measured 128^3 voxels of 2.5 mm; other voxels give other numbers.

    Args:
        prediction_hu: ``[B, 1, U, V, W]`` in HU, at least ``X2CT_SSIM_WINDOW`` voxels along each axis.
        target_hu: likewise.
    """
    _check_windowed("x2ct_compat", prediction_hu, target_hu, X2CT_SSIM_WINDOW)
    scaled = [(hu - X2CT_AIR_HU).clamp(0, X2CT_RANGE) for hu in (prediction_hu, target_hu)]

    def psnr_of_integers(p: Tensor, t: Tensor) -> Tensor:
        values = psnr(p.trunc(), t.trunc(), X2CT_PEAK)
        return values.masked_fill(values.isinf(), LARGEST_SLICE_PSNR)

    # sample covariance multiplies all (co)variances by n / (n - 1), which is to divide C2 = (K2 * range)^2 by it
    n = X2CT_SSIM_WINDOW**2
    k2 = 0.03 * math.sqrt((n - 1) / n)
    ssim = SSIMMetric(2, X2CT_RANGE, kernel_type="uniform", win_size=X2CT_SSIM_WINDOW, k2=k2)
    return X2ctCompat(*(_mean_over_slices(metric, *scaled).mean(1) for metric in (psnr_of_integers, ssim)))


def _mean_over_slices(metric: Metric, prediction: Tensor, target: Tensor) -> Tensor:
    """``[B, 3]``: the mean of ``metric``, which takes images ``[N, 1, H, W]``, over the slices across each axis."""
    columns = []
    for axis in range(len(AXES)):
        p, t = (slices(volume, axis).flatten(0, 1)[:, None] for volume in (prediction, target))
        columns.append(metric(p, t).view(len(prediction), -1).mean(1))
    return torch.stack(columns, dim=1)


def _check_windowed(name: str, prediction: Tensor, target: Tensor, window: int) -> None:
    check_same_shape(name, prediction, target)
    if min(target.shape[2:]) < window:
        raise ValueError(
            f"{name}: volumes need at least {window} voxels along each axis, the window's, got "
            f"{tuple(target.shape[2:])}; use a larger volume"
        )
