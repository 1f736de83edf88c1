"""Metrics averaged over all slices of a volume along each of the three axes, as papers report them.

Volumes are ``[B, 1, U, V, W]``. Every function raises ValueError if prediction and target differ in shape. PSNR over
slices is larger than over the volume (the mean of logarithms rewards slices that are nearly empty), so the two must not
be compared with each other.
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
"""Names of the slices across u, v and w."""
LARGEST_SLICE_PSNR = 100.0
"""PSNR in dB of a slice without error."""
X2CT_AIR_HU = -1000.0
"""The HU that is 0 on X2CT-GAN's scale."""
X2CT_RANGE = 2500.0
"""Width of that scale in HU; values outside it are clipped."""
X2CT_PEAK = 4095.0
"""Peak in X2CT-GAN's PSNR, although its scale ends at 2500, which adds 4.29 dB."""
X2CT_SSIM_WINDOW = 7
"""Pixels along each side of X2CT-GAN's uniform SSIM window."""
Metric = Callable[[Tensor, Tensor], Any]


def slices(volume: Tensor, axis: int) -> Tensor:
    """Return all slices across an axis (0, 1, 2 for u, v, w), ``[B, n, rows, columns]``, as a radiologist sees them.

    Superior (axial: anterior) is up, the patient's right (sagittal: anterior) on the left.
    """
    return volume[:, 0].movedim(axis + 1, 1).flip((-2, -1)).transpose(-2, -1)


def slice_psnr(prediction: Tensor, target: Tensor, data_range: float) -> Tensor:
    """Return the PSNR in dB, averaged over the slices across each axis, ``[B, 3]``.

    A slice without error would make the mean infinite, so the PSNR of every slice is capped at 100 dB. Leaving such
    slices out instead would average over different slices for different methods.

    Args:
        prediction: ``[B, 1, U, V, W]``.
        target: ``[B, 1, U, V, W]``.
        data_range: largest minus smallest possible value, 2 for the networks' [-1, 1].
    """
    check_same_shape("slice_psnr", prediction, target)

    def capped(p: Tensor, t: Tensor) -> Tensor:
        return psnr(p, t, data_range).clamp(max=LARGEST_SLICE_PSNR)

    return _mean_over_slices(capped, prediction, target)


def slice_ssim(prediction: Tensor, target: Tensor, data_range: float) -> Tensor:
    """Return the SSIM, averaged over the slices across each axis, ``[B, 3]``; 1 for a slice without error.

    Gaussian window and constants as in :func:`~scripts.metrics.volume.ssim3d`, in 2D.

    Args:
        prediction: ``[B, 1, U, V, W]``, at least ``SSIM_WINDOW`` voxels along each axis.
        target: same shape as ``prediction``.
        data_range: as in :func:`slice_psnr`.
    """
    _check_windowed("slice_ssim", prediction, target, SSIM_WINDOW)
    metric = SSIMMetric(2, checked_range("slice_ssim", data_range), win_size=SSIM_WINDOW, kernel_sigma=SSIM_SIGMA)
    return _mean_over_slices(metric, prediction, target)


class X2ctCompat(NamedTuple):
    """PSNR in dB and SSIM as defined in X2CT-GAN's test script, each ``[B]``."""

    psnr_db: Tensor
    ssim: Tensor


def x2ct_compat(prediction_hu: Tensor, target_hu: Tensor) -> X2ctCompat:
    """Return PSNR and SSIM as defined in X2CT-GAN's test script, only for comparison with the literature.

    Both volumes are converted to its scale: HU + 1000, clipped to [0, 2500]. Its files do not state the offset of their
    data; 1000 is the number that its DRR script subtracts, and makes the top of the networks' range, 1500 HU, the top
    of the scale. PSNR: voxels truncated to integers, peak 4095, 100 dB for a slice without error, mean over the slices
    of each axis, then over the axes. SSIM: the same means, with scikit-image's defaults (uniform window of 7 pixels,
    sample covariance) and data range 2500. That script measured 128^3 voxels of 2.5 mm; other grids give other numbers.

    Args:
        prediction_hu: ``[B, 1, U, V, W]`` in HU, at least ``X2CT_SSIM_WINDOW`` voxels along each axis.
        target_hu: same shape as ``prediction_hu``, in HU.
    """
    _check_windowed("x2ct_compat", prediction_hu, target_hu, X2CT_SSIM_WINDOW)
    scaled = [(hu - X2CT_AIR_HU).clamp(0, X2CT_RANGE) for hu in (prediction_hu, target_hu)]

    def psnr_of_integers(p: Tensor, t: Tensor) -> Tensor:
        values = psnr(p.trunc(), t.trunc(), X2CT_PEAK)
        return values.masked_fill(values.isinf(), LARGEST_SLICE_PSNR)

    # sample covariance multiplies all (co)variances by n / (n - 1), which amounts to dividing C2 = (K2 * range)^2 by it
    n = X2CT_SSIM_WINDOW**2
    k2 = 0.03 * math.sqrt((n - 1) / n)
    ssim = SSIMMetric(2, X2CT_RANGE, kernel_type="uniform", win_size=X2CT_SSIM_WINDOW, k2=k2)
    return X2ctCompat(*(_mean_over_slices(metric, *scaled).mean(1) for metric in (psnr_of_integers, ssim)))


def _mean_over_slices(metric: Metric, prediction: Tensor, target: Tensor) -> Tensor:
    """Return ``[B, 3]``: means over the slices across each axis of ``metric``, which takes images ``[N, 1, H, W]``."""
    columns = []
    for axis in range(len(AXES)):
        p, t = (slices(volume, axis).flatten(0, 1)[:, None] for volume in (prediction, target))
        columns.append(metric(p, t).view(len(prediction), -1).mean(1))
    return torch.stack(columns, dim=1)


def _check_windowed(name: str, prediction: Tensor, target: Tensor, window: int) -> None:
    check_same_shape(name, prediction, target)
    if min(target.shape[2:]) < window:
        raise ValueError(
            f"{name}: volumes need at least {window} voxels along each axis, like the window, got "
            f"{tuple(target.shape[2:])}; use a larger volume"
        )
