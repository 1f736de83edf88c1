"""Samplers on data whose exact denoiser, flow and marginals are known: one point, and a Gaussian."""

import dataclasses
import math

import pytest
import torch
from tests.refusal import refused
from torch import Tensor, nn

from scripts.diffusion.samplers import (
    DDIM,
    DDPM,
    DPMSolverPP2M,
    ddim_step,
    ddpm_step,
    dpm_solver_pp_2m_step,
    draw_noise,
    posterior_std,
)
from scripts.diffusion.schedules import linear_alphas_cumprod, marginal, respaced_timesteps

LINEAR = linear_alphas_cumprod()
DETERMINISTIC = [DDIM(), DPMSolverPP2M()]
STOCHASTIC = [DDPM(), DDIM(eta=0.5), DDIM(eta=1.0)]
SAMPLERS = DETERMINISTIC + STOCHASTIC
# These draw x_s from a law that is right given x_t and x_0; a multistep solver has no such law.
MARGINAL_PRESERVING = [DDIM(), *STOCHASTIC]


class GaussianData:
    """Data N(mean, covariance) in two correlated dimensions: everything a sampler approximates, in closed form."""

    mean = torch.tensor([0.4, -0.3], dtype=torch.float64)
    covariance = torch.tensor([[0.30, 0.12], [0.12, 0.20]], dtype=torch.float64)
    variances, axes = torch.linalg.eigh(covariance)

    def along_axes(self, values: Tensor) -> Tensor:
        """The symmetric matrix with these eigenvalues and the covariance's axes."""
        return (self.axes * values) @ self.axes.T

    def at_level(self, alpha_bar: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and covariance of x_t."""
        return alpha_bar.sqrt() * self.mean, self.along_axes(alpha_bar * self.variances + 1 - alpha_bar)

    def sample_at_level(self, alpha_bar: Tensor, count: int) -> Tensor:
        """Points whose *empirical* mean and covariance are exactly those of x_t."""
        points = standard_normal(count, 2)
        points = points - points.mean(0)
        points = torch.linalg.solve_triangular(torch.linalg.cholesky(points.T.cov()).T, points, upper=True, left=False)
        mean, covariance = self.at_level(alpha_bar)
        return mean + points @ torch.linalg.cholesky(covariance).T

    def denoiser(self, alphas_cumprod: Tensor):
        """E[x_0 | x_t], which a perfectly trained network computes."""

        def denoise(x: Tensor, t: Tensor, estimate: Tensor) -> Tensor:
            alpha_bar = alphas_cumprod[t[0]]
            gain = alpha_bar.sqrt() * self.variances / (alpha_bar * self.variances + 1 - alpha_bar)
            return self.mean + (x - alpha_bar.sqrt() * self.mean) @ self.along_axes(gain)

        return denoise

    def posterior_draw(self, alphas_cumprod: Tensor, generator: torch.Generator):
        """A draw from p(x_0 | x_t), with which even a coarse ancestral sampler is exact."""
        expectation = self.denoiser(alphas_cumprod)

        def denoise(x: Tensor, t: Tensor, estimate: Tensor) -> Tensor:
            alpha_bar = alphas_cumprod[t[0]]
            variances = self.variances * (1 - alpha_bar) / (alpha_bar * self.variances + 1 - alpha_bar)
            return expectation(x, t, estimate) + draw_noise(x, generator) @ self.along_axes(variances.sqrt())

        return denoise

    def flow_end(self, x: Tensor, alpha_bar: Tensor) -> Tensor:
        """Where the probability-flow ODE carries x_t: each axis keeps its standard score."""
        scale = (self.variances / (alpha_bar * self.variances + 1 - alpha_bar)).sqrt()
        return self.mean + (x - alpha_bar.sqrt() * self.mean) @ self.along_axes(scale)


DATA = GaussianData()


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def standard_normal(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=seeded(seed), dtype=dtype)


def assert_law(points: Tensor, mean: Tensor, covariance: Tensor, atol: float) -> None:
    torch.testing.assert_close(points.mean(0), mean, rtol=0, atol=atol)
    torch.testing.assert_close(points.T.cov(), covariance, rtol=0, atol=atol)


def level(alpha_bar: float) -> tuple[Tensor, Tensor]:
    value = torch.tensor(alpha_bar, dtype=torch.float64)
    return value.sqrt(), (1 - value).sqrt()


# Data that is one point ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
@pytest.mark.parametrize("steps", [1, 2, 3, 50])
def test_a_denoiser_that_always_answers_x0_makes_every_sampler_return_it_exactly(sampler, steps):
    x_T, x0 = standard_normal(2, 3, 1, 4, 4, 4, dtype=torch.float32).unbind(0)
    timesteps = respaced_timesteps(1000, steps)
    assert torch.equal(sampler(lambda x, t, _: x0, x_T, timesteps, LINEAR, seeded()), x0)


@pytest.mark.parametrize("sampler", DETERMINISTIC, ids=repr)
@pytest.mark.parametrize("steps", [2, 10, 50])
def test_deterministic_samplers_keep_the_implied_noise_of_a_known_x0(sampler, steps):
    noise, x0 = standard_normal(2, 5, 3).unbind(0)
    timesteps = respaced_timesteps(1000, steps)

    def check(i: int, _: int, x: Tensor, __: Tensor) -> None:
        alpha, sigma = level(LINEAR[timesteps[i]].item())
        torch.testing.assert_close((x - alpha * x0) / sigma, noise, rtol=0, atol=1e-10)

    alpha, sigma = level(LINEAR[-1].item())
    sampler(lambda x, t, _: x0, alpha * x0 + sigma * noise, timesteps, LINEAR, callback=check)


@pytest.mark.parametrize("sampler", STOCHASTIC, ids=repr)
@pytest.mark.parametrize("steps", [2, 5, 10, 50])
def test_stochastic_samplers_keep_the_implied_noise_standard_normal_at_any_respacing(sampler, steps):
    noise, x0 = standard_normal(2, 40_000).unbind(0)
    timesteps = respaced_timesteps(1000, steps)

    def check(i: int, _: int, x: Tensor, __: Tensor) -> None:
        alpha, sigma = level(LINEAR[timesteps[i]].item())
        implied = (x - alpha * x0) / sigma
        assert implied.mean().item() == pytest.approx(0, abs=0.03)
        assert implied.std().item() == pytest.approx(1, abs=0.02)

    alpha, sigma = level(LINEAR[-1].item())
    sampler(lambda x, t, _: x0, alpha * x0 + sigma * noise, timesteps, LINEAR, seeded(1), check)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
def test_a_schedule_that_ends_in_pure_noise_keeps_samples_finite(sampler):
    # Zero terminal signal, ᾱ_T = 0: v- and x0-networks can be trained on it, and λ_T is -infinity.
    alphas_cumprod = torch.cat([LINEAR[:-1], torch.zeros(1, dtype=torch.float64)])
    for steps in range(1, 50):
        timesteps = respaced_timesteps(1000, steps)
        samples = sampler(lambda x, t, _: torch.tanh(x), standard_normal(5, 3), timesteps, alphas_cumprod, seeded())
        assert samples.isfinite().all()


# Gaussian data ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sampler", "steps", "atol"),
    [(DDPM(), 1000, 0.015), (DDIM(eta=1.0), 1000, 0.015), (DDIM(), 250, 0.01), (DPMSolverPP2M(), 50, 0.005)],
    ids=repr,
)
def test_enough_steps_sample_the_mean_and_covariance_of_gaussian_data(sampler, steps, atol):
    timesteps = respaced_timesteps(1000, steps)
    x_T = DATA.sample_at_level(LINEAR[-1], 10_000)
    samples = sampler(DATA.denoiser(LINEAR), x_T, timesteps, LINEAR, seeded(1))
    assert_law(samples, DATA.mean, DATA.covariance, atol)


@pytest.mark.parametrize("sampler", MARGINAL_PRESERVING, ids=repr)
@pytest.mark.parametrize("steps", [2, 5, 20])
def test_draws_from_the_exact_posterior_make_every_marginal_right_at_any_respacing(sampler, steps):
    timesteps = respaced_timesteps(1000, steps)

    def check(i: int, _: int, x: Tensor, x0: Tensor) -> None:
        assert_law(x, *DATA.at_level(LINEAR[timesteps[i]]), atol=0.02)
        assert_law(x0, DATA.mean, DATA.covariance, atol=0.02)

    x_T = DATA.sample_at_level(LINEAR[-1], 40_000)
    sampler(DATA.posterior_draw(LINEAR, seeded(2)), x_T, timesteps, LINEAR, seeded(1), check)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
@pytest.mark.parametrize("steps", [1, 3, 10])
def test_few_steps_already_sample_the_mean(sampler, steps):
    x_T = DATA.sample_at_level(LINEAR[-1], 40_000)
    samples = sampler(DATA.denoiser(LINEAR), x_T, respaced_timesteps(1000, steps), LINEAR, seeded(1))
    torch.testing.assert_close(samples.mean(0), DATA.mean, rtol=0, atol=0.01)


def flow_error(sampler, alphas_cumprod: Tensor, timesteps: Tensor) -> float:
    """RMS distance between the sampler's end and the exact end of the probability-flow ODE."""
    x_T = standard_normal(64, 2)
    samples = sampler(DATA.denoiser(alphas_cumprod), x_T, timesteps, alphas_cumprod)
    return (samples - DATA.flow_end(x_T, alphas_cumprod[timesteps[0]])).square().mean().sqrt().item()


@pytest.mark.parametrize(("sampler", "order"), [(DDIM(), 1), (DPMSolverPP2M(), 2)], ids=repr)
def test_error_against_the_exact_flow_falls_with_the_order_of_the_solver(sampler, order):
    # Evenly spaced in λ, as the theory assumes, from σ = 3e-4 (a negligible last step) to almost pure noise.
    alphas_cumprod = torch.sigmoid(2 * torch.linspace(8, -4, 481, dtype=torch.float64))
    errors = [flow_error(sampler, alphas_cumprod, torch.arange(480, -1, -480 // steps)) for steps in (60, 120, 240)]
    for coarse, fine in zip(errors, errors[1:], strict=False):
        assert math.log2(coarse / fine) == pytest.approx(order, abs=0.1)


@pytest.mark.parametrize(("sampler", "order"), [(DDIM(), 1), (DPMSolverPP2M(), 2)], ids=repr)
def test_respaced_training_schedule_converges_to_the_exact_flow(sampler, order):
    coarse, fine = (flow_error(sampler, LINEAR, respaced_timesteps(1000, steps)) for steps in (20, 200))
    assert math.log10(coarse / fine) > 0.9 * order


# Step functions --------------------------------------------------------------------------------------------------

LEVELS = [(*level(0.3), *level(0.31)), (*level(4e-5), *level(0.9)), (*level(0.6), *level(0.9999))]


@pytest.mark.parametrize("levels", LEVELS)
def test_ddpm_step_is_the_bayes_posterior_by_brute_force(levels):
    alpha_t, sigma_t, alpha_s, sigma_s = levels
    x, x0, noise = torch.tensor([0.7, -0.4, 1.3], dtype=torch.float64)
    # Given x_0, (x_s, x_t) is jointly Gaussian, since x_t = (α_t / α_s) x_s + noise. Condition on x_t.
    covariance = alpha_t / alpha_s * sigma_s**2
    mean = alpha_s * x0 + covariance / sigma_t**2 * (x - alpha_t * x0)
    variance = sigma_s**2 - covariance**2 / sigma_t**2
    torch.testing.assert_close(ddpm_step(x, x0, noise, *levels), mean + variance.sqrt() * noise)
    torch.testing.assert_close(posterior_std(*levels) ** 2, variance)


@pytest.mark.parametrize("t", [999, 500, 2, 1])
def test_unrespaced_ddpm_step_is_equation_seven_as_printed(t):
    s = t - 1
    beta = torch.linspace(1e-4, 2e-2, 1000, dtype=torch.float64)[t]
    x, x0, noise = torch.tensor([0.7, -0.4, 1.3], dtype=torch.float64)
    mean = LINEAR[s].sqrt() * beta / (1 - LINEAR[t]) * x0 + (1 - beta).sqrt() * (1 - LINEAR[s]) / (1 - LINEAR[t]) * x
    variance = (1 - LINEAR[s]) / (1 - LINEAR[t]) * beta
    stepped = ddpm_step(x, x0, noise, *level(LINEAR[t].item()), *level(LINEAR[s].item()))
    torch.testing.assert_close(stepped, mean + variance.sqrt() * noise)


def test_ddim_step_equals_hand_computed_values():
    # From (α, σ) = (0.6, 0.8) to (0.8, 0.6): x = 0.6 * 2 + 0.8 * 1 has noise 1, so x_s = 0.8 * 2 + 0.6 * 1.
    x, x0, alpha_t, sigma_t, alpha_s, sigma_s = (torch.tensor(v) for v in (2.0, 2.0, 0.6, 0.8, 0.8, 0.6))
    assert ddim_step(x, x0, alpha_t, sigma_t, alpha_s, sigma_s).item() == pytest.approx(2.2)


def test_2m_step_equals_algorithm_two_as_printed():
    levels = (*level(0.05), *level(0.3), *level(0.8))
    x, x0, x0_r = torch.tensor([0.7, -0.4, 0.2], dtype=torch.float64)
    lambda_r, lambda_t, lambda_s = (torch.log(levels[i] / levels[i + 1]) for i in (0, 2, 4))
    h = lambda_s - lambda_t
    ratio = (lambda_t - lambda_r) / h
    d = (1 + 1 / (2 * ratio)) * x0 - 1 / (2 * ratio) * x0_r
    expected = levels[5] / levels[3] * x - levels[4] * (torch.exp(-h) - 1) * d
    torch.testing.assert_close(dpm_solver_pp_2m_step(x, x0, x0_r, *levels), expected)


@pytest.mark.parametrize("eta", [0.25, 0.5, 1.0])
def test_ddim_step_with_eta_is_equations_twelve_and_sixteen_as_printed(eta):
    x_T, x0 = standard_normal(2, 4, 3).unbind(0)
    visited = []
    DDIM(eta)(
        lambda x, t, _: x0, x_T, torch.tensor([700, 300]), LINEAR, seeded(1), lambda *args: visited.append(args[2])
    )
    bar_t, bar_s = LINEAR[700], LINEAR[300]
    tau = eta * ((1 - bar_s) / (1 - bar_t)).sqrt() * (1 - bar_t / bar_s).sqrt()
    epsilon = (x_T - bar_t.sqrt() * x0) / (1 - bar_t).sqrt()
    fresh = draw_noise(x_T, seeded(1))
    expected = bar_s.sqrt() * x0 + (1 - bar_s - tau**2).sqrt() * epsilon + tau * fresh
    torch.testing.assert_close(visited[1], expected)


def test_ddim_with_eta_one_is_ddpm():
    x_T, timesteps = standard_normal(8, 2), respaced_timesteps(1000, 17)
    ddim, ddpm = (
        sampler(DATA.denoiser(LINEAR), x_T, timesteps, LINEAR, seeded(1)) for sampler in (DDIM(eta=1.0), DDPM())
    )
    torch.testing.assert_close(ddim, ddpm, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("step", "inputs", "levels"),
    [(ddim_step, 2, 2), (ddpm_step, 3, 2), (dpm_solver_pp_2m_step, 3, 3)],
    ids=["ddim", "ddpm", "2m"],
)
def test_scripted_steps_equal_eager(step, inputs, levels):
    data = standard_normal(inputs, 2, 1, 3, 3, 3, dtype=torch.float32).unbind(0)
    pairs = [marginal(LINEAR, torch.tensor([t, t - 20]), 5) for t in (900, 500, 100)[:levels]]
    args = [*data, *(value for pair in pairs for value in pair)]
    torch.testing.assert_close(torch.jit.script(step)(*args), step(*args))


class FewSteps(nn.Module):
    """A scripted reconstruction: the few-step loop that an exported network carries."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.register_buffer("alphas_cumprod", linear_alphas_cumprod())
        self.register_buffer("timesteps", respaced_timesteps(1000, steps))

    def forward(self, x: Tensor) -> Tensor:
        for i in range(len(self.timesteps) - 1):
            alpha_t, sigma_t = marginal(self.alphas_cumprod, self.timesteps[i].expand(x.shape[0]), x.ndim)
            alpha_s, sigma_s = marginal(self.alphas_cumprod, self.timesteps[i + 1].expand(x.shape[0]), x.ndim)
            x = ddim_step(x, torch.tanh(x), alpha_t, sigma_t, alpha_s, sigma_s)
        return torch.tanh(x)


def test_scripted_few_step_reconstruction_equals_the_ddim_sampler():
    x_T, program = standard_normal(2, 1, 4, 4, 4, dtype=torch.float32), FewSteps(5)
    sampled = DDIM()(lambda x, t, _: torch.tanh(x), x_T, program.timesteps, LINEAR)
    torch.testing.assert_close(torch.jit.script(program)(x_T), sampled)


# The contract ----------------------------------------------------------------------------------------------------


def sample(sampler, timesteps: Tensor | None = None, generator: torch.Generator | None = None, **kwargs) -> Tensor:
    """A short run from fixed noise."""
    timesteps = respaced_timesteps(1000, 6) if timesteps is None else timesteps
    return sampler(DATA.denoiser(LINEAR), standard_normal(4, 2), timesteps, LINEAR, generator, **kwargs)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
@pytest.mark.parametrize("first", [None, standard_normal(3, 2)], ids=["none given", "given"])
def test_the_estimate_is_what_the_denoiser_answered_the_step_before(sampler, first):
    seen, answers = [], []

    def denoise(x: Tensor, t: Tensor, estimate: Tensor) -> Tensor:
        seen.append(estimate)
        answers.append(torch.tanh(x + estimate))
        return answers[-1]

    x_T = standard_normal(3, 2)
    end = sampler(denoise, x_T, respaced_timesteps(1000, 4), LINEAR, seeded(), estimate=first)
    assert torch.equal(seen[0], torch.zeros(3, 2) if first is None else first)
    assert all(torch.equal(*pair) for pair in zip(seen[1:], answers, strict=False))
    assert torch.equal(end, answers[-1])


@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
def test_a_denoiser_that_ignores_the_estimate_draws_the_same_samples_whatever_it_is(sampler):
    assert torch.equal(
        sample(sampler, generator=seeded()), sample(sampler, generator=seeded(), estimate=torch.ones(4, 2))
    )


@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
def test_samplers_are_immutable_values_whose_repr_rebuilds_them(sampler):
    assert eval(repr(sampler)) == sampler
    assert hash(eval(repr(sampler))) == hash(sampler)
    with pytest.raises(dataclasses.FrozenInstanceError):
        sampler.eta = 0.3


@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
def test_the_same_seed_gives_the_same_sample_from_the_same_object(sampler):
    assert torch.equal(sample(sampler, generator=seeded(3)), sample(sampler, generator=seeded(3)))


@pytest.mark.parametrize("sampler", STOCHASTIC, ids=repr)
def test_with_a_generator_per_item_every_item_is_sampled_as_if_alone(sampler):
    x_T, timesteps = standard_normal(3, 5, 2), respaced_timesteps(1000, 6)
    together = sampler(lambda x, t, _: torch.tanh(x), x_T, timesteps, LINEAR, [seeded(k) for k in range(3)])
    for k in range(3):
        alone = sampler(lambda x, t, _: torch.tanh(x), x_T[k : k + 1], timesteps, LINEAR, seeded(k))
        assert torch.equal(together[k : k + 1], alone)


def test_generators_for_another_number_of_items_are_refused():
    with refused(ValueError, "2 generators", "3 items"):
        draw_noise(standard_normal(3, 5), [seeded(0), seeded(1)])


@pytest.mark.parametrize("sampler", STOCHASTIC, ids=repr)
def test_another_seed_gives_another_sample(sampler):
    assert (sample(sampler, generator=seeded(3)) - sample(sampler, generator=seeded(4))).abs().min() > 1e-3


@pytest.mark.parametrize("sampler", DETERMINISTIC, ids=repr)
def test_deterministic_samplers_leave_the_generator_alone(sampler):
    generator = seeded(3)
    assert torch.equal(sample(sampler), sample(sampler, generator=generator))
    assert torch.equal(generator.get_state(), seeded(3).get_state())


@pytest.mark.parametrize("sampler", STOCHASTIC, ids=repr)
def test_stochastic_samplers_ask_for_a_generator(sampler):
    with refused(ValueError, "generator=None", "torch.Generator"):
        sample(sampler)


@pytest.mark.parametrize("sampler", STOCHASTIC, ids=repr)
def test_a_single_step_draws_no_noise_and_needs_no_generator(sampler):
    assert torch.equal(sample(sampler, torch.tensor([999])), sample(DDIM(), torch.tensor([999])))


@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
def test_denoise_and_callback_see_each_timestep_once_in_order(sampler):
    x_T, timesteps = standard_normal(3, 2, dtype=torch.float32), torch.tensor([900, 401, 7])
    asked, told = [], []

    def denoise(x: Tensor, t: Tensor, estimate: Tensor) -> Tensor:
        asked.append((x, t))
        return torch.tanh(x)

    result = sampler(denoise, x_T, timesteps, LINEAR, seeded(), lambda *args: told.append(args))
    assert all(t.dtype == torch.int64 and t.shape == (3,) for _, t in asked)
    assert [t.tolist() for _, t in asked] == [[900] * 3, [401] * 3, [7] * 3]
    assert [(i, steps) for i, steps, _, _ in told] == [(0, 3), (1, 3), (2, 3)]
    for (x, _), (_, _, x_told, x0_told) in zip(asked, told, strict=True):
        assert x is x_told
        assert torch.equal(x0_told, torch.tanh(x))
    assert told[0][2] is x_T
    assert torch.equal(told[-1][3], result)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
def test_the_starting_noise_is_left_unchanged(sampler):
    x_T = standard_normal(4, 2)
    sampler(DATA.denoiser(LINEAR), x_T, respaced_timesteps(1000, 4), LINEAR, seeded())
    assert torch.equal(x_T, standard_normal(4, 2))


@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_sample_keeps_the_dtype_of_the_noise_whatever_the_denoiser_answers(sampler, dtype):
    seen = []

    def denoise(x: Tensor, t: Tensor, estimate: Tensor) -> Tensor:
        seen.append(x.dtype)
        return torch.tanh(x).to(torch.bfloat16)

    result = sampler(denoise, standard_normal(2, 3, dtype=dtype), respaced_timesteps(1000, 4), LINEAR, seeded())
    assert {result.dtype, *seen} == {dtype}


@pytest.mark.parametrize("sampler", DETERMINISTIC, ids=repr)
def test_a_thousand_float32_steps_agree_with_float64(sampler):
    x_T, timesteps = standard_normal(4, 2), respaced_timesteps(1000, 1000)
    single = sampler(lambda x, t, _: 0.5 * torch.tanh(x), x_T.float(), timesteps, LINEAR)
    double = sampler(lambda x, t, _: 0.5 * torch.tanh(x), x_T, timesteps, LINEAR)
    torch.testing.assert_close(single.double(), double, rtol=0, atol=1e-6)


@pytest.mark.cuda
@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
def test_one_cpu_seed_gives_one_volume_on_cpu_and_gpu(sampler):
    x_T, timesteps = standard_normal(2, 1, 8, 8, 8, dtype=torch.float32), respaced_timesteps(1000, 10)
    on_cpu = sampler(lambda x, t, _: torch.tanh(x), x_T, timesteps, LINEAR, seeded())
    on_gpu = sampler(lambda x, t, _: torch.tanh(x), x_T.cuda(), timesteps.cuda(), LINEAR.cuda(), seeded())
    assert on_gpu.is_cuda
    torch.testing.assert_close(on_gpu.cpu(), on_cpu, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("timesteps", "message"),
    [
        (torch.tensor([[9, 5]]), r"1-D .*got shape \[1, 2\]"),
        (torch.tensor([], dtype=torch.int64), r"1-D .*got shape \[0\]"),
        (torch.tensor([9.0, 5.0]), "integers .*torch.float32"),
        (torch.tensor([5, 9]), r"must be strictly decreasing, got \[5, 9\]"),
        (torch.tensor([9, 9]), r"must be strictly decreasing, got \[9, 9\]"),
        (torch.tensor([1000, 5]), r"must be in \[0, 999\].*, got \[5, 1000\]"),
        (torch.tensor([5, -1]), r"must be in \[0, 999\].*, got \[-1, 5\]"),
    ],
)
def test_timesteps_that_break_a_rule_are_refused_with_a_remedy(timesteps, message):
    with pytest.raises(ValueError, match=message + ".*; respaced_timesteps"):
        sample(DDIM(), timesteps)


@pytest.mark.parametrize("eta", [-0.1, 1.1, math.nan])
def test_ddim_refuses_an_eta_that_is_no_share(eta):
    with refused(ValueError, "eta", "[0, 1]", f"got {eta}"):
        DDIM(eta=eta)
