"""The measurements made on every reconstruction, the same for all methods (see docs: evaluation protocol)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from scripts.intensity import NETWORK_HU_RANGE, hu_to_mu, network_to_hu
from scripts.metrics.skeleton import bone_dice, bone_precision, bone_recall, bone_volume_ratio
from scripts.metrics.slices import AXES, LARGEST_SLICE_PSNR, slice_psnr, slice_ssim, x2ct_compat
from scripts.metrics.volume import (
    SSIM_SIGMA,
    SSIM_WINDOW,
    TISSUES_HU,
    bias_hu,
    gradient_ratio,
    mae_hu,
    psnr,
    reprojection_error,
    ssim3d,
    tissue_masks,
)

DATA_RANGE = 2.0
"""Data range of volumes in the network's range, [-1, 1]."""
BONE_HU = TISSUES_HU["bone"][0]
"""HU from which a voxel counts as bone, in the truth and in the prediction."""
NOTES = (
    "A method's own column measures a single volume per case (the first of several samples); the mean of the samples "
    "has a separate column.",
    "`psnr3d_db`, `ssim3d`: over the whole volume in the network's range, [-1, 1], with data range "
    f"{DATA_RANGE:g}; SSIM with a 3D Gaussian window of {SSIM_WINDOW} voxels, sigma {SSIM_SIGMA}.",
    "`psnr2d_u_db`, `psnr2d_v_db`, `psnr2d_w_db`, `ssim2d_u`, `_v`, `_w`: the same for every slice across the axis "
    "(sagittal, coronal, axial; 2D window), averaged over the slices; `psnr2d_db`, `ssim2d`: the mean of the three, as "
    f"papers report it. The PSNR of a slice is capped at {LARGEST_SLICE_PSNR:g} dB, even without any error, so empty "
    "slices raise the mean.",
    "`x2ct_compat_psnr_db`, `x2ct_compat_ssim`: as in X2CT-GAN's test script, for comparison with the literature "
    "only: HU + 1000 clipped to [0, 2500]; PSNR of integers with peak 4095 (which adds 4.29 dB), 100 dB for a slice "
    "without error; SSIM with a uniform window of 7 pixels; means over the slices of the three axes.",
    "`mae_hu`, `bias_hu` (prediction minus truth): over all voxels, and by tissue, chosen by the true HU: "
    + "; ".join(f"{name} [{low:g}, {high:g})" for name, (low, high) in TISSUES_HU.items())
    + ". The truth is clipped to [{:g}, {:g}] HU.".format(*NETWORK_HU_RANGE),
    f"`bone_dice`: Dice of the voxels of at least {BONE_HU:g} HU in prediction and truth, both clipped to that range. "
    "`bone_precision`: share of predicted bone voxels with a true one within one voxel, diagonals included; "
    "`bone_recall`: share of true bone voxels with a predicted one as near; `bone_volume_ratio`: number of predicted "
    "over true bone voxels, below 1 is lost bone. Metal and dense contrast medium count as bone. Each is omitted where "
    "there is no bone to count: a method that finds none in a case has no precision there, and its mean covers fewer "
    "cases (n).",
    "`gradient_ratio_u`, `_v`, `_w`: mean absolute difference between neighbouring voxels along the axis, prediction "
    "over truth; below 1 is blur.",
    "`reprojection`: relative L2 error between the projected prediction and the input line integrals, for both views "
    "together and for each view that was given. A small error is necessary, not sufficient. Metal exceeds the clipped "
    "range, so it leaves an error even for the truth.",
    "`seconds`: wall time to make the volume.",
)
"""Explanations of the columns, for readers of a table."""


def measure(
    prediction: Tensor, target: Tensor, line_integrals: Tensor, projector: Callable[[Tensor], Tensor]
) -> dict[str, float]:
    """Return all metrics of one reconstruction by column name; NaN for an absent tissue or view.

    Args:
        prediction: ``[1, 1, U, V, W]`` in the network's range.
        target: the true volume, same shape and range.
        line_integrals: the input radiographs ``[1, 2, N, N]``, dimensionless; a missing view is 0.
        projector: maps attenuation in 1/mm to line integrals.

    Raises:
        ValueError: the prediction holds NaN or infinity, or its shape differs from the target's.
    """
    broken = int((~torch.isfinite(prediction)).sum())
    if broken:
        raise ValueError(
            f"{broken} of {prediction.numel()} voxels of the reconstruction are NaN or infinite; check the weights, "
            "or switch mixed precision off with --amp false"
        )
    prediction_hu, target_hu = network_to_hu(prediction), network_to_hu(target)
    row = {
        "psnr3d_db": psnr(prediction, target, DATA_RANGE),
        "ssim3d": ssim3d(prediction, target, DATA_RANGE),
        **_slice_metrics(prediction, target),
        **_hu_errors(prediction_hu, target_hu),
        "bone_dice": bone_dice(prediction_hu, target_hu, BONE_HU),
        "bone_precision": bone_precision(prediction_hu, target_hu, BONE_HU),
        "bone_recall": bone_recall(prediction_hu, target_hu, BONE_HU),
        "bone_volume_ratio": bone_volume_ratio(prediction_hu, target_hu, BONE_HU),
    }
    compat = x2ct_compat(prediction_hu, target_hu)
    row |= {"x2ct_compat_psnr_db": compat.psnr_db, "x2ct_compat_ssim": compat.ssim}
    for axis, name in enumerate(AXES):
        row[f"gradient_ratio_{name}"] = gradient_ratio(prediction, target, axis)
    error = reprojection_error(hu_to_mu(prediction_hu), line_integrals, projector)
    row |= {"reprojection": error.together}
    row |= {"reprojection_frontal": error.per_view[:, 0], "reprojection_lateral": error.per_view[:, 1]}
    return {name: value.item() for name, value in row.items()}


def _slice_metrics(prediction: Tensor, target: Tensor) -> dict[str, Tensor]:
    row = {}
    for name, metric, unit in (("psnr2d", slice_psnr, "_db"), ("ssim2d", slice_ssim, "")):
        values = metric(prediction, target, DATA_RANGE)
        row[name + unit] = values.mean(1)
        row |= {f"{name}_{axis}{unit}": values[:, i] for i, axis in enumerate(AXES)}
    return row


def _hu_errors(prediction_hu: Tensor, target_hu: Tensor) -> dict[str, Tensor]:
    row = {"mae_hu": mae_hu(prediction_hu, target_hu), "bias_hu": bias_hu(prediction_hu, target_hu)}
    for tissue, mask in tissue_masks(target_hu).items():
        row[f"mae_{tissue}_hu"] = mae_hu(prediction_hu, target_hu, mask)
        row[f"bias_{tissue}_hu"] = bias_hu(prediction_hu, target_hu, mask)
    return row
