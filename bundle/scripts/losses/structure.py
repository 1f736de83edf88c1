"""Structural similarity as a training objective."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn

from scripts.metrics.volume import SSIM_SIGMA, SSIM_WINDOW


class StructureLoss(nn.Module):
    """1 - SSIM3D, the metric of :func:`~scripts.metrics.volume.ssim3d`, fast enough for every training step.

    L1 rewards the median of all volumes that fit the radiographs, which is blurred; SSIM rewards the right local
    contrast (Zhao et al. 2017, doi:10.1109/TCI.2016.2644865). The Gaussian window is separable, so its sums are three
    products with banded matrices. MONAI's SSIMLoss is a dense 3D convolution, which takes a hundred times as long at
    64^3 on a CPU.

    Args:
        data_range: largest minus smallest possible value, 2 for the networks' [-1, 1].
    """

    def __init__(self, data_range: float = 2.0) -> None:
        super().__init__()
        self.c1, self.c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Return the scalar loss of volumes ``[B, 1, U, V, W]`` of at least ``SSIM_WINDOW`` voxels along each axis."""
        # With s = x + y and d = x - y: 4 xy = s^2 - d^2 and 2 (x^2 + y^2) = s^2 + d^2.
        s, d = prediction + target, prediction - target
        mean_s, mean_d, mean_ss, mean_dd = window_means(torch.cat([s, d, s * s, d * d], 1)).unbind(1)
        square_s, square_d = mean_s.square(), mean_d.square()
        var_s, var_d = mean_ss - square_s, mean_dd - square_d
        luminance = (square_s - square_d + 2 * self.c1) / (square_s + square_d + 2 * self.c1)
        structure = (var_s - var_d + 2 * self.c2) / (var_s + var_d + 2 * self.c2)
        return 1 - (luminance * structure).mean()


def window_means(x: Tensor) -> Tensor:
    """Return Gaussian-weighted means of ``x [..., U, V, W]`` over all windows that lie inside."""
    along_u, along_v, along_w = (_window_matrix_on(n, x.device, x.dtype) for n in x.shape[-3:])
    x = torch.matmul(along_v, torch.matmul(x, along_w.T))
    return torch.matmul(along_u, x.flatten(-2)).unflatten(-1, x.shape[-2:])


@cache
def _window_matrix_on(n: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return the window matrix, cached per device, since copying it every iteration makes the CPU wait for a GPU."""
    return window_matrix(n).to(device, dtype)


@cache
def window_matrix(n: int) -> Tensor:
    """Return the 1D Gaussian window at every position in n cells, ``[n - SSIM_WINDOW + 1, n]``; rows sum to one.

    Raises:
        ValueError: there are fewer cells than the window has.
    """
    if n < SSIM_WINDOW:
        raise ValueError(
            f"the structure loss needs volumes of at least {SSIM_WINDOW} voxels along each axis, like its window, got "
            f"{n}; use a larger volume or --structure_weight 0"
        )
    offset = torch.arange(SSIM_WINDOW) - (SSIM_WINDOW - 1) / 2
    weights = torch.exp(-0.5 * (offset / SSIM_SIGMA).square())
    matrix = torch.zeros(n - SSIM_WINDOW + 1, n)
    for row, cells in enumerate(matrix):
        cells[row : row + SSIM_WINDOW] = weights / weights.sum()
    return matrix
