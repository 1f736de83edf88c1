"""Effects of detectors and their read-out on line integrals: scatter, blur, exposure, contrast, collimation.

Images are line integrals p = -ln(I / I0), dimensionless, ``[..., N, N]``; parameters are tensors ``[...]``, one value
per image. Lengths are millimetres in the detector's plane. At zero strength every function returns its image bit for
bit, and no function turns plausible line integrals (-0.5 or more) into NaN or infinity.
"""

from __future__ import annotations

import torch
from torch import Tensor

LARGEST = 80.0
"""Line integral beyond which no photon is left that float32 could count."""
TOE = 0.05
"""Fraction of its fixed point below which a contrast curve is straight, as a power law is infinitely steep at 0."""


def add_scatter(line_integral: Tensor, ratio: Tensor, kernel_mm: float, spacing_mm: float) -> Tensor:
    """Add scattered photons: I + ratio * G(p I), where G blurs with a broad Gaussian.

    A ray scatters in proportion to the matter it meets and to the photons it has left, p exp(-p), so that the open beam
    scatters none. This convolution of weighted projections follows Ohnesorge et al. 1999 (doi:10.1007/s003300050710). A
    wide field of constant p has the scatter-to-primary ratio ``ratio`` * p.

    Args:
        line_integral: p of the primary photons ``[..., N, N]``.
        ratio: scatter-to-primary ratio per unit of line integral ``[...]``.
        kernel_mm: standard deviation of G, below a third of the detector's side.
        spacing_mm: pixel pitch.
    """
    source = line_integral.clamp(min=0) * torch.exp(-line_integral)
    kernel = gaussian_matrix(torch.full_like(ratio, kernel_mm / spacing_mm), line_integral.shape[-1])
    scattered = ratio[..., None, None] * (kernel @ source @ kernel)
    return -torch.logaddexp(-line_integral, torch.log(scattered))


def blur(line_integral: Tensor, sigma_mm: Tensor, spacing_mm: float) -> Tensor:
    """Blur the intensity with a Gaussian point spread, whose modulation transfer is Gaussian too.

    Args:
        line_integral: p ``[..., N, N]``; values above ``LARGEST`` count as ``LARGEST``.
        sigma_mm: standard deviation of the point spread ``[...]``, below a third of the detector's side.
        spacing_mm: pixel pitch.
    """
    p = line_integral.clamp(max=LARGEST)
    kernel, intensity = gaussian_matrix(sigma_mm / spacing_mm, p.shape[-1]), torch.exp(-p)
    return p - torch.log(kernel @ intensity @ kernel / intensity)


def gaussian_matrix(sigma: Tensor, count: int) -> Tensor:
    """Return matrices that smooth ``count`` samples by a Gaussian; mirroring at the ends preserves the sum.

    Args:
        sigma: standard deviations in samples ``[...]``, each below count / 3; 0 gives the identity.
        count: number of samples.

    Returns:
        Symmetric matrices ``[..., count, count]`` whose rows sum to one.
    """
    i = torch.arange(count, dtype=sigma.dtype, device=sigma.device)
    mirrored = torch.stack([i - 2 * count, -1 - i, i, 2 * count - 1 - i, i + 2 * count])
    sigma = sigma.clamp(min=torch.finfo(sigma.dtype).eps)[..., None, None, None]
    weights = torch.exp(-(((i[:, None] - mirrored[:, None, :]) / sigma) ** 2) / 2).sum(dim=-3)
    return weights / weights.sum(dim=-1, keepdim=True)


def expose(line_integral: Tensor, factor: Tensor | float) -> Tensor:
    """Make the open beam ``factor`` (one number, or ``[..., 1, 1]``) times as bright as assumed: p - ln(factor)."""
    return line_integral - torch.log(torch.as_tensor(factor, dtype=line_integral.dtype, device=line_integral.device))


def contrast_curve(line_integral: Tensor, gamma: Tensor, fixed_point: float) -> Tensor:
    """Apply an increasing curve: s (p / s)^gamma, straight below ``TOE`` s and odd in p, which keeps 0 and s.

    Args:
        line_integral: p ``[..., N, N]``.
        gamma: exponents ``[...]``, positive.
        fixed_point: s, one number for all images, which keeps their attenuation comparable.
    """
    share = (line_integral.abs() / fixed_point).clamp(min=TOE)
    return line_integral * share ** (gamma[..., None, None] - 1)


def collimate(line_integral: Tensor, field: Tensor, fade: float) -> Tensor:
    """Expose a rectangle only, and fill in the rest as the film reader does.

    Outside the rectangle the image repeats the nearest exposed pixel. Along u or v, where a body ends, the repeated
    value falls to 0; along w, where the body may go on, it stays.

    Args:
        line_integral: p ``[..., N, N]``, axes (u, w) or (v, w).
        field: first and last exposed pixel along u or v, first and last along w, int64 ``[..., 4]``.
        fade: number of pixels over which the repeated edge falls to 0.
    """
    shape, pixel = line_integral.shape, torch.arange(line_integral.shape[-1], device=line_integral.device)
    first, last, bottom, top = (end[..., None] for end in field.unbind(-1))
    across, along = pixel.clamp(first, last)[..., :, None], pixel.clamp(bottom, top)[..., None, :]
    filled = line_integral.gather(-2, across.expand(shape)).gather(-1, along.expand(shape))
    beside = torch.maximum(first - pixel, pixel - last)[..., :, None]
    return filled * (1 - beside / fade).clamp(0, 1)
