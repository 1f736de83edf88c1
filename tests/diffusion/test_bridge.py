"""The Brownian bridge against its closed forms: marginals, posterior, and sampling of a known conditional law."""

import math

import pytest
import torch
from torch import Tensor

from scripts.diffusion.bridge import BrownianBridge, bridge_alphas_cumprod
from scripts.diffusion.samplers import DDIM, DDPM, DPMSolverPP2M, ddim_step, ddpm_step, posterior_std
from scripts.diffusion.schedules import linear_alphas_cumprod, respaced_timesteps

T = 1000
SCALES = [0.3, 1.0, 2.0]
PAIRS = [(999, 998), (999, 0), (998, 500), (500, 499), (500, 3), (1, 0)]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def m_and_delta(t: int, s: float) -> tuple[float, float]:
    m = (t + 1) / T
    return m, 2 * s * (m - m * m)


def level(alphas_cumprod: Tensor, t: int) -> tuple[Tensor, Tensor]:
    return alphas_cumprod[t].sqrt(), (1 - alphas_cumprod[t]).sqrt()


def shifted(u: Tensor, y: Tensor, t: int, s: float) -> Tensor:
    """x_t in float64, from the definition in the paper: the part that is not y has the scale ρ_t."""
    m, delta = m_and_delta(t, s)
    return m * y + math.sqrt((1 - m) ** 2 + delta) * u


@pytest.mark.parametrize("s", SCALES)
def test_the_marginal_is_the_papers_at_every_timestep(s: float) -> None:
    schedule = bridge_alphas_cumprod(T, s)
    bridge = BrownianBridge(schedule)
    x0, y, noise = normal(3, 5)
    for t in (0, 1, 250, 500, 998, 999):
        m, delta = m_and_delta(t, s)
        alpha, sigma = level(schedule, t)
        expected = (1 - m) * x0 + m * y + math.sqrt(delta) * noise
        x_t = bridge((alpha * x0 + sigma * noise).float(), y.float(), torch.full((5,), t))
        torch.testing.assert_close(x_t.double(), expected, rtol=0, atol=1e-6)


def test_the_bridge_ends_in_y_exactly_and_its_variance_is_largest_half_way() -> None:
    bridge, y = BrownianBridge(bridge_alphas_cumprod(T)), normal(2, 1, 3, 3, 3).float()
    assert torch.equal(bridge(normal(2, 1, 3, 3, 3).float() * 1e3, y, torch.tensor([999, 999])), y)
    deltas = [m_and_delta(t, 1.0)[1] for t in range(T)]
    assert max(deltas) == deltas[499] == 0.5


@pytest.mark.parametrize("s", SCALES)
@pytest.mark.parametrize(("t", "to"), PAIRS)
def test_the_ancestral_step_is_the_brownian_bridge_between_x0_and_x_t(s: float, t: int, to: int) -> None:
    """Of a Brownian motion pinned at x_0 and x_t the law in between is linear interpolation and m_s (m_t - m_s) / m_t;
    y does not matter any more."""
    schedule = bridge_alphas_cumprod(T, s)
    x0, y, u, noise = normal(4, 7)
    stepped = ddpm_step(u, x0, noise, *level(schedule, t), *level(schedule, to))
    (m_t, _), (m_s, _) = m_and_delta(t, s), m_and_delta(to, s)
    x_t = shifted(u, y, t, s)
    expected = x0 + m_s / m_t * (x_t - x0) + math.sqrt(2 * s * m_s * (m_t - m_s) / m_t) * noise
    torch.testing.assert_close(shifted(stepped, y, to, s), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("s", SCALES)
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(("t", "to"), PAIRS[2:])
def test_ddim_is_bbdms_accelerated_step(s: float, eta: float, t: int, to: int) -> None:
    """Of the noise in x_t a part is kept, and variance σ² = η² δ_{t|s} δ_s / δ_t is fresh, as BBDM writes it."""
    schedule = bridge_alphas_cumprod(T, s)
    x0, y, u, noise = normal(4, 7)
    (m_t, d_t), (m_s, d_s) = m_and_delta(t, s), m_and_delta(to, s)
    between = d_t - d_s * ((1 - m_t) / (1 - m_s)) ** 2
    variance = eta**2 * between * d_s / d_t
    x_t = shifted(u, y, t, s)
    kept = math.sqrt((d_s - variance) / d_t) * (x_t - (1 - m_t) * x0 - m_t * y)
    expected = (1 - m_s) * x0 + m_s * y + kept + math.sqrt(variance) * noise
    tau = eta * posterior_std(*level(schedule, t), *level(schedule, to))
    alpha, sigma = level(schedule, to)
    stepped = ddim_step(u, x0, *level(schedule, t), alpha, (sigma**2 - tau**2).sqrt()) + tau * noise
    torch.testing.assert_close(shifted(stepped, y, to, s), expected, rtol=0, atol=1e-9)


class GaussianPair:
    """x_0 ~ N(0.3, 0.5), y = x_0 + N(0, 0.2): the law of x_0 given y, and given x_t too, by conditioning alone."""

    mean, variance, noise = 0.3, 0.5, 0.2

    def given_y(self, y: Tensor) -> tuple[Tensor, float]:
        variance = 1 / (1 / self.variance + 1 / self.noise)
        return variance * (self.mean / self.variance + y / self.noise), variance

    def denoiser(self, y: Tensor, s: float, draw: torch.Generator | None = None):
        """E[x_0 | x_t, y], which reads x_t as the network does; with ``draw`` a draw from that law."""
        bridge = BrownianBridge(bridge_alphas_cumprod(T, s)).double()

        def denoise(u: Tensor, t: Tensor, estimate: Tensor) -> Tensor:
            m, delta = m_and_delta(int(t[0]), s)
            prior, variance = self.given_y(y)
            if delta == 0:
                mean, left = prior, variance
            else:
                x_t, gain = bridge(u, y, t), (1 - m) / delta
                left = 1 / (1 / variance + (1 - m) * gain)
                mean = left * (prior / variance + gain * (x_t - m * y))
            if draw is not None:
                mean = mean + math.sqrt(left) * torch.randn(u.shape, generator=draw, dtype=u.dtype)
            return mean

        return denoise


DATA = GaussianPair()


@pytest.mark.parametrize("s", SCALES)
@pytest.mark.parametrize("steps", [1, 2, 7])
@pytest.mark.parametrize("sampler", [DDPM(), DDIM(), DDIM(eta=0.5)], ids=repr)
def test_few_steps_with_posterior_draws_sample_x0_given_y(sampler, steps: int, s: float) -> None:
    y, generator = torch.full((40_000,), 0.9, dtype=torch.float64), torch.Generator().manual_seed(0)
    x0 = sampler(
        DATA.denoiser(y, s, generator), normal(len(y), seed=1), respaced_timesteps(T, steps),
        bridge_alphas_cumprod(T, s), generator,
    )  # fmt: skip
    mean, variance = DATA.given_y(y[:1])
    assert x0.mean().item() == pytest.approx(mean.item(), abs=0.01)
    assert x0.var().item() == pytest.approx(variance, rel=0.03)


@pytest.mark.parametrize("s", SCALES)
def test_deterministic_samplers_converge_to_the_flows_end_and_the_multistep_one_faster(s: float) -> None:
    """The flow keeps the standard score of u, so it ends at the same score of p(x_0 | y).

    So many timesteps, because the flow's last stretch, below the first of them, is not solved but jumped over. Where
    the bridge ends in y the flow is not smooth, and no solver has its full order.
    """
    schedule = bridge_alphas_cumprod(1_000_000, s)
    y, u_T = normal(2, 50)
    mean, variance = DATA.given_y(y)

    def denoise(u: Tensor, t: Tensor, estimate: Tensor) -> Tensor:
        alpha_bar = schedule[t[0]]
        gain = alpha_bar.sqrt() * variance / (alpha_bar * variance + 1 - alpha_bar)
        return mean + gain * (u - alpha_bar.sqrt() * mean)

    def error(sampler, steps: int) -> float:
        x0 = sampler(denoise, u_T, respaced_timesteps(len(schedule), steps, power=3), schedule)
        return (x0 - mean - math.sqrt(variance) * u_T).abs().max().item()

    first, second = ([error(sampler, steps) for steps in (40, 160)] for sampler in (DDIM(), DPMSolverPP2M()))
    assert first[1] < first[0] / 3 and second[1] < second[0] / 3
    assert second[0] < first[0] / 3 and second[1] < first[1] / 3


def test_the_scripted_bridge_is_the_eager_one() -> None:
    bridge, t = BrownianBridge(bridge_alphas_cumprod(T)), torch.tensor([3, 999])
    u, y = normal(2, 2, 1, 4, 4, 4).float()
    assert torch.equal(torch.jit.script(bridge)(u, y, t), bridge(u, y, t))


@pytest.mark.parametrize("arguments", [(0,), (10, 0.0), (10, -1.0), (10, math.inf), (10, math.nan)])
def test_impossible_schedules_are_refused(arguments: tuple) -> None:
    with pytest.raises(ValueError, match="must be"):
        bridge_alphas_cumprod(*arguments)


def test_another_schedule_is_refused() -> None:
    with pytest.raises(ValueError, match="bridge_alphas_cumprod"):
        BrownianBridge(linear_alphas_cumprod())
