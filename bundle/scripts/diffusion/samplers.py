"""Samplers from noise to data, which only need ``denoise(x_t, t, estimate) -> x0``.

The estimate is the denoiser's output at the previous timestep, and at first the caller's. Samplers only pass it on
(self-conditioning, Chen et al. 2022, arXiv:2208.04202); an ordinary denoiser ignores it.

A step function takes x at noise level t to the cleaner level s; it is pure and TorchScript-able, so that a network's
own scripted few-step reconstruction calls the same code. A sampler is a frozen value without state; the loop over
timesteps is written once, in `Sampler`, and each sampler adds only its step.

In the step functions ``x`` and ``x0`` are ``[B, ...]``. α and σ are 0-dimensional, or have the shape of
`schedules.marginal`, which broadcasts to ``[B, ...]``. If they are 0-dimensional float64, as in `Sampler`, they are
combined in float64 and applied in the dtype of ``x``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Generator, Tensor

Denoise = Callable[[Tensor, Tensor, Tensor], Tensor]
Callback = Callable[[int, int, Tensor, Tensor], None]
Generators = Generator | Sequence[Generator] | None
"""Sources of noise: one generator for a whole batch, one per item, or None if no noise is drawn."""


def ddim_step(x: Tensor, x0: Tensor, alpha_t: Tensor, sigma_t: Tensor, alpha_s: Tensor, sigma_s: Tensor) -> Tensor:
    """Keep the noise that x and x0 imply, and mix it in at level s: DDIM (arXiv:2010.02502) eq (12), σ = 0.

    With α_s = 1, σ_s = 0 the result is exactly ``x0``.

    Returns:
        x_s = α_s x_0 + σ_s (x - α_t x_0) / σ_t, shape of ``x``.
    """
    return alpha_s * x0 + (sigma_s / sigma_t) * (x - alpha_t * x0)


def ddpm_step(
    x: Tensor, x0: Tensor, noise: Tensor, alpha_t: Tensor, sigma_t: Tensor, alpha_s: Tensor, sigma_s: Tensor
) -> Tensor:
    """Draw from the posterior q(x_s | x_t, x_0): DDPM (arXiv:2006.11239) eqs (6)-(7), for any s < t.

    DDPM states the case s = t - 1, with 1 - β_t; any other s needs the ratio ᾱ_t / ᾱ_s instead. The mean is eq (7)
    rearranged around x_t - α_t x_0, a form that is exactly ``x0`` at the clean end.

    Args:
        noise: standard normal noise, shape of ``x``.

    Returns:
        x_s, shape of ``x``.
    """
    shrinkage = (alpha_t / alpha_s) * (sigma_s / sigma_t) ** 2
    mean = alpha_s * x0 + shrinkage * (x - alpha_t * x0)
    return mean + posterior_std(alpha_t, sigma_t, alpha_s, sigma_s) * noise


def dpm_solver_pp_2m_step(
    x: Tensor,
    x0: Tensor,
    x0_r: Tensor,
    alpha_r: Tensor,
    sigma_r: Tensor,
    alpha_t: Tensor,
    sigma_t: Tensor,
    alpha_s: Tensor,
    sigma_s: Tensor,
) -> Tensor:
    """Take a second-order multistep: DPM-Solver++(2M) (arXiv:2211.01095), Algorithm 2.

    The update is DDIM's with x_0 extrapolated, linearly in λ = log(α / σ), to the middle of the step from t to s.

    Args:
        x0_r, alpha_r, sigma_r: denoised data and noise level of the previous step, r (noisier than t).
        sigma_s: must be > 0; the step to the clean end, where λ is infinite, is that of `ddim_step`.

    Returns:
        x_s, shape of ``x``.
    """
    lambda_t = torch.log(alpha_t / sigma_t)
    h = torch.log(alpha_s / sigma_s) - lambda_t
    h_r = lambda_t - torch.log(alpha_r / sigma_r)
    x0_extrapolated = x0 + h / (2 * h_r) * (x0 - x0_r)
    return ddim_step(x, x0_extrapolated, alpha_t, sigma_t, alpha_s, sigma_s)


def posterior_std(alpha_t: Tensor, sigma_t: Tensor, alpha_s: Tensor, sigma_s: Tensor) -> Tensor:
    """Return √β̃, the standard deviation of q(x_s | x_t, x_0), DDPM (arXiv:2006.11239) eq (7), for any s < t."""
    return sigma_s / sigma_t * torch.sqrt(1 - (alpha_t / alpha_s) ** 2)


def draw_noise(like: Tensor, generator: Generators) -> Tensor:
    """Draw standard normal noise with the shape, dtype and device of ``like``.

    It is drawn on the generator's device and then moved, so that a CPU seed gives the same volume on CPU and GPU. With
    a generator per item, an item's noise depends only on its own generator.

    Raises:
        ValueError: there is no generator, or a sequence of generators and ``like`` differ in length.
    """
    if isinstance(generator, Sequence):
        if len(generator) != len(like):
            raise ValueError(f"{len(generator)} generators for {len(like)} items; pass one generator, or one per item")
        return torch.stack([draw_noise(item, own) for item, own in zip(like, generator, strict=True)])
    if generator is None:
        raise ValueError(
            "Noise is drawn only from an explicit generator, got generator=None; pass "
            "generator=torch.Generator().manual_seed(seed), or sample with DDIM(eta=0.0) or DPMSolverPP2M()."
        )
    noise = torch.randn(like.shape, generator=generator, device=generator.device, dtype=like.dtype)
    return noise.to(like.device)


class Level(NamedTuple):
    """Noise level: α and σ, float64 and 0-dimensional."""

    alpha: Tensor
    sigma: Tensor


class Visit(NamedTuple):
    """Timestep that the sampler has visited: the denoiser's output there, ``[B, ...]``, and the noise level."""

    x0: Tensor
    level: Level


class Sampler(ABC):
    """Loop that all samplers share; subclasses implement `step`."""

    def __call__(
        self,
        denoise: Denoise,
        noise: Tensor,
        timesteps: Tensor,
        alphas_cumprod: Tensor,
        generator: Generators = None,
        callback: Callback | None = None,
        estimate: Tensor | None = None,
    ) -> Tensor:
        """Take ``noise`` through ``timesteps`` to clean data, ᾱ = 1.

        Gradients are neither stopped nor needed here; wrap the call in ``torch.no_grad()`` unless you want them.

        Args:
            denoise: ``denoise(x_t, t, estimate) -> x0``, with t int64 ``[B]`` on the device of x_t; called once per
                timestep.
            noise: noise at ``timesteps[0]``, ``[B, ...]``, floating point; left unchanged.
            timesteps: integers ``[steps]``, strictly decreasing, in [0, T - 1]; see `schedules.respaced_timesteps`.
            alphas_cumprod: ᾱ, ``[T]``, of the schedule that the network was trained with.
            generator: source of noise, on any device, or one for each item of ``noise``; required by samplers that draw
                noise.
            callback: ``callback(step_index, num_steps, x_t, x0)``, called after each call of ``denoise``.
            estimate: first estimate, shape of ``noise``; zeros by default.

        Returns:
            The sample: shape, dtype and device of ``noise``.

        Raises:
            ValueError: ``timesteps`` breaks a rule above, or noise is needed without a generator.
        """
        _check_timesteps(timesteps, len(alphas_cumprod))
        levels = _noise_levels(timesteps, alphas_cumprod)
        steps = len(levels)
        x, before = noise, None
        x0 = torch.zeros_like(noise) if estimate is None else estimate
        for i, t in enumerate(timesteps.tolist()):
            x0 = denoise(x, torch.full((len(x),), t, dtype=torch.int64, device=x.device), x0).to(x.dtype)
            if callback is not None:
                callback(i, steps, x, x0)
            if i + 1 < steps:
                now = Visit(x0, levels[i])
                x = self.step(x, now, before, levels[i + 1], generator)
                before = now
        # At the clean end, α = 1 and σ = 0, the update of every sampler is x0 itself.
        return x0

    @abstractmethod
    def step(self, x: Tensor, now: Visit, before: Visit | None, to: Level, generator: Generators) -> Tensor:
        """Take ``x``, ``[B, ...]``, from the level of ``now`` to the level ``to``.

        ``before`` is the visit before ``now``, None at the first step. A step may use no other history.
        """


@dataclass(frozen=True)
class DDPM(Sampler):
    """Ancestral sampling with the posterior variance β̃ (arXiv:2006.11239, Algorithm 2), correct for any respacing."""

    def step(self, x: Tensor, now: Visit, before: Visit | None, to: Level, generator: Generators) -> Tensor:
        """Draw from q(x_s | x_t, x_0); see `ddpm_step`."""
        return ddpm_step(x, now.x0, draw_noise(x, generator), *now.level, *to)


@dataclass(frozen=True)
class DDIM(Sampler):
    """Implicit sampling (arXiv:2010.02502), of first order.

    Args:
        eta: fraction of new noise in each step, eq (16): 0 is deterministic and draws none, 1 is `DDPM`.

    Raises:
        ValueError: ``eta`` is outside [0, 1].
    """

    eta: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1:
            raise ValueError(f"eta must be in [0, 1], got {self.eta}; 0 is deterministic DDIM, 1 is DDPM.")

    def step(self, x: Tensor, now: Visit, before: Visit | None, to: Level, generator: Generators) -> Tensor:
        """Draw a part τ of the noise σ_s and keep the rest from x: eq (12) with σ = τ."""
        if self.eta == 0:
            return ddim_step(x, now.x0, *now.level, *to)
        tau = self.eta * posterior_std(*now.level, *to)
        kept = (to.sigma**2 - tau**2).sqrt()
        return ddim_step(x, now.x0, *now.level, to.alpha, kept) + tau * draw_noise(x, generator)


@dataclass(frozen=True)
class DPMSolverPP2M(Sampler):
    """DPM-Solver++(2M) (arXiv:2211.01095, Algorithm 2): deterministic, of second order.

    Only the first step, which has no history, and the last one, where λ is infinite, are of first order.
    """

    def step(self, x: Tensor, now: Visit, before: Visit | None, to: Level, generator: Generators) -> Tensor:
        """Take a step of DDIM at first, then `dpm_solver_pp_2m_step`."""
        if before is None:
            return ddim_step(x, now.x0, *now.level, *to)
        return dpm_solver_pp_2m_step(x, now.x0, before.x0, *before.level, *now.level, *to)


def _noise_levels(timesteps: Tensor, alphas_cumprod: Tensor) -> list[Level]:
    """Return the level of each timestep, on the CPU, whose 0-dimensional tensors combine with data on any device."""
    alpha_bar = alphas_cumprod.to("cpu", torch.float64)[timesteps.cpu()]
    return [Level(alpha, sigma) for alpha, sigma in zip(alpha_bar.sqrt(), (1 - alpha_bar).sqrt(), strict=True)]


def _check_timesteps(timesteps: Tensor, num_train_timesteps: int) -> None:
    remedy = "respaced_timesteps(num_train_timesteps, steps) returns valid ones."
    if timesteps.ndim != 1 or len(timesteps) == 0:
        raise ValueError(f"timesteps must be 1-D and not empty, got shape {list(timesteps.shape)}; {remedy}")
    if timesteps.dtype not in (torch.int32, torch.int64):
        raise ValueError(f"timesteps must be integers (int64), got {timesteps.dtype}; {remedy}")
    if not bool((timesteps[1:] < timesteps[:-1]).all()):
        raise ValueError(f"timesteps must be strictly decreasing, got {timesteps.tolist()}; {remedy}")
    if int(timesteps[-1]) < 0 or int(timesteps[0]) >= num_train_timesteps:
        raise ValueError(
            f"timesteps must be in [0, {num_train_timesteps - 1}], the range of alphas_cumprod, got "
            f"[{int(timesteps[-1])}, {int(timesteps[0])}]; {remedy}"
        )
