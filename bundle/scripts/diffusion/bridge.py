"""The Brownian bridge between data x_0 and a volume y that already resembles it, after BBDM (Li et al. 2023).

BBDM (arXiv:2205.07680) replaces the noise at t = T by y::

    x_t = (1 - m_t) x_0 + m_t y + √δ_t ε,    m_t = t / T,    δ_t = 2 s (m_t - m_t²)

The bridge is a Gaussian diffusion plus the known shift m_t y. Without the shift and scaled to unit variance,
u_t = (x_t - m_t y) / ρ_t with ρ_t² = (1 - m_t)² + δ_t is a variance-preserving diffusion of x_0 with

    ᾱ_t = (1 - m_t)² / ρ_t² = (1 - m_t) / (1 - m_t + 2 s m_t),

which ends in pure noise, ᾱ_T = 0. The bridge is a Markov process for a given y, and so is u_t: drawing from the
posterior q(u_s | u_t, x_0) (:class:`~scripts.diffusion.samplers.DDPM`) *is* BBDM's reverse step, whichever timesteps
are skipped; :class:`~scripts.diffusion.samplers.DDIM` is its accelerated, non-Markovian sampler; and
:class:`~scripts.diffusion.samplers.DPMSolverPP2M` is a faster one that BBDM does not have. Samplers therefore work in
u, and only the network, which reads x_t, needs :class:`BrownianBridge`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from scripts.diffusion.schedules import check_num_train_timesteps


def bridge_alphas_cumprod(num_train_timesteps: int = 1000, s: float = 1.0) -> Tensor:
    """Return ᾱ_t of the bridge's Gaussian part; see the module docstring.

    Args:
        num_train_timesteps: T.
        s: scale of the bridge's variance, whose maximum, s / 2, is reached half way.

    Returns:
        float64 ``[T]``; ᾱ_t is at index t - 1, and the last one is 0.

    Raises:
        ValueError: T < 1, or s is not positive and finite.
    """
    check_num_train_timesteps(num_train_timesteps)
    if not 0 < s < math.inf:
        raise ValueError(f"bridge: s must be positive and finite, got {s}; BBDM uses 1.")
    m = _m(num_train_timesteps)
    return (1 - m) / (1 - m + 2 * s * m)


class BrownianBridge(nn.Module):
    """Map from the samplers' coordinates to the bridge's: x_t = m_t y + ρ_t u_t. TorchScript-able.

    Args:
        alphas_cumprod: schedule made by :func:`bridge_alphas_cumprod`, which determines s.

    Raises:
        ValueError: the schedule is not a bridge's.
    """

    def __init__(self, alphas_cumprod: Tensor) -> None:
        super().__init__()
        m = _m(len(alphas_cumprod))
        signal, noise = alphas_cumprod[:-1] * m[:-1], (1 - m[:-1]) * (1 - alphas_cumprod[:-1])
        two_s = noise / signal
        if alphas_cumprod[-1] != 0 or len(m) < 2 or not torch.allclose(two_s, two_s[:1], rtol=1e-9):
            raise ValueError(
                "bridge: the schedule must be bridge_alphas_cumprod's, which ends at 0, got one that ends at "
                f"{float(alphas_cumprod[-1]):.3g}; set alphas_cumprod to bridge_alphas_cumprod's"
            )
        rho = ((1 - m) * (1 - m + two_s[0] * m)).sqrt()
        self.m = nn.Buffer(m.float(), persistent=False)
        self.rho = nn.Buffer(rho.float(), persistent=False)

    def forward(self, u: Tensor, y: Tensor, timesteps: Tensor) -> Tensor:
        """Compute x_t from ``u`` and ``y``, both ``[B, ...]``, at ``timesteps [B]``; at the last one it is ``y``."""
        shape = [-1] + [1] * (u.ndim - 1)
        return self.m[timesteps].reshape(shape) * y + self.rho[timesteps].reshape(shape) * u


def _m(num_train_timesteps: int) -> Tensor:
    return torch.arange(1, num_train_timesteps + 1, dtype=torch.float64) / num_train_timesteps
