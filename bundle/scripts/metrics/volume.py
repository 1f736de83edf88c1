"""Metrics of whole volumes, one value per item of the batch.

Volumes are ``[B, 1, U, V, W]``; functions return ``[B]`` unless they say otherwise. Nothing is normalised: the data
range is an argument without default, because a range that does not fit the data (2 for data of range 1, 4095 for
[0, 2500]) inflates PSNR and SSIM. Every function raises ValueError if prediction and target differ in shape.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from monai.metrics import PSNRMetric, SSIMMetric
from torch import Tensor

SSIM_WINDOW = 11
"""Voxels along each side of SSIM's Gaussian window."""
SSIM_SIGMA = 1.5
"""Standard deviation of SSIM's Gaussian window in voxels (Wang et al. 2004, doi:10.1109/TIP.2003.819861)."""
TISSUES_HU = {
    "air": (-math.inf, -900.0),
    "lung": (-900.0, -500.0),
    "soft": (-500.0, 200.0),
    "bone": (200.0, math.inf),
}
"""Half-open HU intervals [low, high) that partition all voxels by the true CT, by attenuation and not by organ: *air*
lies outside the body, in airways and in emphysema; *soft* includes fat and partial volume; *bone* includes metal and
dense contrast medium."""


def psnr(prediction: Tensor, target: Tensor, data_range: float) -> Tensor:
    """Return the PSNR over all voxels in dB: 10 log10(data_range^2 / MSE); infinite for equal volumes.

    Args:
        prediction: ``[B, 1, U, V, W]``.
        target: ``[B, 1, U, V, W]``.
        data_range: largest minus smallest possible value, 2 for the networks' [-1, 1].
    """
    check_same_shape("psnr", prediction, target)
    return values_of(PSNRMetric(checked_range("psnr", data_range)), prediction, target)


def ssim3d(prediction: Tensor, target: Tensor, data_range: float) -> Tensor:
    """Return the structural similarity, averaged over all 3D windows that lie inside the volume.

    Gaussian window of ``SSIM_WINDOW`` voxels and ``SSIM_SIGMA``, population covariance, K1 = 0.01, K2 = 0.03, as in
    Wang et al. 2004; scikit-image's ``structural_similarity(gaussian_weights=True, use_sample_covariance=False)``.

    Args:
        prediction: ``[B, 1, U, V, W]``, at least ``SSIM_WINDOW`` voxels along each axis.
        target: same shape as ``prediction``.
        data_range: as in :func:`psnr`.
    """
    check_same_shape("ssim3d", prediction, target)
    if min(target.shape[2:]) < SSIM_WINDOW:
        raise ValueError(
            f"ssim3d: volumes need at least {SSIM_WINDOW} voxels along each axis, like the window, got "
            f"{tuple(target.shape[2:])}; use a larger volume"
        )
    metric = SSIMMetric(3, checked_range("ssim3d", data_range), win_size=SSIM_WINDOW, kernel_sigma=SSIM_SIGMA)
    return values_of(metric, prediction, target)


def mae_hu(prediction_hu: Tensor, target_hu: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return the mean absolute error in HU over the voxels of ``mask`` (all by default); NaN if it is empty."""
    check_same_shape("mae_hu", prediction_hu, target_hu)
    return _mean((prediction_hu - target_hu).abs(), mask)


def bias_hu(prediction_hu: Tensor, target_hu: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return the mean of prediction minus target in HU over the voxels of ``mask`` (all by default); NaN if empty."""
    check_same_shape("bias_hu", prediction_hu, target_hu)
    return _mean(prediction_hu - target_hu, mask)


def tissue_masks(target_hu: Tensor) -> dict[str, Tensor]:
    """Return a bool mask per tissue of ``TISSUES_HU`` in the true CT; every voxel is in exactly one mask."""
    return {name: (target_hu >= low) & (target_hu < high) for name, (low, high) in TISSUES_HU.items()}


def gradient_ratio(prediction: Tensor, target: Tensor, axis: int) -> Tensor:
    """Return the sharpness: mean absolute first difference along a volume axis, prediction over target.

    1 is as much detail as in the truth, below 1 is blur, above 1 noise. A constant offset of either volume does not
    matter, nor does the unit if both have the same. NaN or infinite for a constant target.

    Args:
        prediction: ``[B, 1, U, V, W]``.
        target: ``[B, 1, U, V, W]``.
        axis: 0 for u, 1 for v, 2 for w.
    """
    check_same_shape("gradient_ratio", prediction, target)
    roughness, truth = (_mean(volume.diff(dim=axis + 2).abs()) for volume in (prediction, target))
    return roughness / truth


class ReprojectionError(NamedTuple):
    """Relative L2 errors of re-projected line integrals: all views together ``[B]``, and ``per_view`` ``[B, 2]``.

    A view that is 0 everywhere counts as missing: it is ignored, and its own error is NaN.
    """

    together: Tensor
    per_view: Tensor


def reprojection_error(mu: Tensor, line_integrals: Tensor, projector: Callable[[Tensor], Tensor]) -> ReprojectionError:
    """Return the error of a volume's projections relative to the radiographs it was reconstructed from.

    A small error is necessary, not sufficient: many wrong volumes have the right projections.

    Args:
        mu: attenuation ``[B, 1, U, V, W]`` in 1/mm.
        line_integrals: the input ``[B, 2, N, N]``, dimensionless.
        projector: maps ``mu`` to line integrals.
    """
    reprojected = projector(mu)
    check_same_shape("reprojection_error", reprojected, line_integrals)
    squared_error, squared = (reprojected - line_integrals).square().sum((2, 3)), line_integrals.square().sum((2, 3))
    together = squared_error.where(squared > 0, 0).sum(1) / squared.sum(1)
    per_view = (squared_error / squared).where(squared > 0, math.nan)
    return ReprojectionError(together.sqrt(), per_view.sqrt())


def _mean(values: Tensor, mask: Tensor | None = None) -> Tensor:
    if mask is None:
        return values.flatten(1).mean(1)
    return (values * mask).flatten(1).sum(1) / mask.flatten(1).sum(1)


def values_of(metric: Callable[..., Any], prediction: Tensor, target: Tensor, **options: Any) -> Tensor:
    """Return the value of a MONAI metric for each item of the batch, ``[B]``."""
    return metric(prediction, target, **options).flatten()


def check_same_shape(name: str, prediction: Tensor, target: Tensor) -> None:
    """Raise ValueError, naming the metric, unless both volumes have the same shape."""
    if prediction.shape != target.shape:
        raise ValueError(
            f"{name}: prediction {tuple(prediction.shape)} and target {tuple(target.shape)} differ in shape; resample "
            "one to the other's grid"
        )


def checked_range(name: str, data_range: float) -> float:
    """Return ``data_range``; raise ValueError, naming the metric, unless it is positive and finite."""
    if not 0 < data_range < math.inf:
        raise ValueError(
            f"{name}: data_range must be positive, the largest minus the smallest possible value, got {data_range!r}"
        )
    return data_range
