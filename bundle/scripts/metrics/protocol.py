"""What is measured on every reconstruction, so that all methods are measured alike (see docs: evaluation protocol)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from scripts.intensity import NETWORK_HU_RANGE, hu_to_mu, network_to_hu
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
"""Of volumes in the network's range, [-1, 1]."""
NOTES = (
    "A method's own column is a single volume per case (of several samples the first); their mean is a column of its "
    "own.",
    "`psnr3d_db`, `ssim3d`: over the whole volume in the network's range, [-1, 1], with data range "
    f"{DATA_RANGE:g}; SSIM with a 3D Gaussian window of {SSIM_WINDOW} voxels, sigma {SSIM_SIGMA}.",
    "`mae_hu`, `bias_hu` (prediction minus truth): over all voxels, and by tissue, chosen by the true HU: "
    + "; ".join(f"{name} [{low:g}, {high:g})" for name, (low, high) in TISSUES_HU.items())
    + ". The truth is clipped to [{:g}, {:g}] HU.".format(*NETWORK_HU_RANGE),
    "`gradient_ratio_u`, `_v`, `_w`: mean absolute difference of neighbouring voxels along the axis, of the prediction "
    "over the truth's; below 1 is blur.",
    "`reprojection`: relative L2 between the projected prediction and the input line integrals, "
    "of both views and of each. Small is necessary, not sufficient. Metal, which the clipped range cannot hold, leaves "
    "an error even to the truth.",
    "`seconds`: wall time to make the volume.",
)
"""What the columns mean, for the reader of a table."""


def measure(
    prediction: Tensor, target: Tensor, line_integrals: Tensor, projector: Callable[[Tensor], Tensor]
) -> dict[str, float]:
    """All metrics of one reconstruction, by column name; a tissue that the case does not have is NaN.

    Args:
        prediction: ``[1, 1, U, V, W]`` in the network's range.
        target: the true volume, likewise.
        line_integrals: the input radiographs ``[1, 2, N, N]``, dimensionless.
        projector: attenuation in 1/mm to line integrals.

    Raises:
        ValueError: the prediction holds NaN or infinity, or has another shape than the target.
    """
    broken = int((~torch.isfinite(prediction)).sum())
    if broken:
        raise ValueError(
            f"{broken} of {prediction.numel()} voxels of the reconstruction are NaN or infinite; check the weights, "
            "or switch mixed precision off with --amp false"
        )
    row = {
        "psnr3d_db": psnr(prediction, target, DATA_RANGE),
        "ssim3d": ssim3d(prediction, target, DATA_RANGE),
        **_hu_errors(network_to_hu(prediction), network_to_hu(target)),
    }
    for axis, name in enumerate("uvw"):
        row[f"gradient_ratio_{name}"] = gradient_ratio(prediction, target, axis)
    error = reprojection_error(hu_to_mu(network_to_hu(prediction)), line_integrals, projector)
    row |= {"reprojection": error.both}
    row |= {"reprojection_frontal": error.per_view[:, 0], "reprojection_lateral": error.per_view[:, 1]}
    return {name: value.item() for name, value in row.items()}


def _hu_errors(prediction_hu: Tensor, target_hu: Tensor) -> dict[str, Tensor]:
    row = {"mae_hu": mae_hu(prediction_hu, target_hu), "bias_hu": bias_hu(prediction_hu, target_hu)}
    for tissue, mask in tissue_masks(target_hu).items():
        row[f"mae_{tissue}_hu"] = mae_hu(prediction_hu, target_hu, mask)
        row[f"bias_{tissue}_hu"] = bias_hu(prediction_hu, target_hu, mask)
    return row
