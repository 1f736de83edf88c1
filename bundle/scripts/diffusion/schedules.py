"""Noise schedules as plain functions: ᾱ_t, the marginals it implies, and the timesteps of a short sampler."""

from __future__ import annotations

import torch
from torch import Tensor


def linear_alphas_cumprod(num_train_timesteps: int = 1000, beta_start: float = 1e-4, beta_end: float = 2e-2) -> Tensor:
    """Return ᾱ_t of the vanilla DDPM schedule, in which β_t grows linearly from ``beta_start`` to ``beta_end``.

    Source: DiffuX2CT eq (1), whose β_t are those of DDPM (arXiv:2006.11239, section 4).

    Args:
        num_train_timesteps: T.
        beta_start: β_1, in (0, 1).
        beta_end: β_T, in (0, 1).

    Returns:
        float64 ``[T]``; ᾱ_t is at index t - 1.

    Raises:
        ValueError: T < 1, or a β outside (0, 1).
    """
    check_num_train_timesteps(num_train_timesteps)
    if not (0 < beta_start < 1 and 0 < beta_end < 1):
        raise ValueError(
            f"beta_start and beta_end must be in (0, 1), got {beta_start} and {beta_end}; DDPM uses 1e-4 and 2e-2."
        )
    betas = torch.linspace(beta_start, beta_end, num_train_timesteps, dtype=torch.float64)
    return torch.cumprod(1 - betas, dim=0)


def respaced_timesteps(num_train_timesteps: int, steps: int, power: float = 1.0) -> Tensor:
    """Return the timesteps that a sampler of ``steps`` steps visits, from the noisiest one, T - 1, downwards.

    With ``power`` 1 the strides are equal: the "trailing" spacing of arXiv:2305.08891, Table 2. The first timestep
    matters: in training the network saw pure noise only at T - 1, so a sampler that begins lower misinterprets its own
    input. The last one is free, because the final step goes from there straight to the clean data. A larger power
    visits fewer noisy timesteps and more clean ones (2 is DDIM's quadratic spacing, arXiv:2010.02502, appendix D.2);
    one near 0 visits noisy ones alone, where a network corrects its estimate.

    Args:
        num_train_timesteps: T.
        steps: number of network evaluations, 1 <= steps <= T.
        power: exponent of the remaining fraction of the way, positive.

    Returns:
        int64 ``[steps]``, strictly decreasing; with power 1, strides differ by at most one.

    Raises:
        ValueError: ``steps`` is not in [1, T], or ``power`` is not positive.
    """
    if not 1 <= steps <= num_train_timesteps:
        raise ValueError(
            f"steps must be between 1 and num_train_timesteps = {num_train_timesteps}, got {steps}; "
            "a sampler cannot visit a timestep twice, so ask for fewer steps."
        )
    if not power > 0:
        raise ValueError(f"power must be positive, got {power}; 1 spaces the timesteps evenly.")
    left = torch.arange(steps, 0, -1)
    wanted = num_train_timesteps * (left.double() / steps) ** power
    # 1e-6 undoes rounding errors below an integer; the limits keep crowded timesteps distinct, at either end.
    return (wanted + 1e-6).floor().long().clamp(min=left, max=num_train_timesteps - steps + left) - 1


def marginal(alphas_cumprod: Tensor, timesteps: Tensor, ndim: int) -> tuple[Tensor, Tensor]:
    """Return α_t and σ_t of q(x_t | x_0) = N(α_t x_0, σ_t² I), shaped to broadcast over a batch.

    Source: DDPM (arXiv:2006.11239) eq (4); it is DiffuX2CT eq (1) applied t times. TorchScript-able.

    Args:
        alphas_cumprod: ᾱ, ``[T]``; keep it in float64, since 1 - ᾱ_1 loses four digits in float32.
        timesteps: int64 ``[B]``, in [0, T - 1].
        ndim: number of dimensions of the data, batch included.

    Returns:
        (√ᾱ_t, √(1 - ᾱ_t)), each float32 ``[B, 1, 1, ...]`` with ``ndim`` dimensions, on the device of ``timesteps``.
    """
    alpha_bar = alphas_cumprod.to(timesteps.device)[timesteps].to(torch.float64)
    alpha_bar = alpha_bar.reshape([-1] + [1] * (ndim - 1))
    return alpha_bar.sqrt().to(torch.float32), (1 - alpha_bar).sqrt().to(torch.float32)


def q_sample(x0: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """Diffuse clean data: x_t = α_t x_0 + σ_t ε (DDPM eq (4)). TorchScript-able.

    Args:
        x0: clean data, ``[B, ...]``.
        noise: ε ~ N(0, I), shape of ``x0``.
        alpha, sigma: from `marginal`, broadcastable to ``x0``.

    Returns:
        x_t, shape of ``x0``.
    """
    return alpha * x0 + sigma * noise


def check_num_train_timesteps(num_train_timesteps: int) -> None:
    """Raise ValueError unless there is at least one timestep."""
    if num_train_timesteps < 1:
        raise ValueError(f"num_train_timesteps must be at least 1, got {num_train_timesteps}; DDPM uses 1000.")
