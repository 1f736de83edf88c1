"""Schedules against hand computation and MONAI; respacing and marginals against their laws."""

import math

import pytest
import torch
from tests.refusal import refused

from scripts.diffusion.schedules import (
    linear_alphas_cumprod,
    marginal,
    q_sample,
    respaced_timesteps,
)


def test_linear_schedule_equals_the_product_by_hand():
    # β = 0.1, 0.2, 0.3
    expected = torch.tensor([0.9, 0.9 * 0.8, 0.9 * 0.8 * 0.7], dtype=torch.float64)
    torch.testing.assert_close(linear_alphas_cumprod(3, 0.1, 0.3), expected, rtol=1e-15, atol=0)


def test_vanilla_linear_schedule_has_the_known_ends():
    alphas_cumprod = linear_alphas_cumprod()
    assert alphas_cumprod[0].item() == pytest.approx(1 - 1e-4, rel=1e-15)
    log_last = math.fsum(math.log1p(-(1e-4 + (2e-2 - 1e-4) * i / 999)) for i in range(1000))
    assert alphas_cumprod[-1].item() == pytest.approx(math.exp(log_last), rel=1e-12)


def test_the_linear_schedule_is_monais():
    schedulers = pytest.importorskip("monai.networks.schedulers")
    theirs = schedulers.DDPMScheduler(num_train_timesteps=1000, schedule="linear_beta").alphas_cumprod
    # Theirs is a float32 product of 1000 factors.
    torch.testing.assert_close(linear_alphas_cumprod(1000), theirs.double(), rtol=1e-4, atol=0)


@pytest.mark.parametrize("num_train_timesteps", [1, 2, 50, 1000])
def test_the_linear_schedule_is_float64_and_falls_from_one_towards_zero(num_train_timesteps):
    alphas_cumprod = linear_alphas_cumprod(num_train_timesteps)
    assert alphas_cumprod.dtype == torch.float64
    assert alphas_cumprod.shape == (num_train_timesteps,)
    assert ((alphas_cumprod > 0) & (alphas_cumprod < 1)).all()
    assert (alphas_cumprod.diff() < 0).all()


def test_a_schedule_of_no_timestep_is_refused():
    with refused(ValueError, "num_train_timesteps", "at least 1", "got 0"):
        linear_alphas_cumprod(0)


@pytest.mark.parametrize("betas", [(0.0, 0.02), (1e-4, 1.0)])
def test_linear_schedule_refuses_betas_that_are_no_variances(betas):
    with pytest.raises(ValueError, match=r"must be in \(0, 1\), got"):
        linear_alphas_cumprod(10, *betas)


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 10, 333, 999, 1000])
def test_respaced_timesteps_start_at_pure_noise_and_stride_evenly(steps):
    timesteps = respaced_timesteps(1000, steps)
    assert timesteps.dtype == torch.int64
    assert timesteps.shape == (steps,)
    assert timesteps[0] == 999
    # The last stride is the one that ends just below timestep 0, at the clean data.
    strides = -torch.cat([timesteps, torch.tensor([-1])]).diff()
    assert strides.min() >= 1
    assert strides.max() - strides.min() <= 1


def test_respacing_to_every_timestep_visits_each_one():
    assert respaced_timesteps(8, 8).tolist() == [7, 6, 5, 4, 3, 2, 1, 0]


def test_respacing_equals_hand_computed_values():
    assert respaced_timesteps(1000, 4).tolist() == [999, 749, 499, 249]


@pytest.mark.parametrize("steps", [-1, 0, 11])
def test_respacing_refuses_impossible_step_counts(steps):
    with refused(ValueError, "num_train_timesteps = 10", f"got {steps}"):
        respaced_timesteps(10, steps)


@pytest.mark.parametrize("ndim", [1, 2, 5])
def test_marginal_has_unit_power_and_broadcasts_over_the_batch(ndim):
    alphas_cumprod = linear_alphas_cumprod()
    timesteps = torch.tensor([0, 10, 999])
    alpha, sigma = marginal(alphas_cumprod, timesteps, ndim)
    assert alpha.shape == sigma.shape == (3,) + (1,) * (ndim - 1)
    assert alpha.dtype == sigma.dtype == torch.float32
    torch.testing.assert_close(alpha.flatten().double() ** 2, alphas_cumprod[timesteps], rtol=1e-6, atol=0)
    torch.testing.assert_close(alpha**2 + sigma**2, torch.ones_like(alpha))


def test_marginal_keeps_the_digits_of_a_tiny_sigma():
    # β_1 = 1e-4 gives σ_1 = 0.01 to float32's last digit; 1 - ᾱ_1 taken in float32 is wrong from the fourth digit on.
    _, sigma = marginal(linear_alphas_cumprod(), torch.tensor([0]), 1)
    assert sigma.item() == pytest.approx(1e-2, rel=1e-7)


def test_q_sample_of_unit_noise_has_the_marginal_mean_and_std():
    alpha, sigma = marginal(linear_alphas_cumprod(), torch.tensor([50, 500]), 2)
    x0 = torch.tensor([[2.0], [-3.0]]).expand(2, 100_000)
    noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))
    x_t = q_sample(x0, noise, alpha, sigma)
    torch.testing.assert_close(x_t.mean(1, keepdim=True), alpha * x0[:, :1], rtol=0, atol=0.01)
    torch.testing.assert_close(x_t.std(1, keepdim=True), sigma, rtol=0.01, atol=0)


def test_q_sample_is_t_steps_of_equation_one():
    betas = torch.linspace(1e-4, 2e-2, 30, dtype=torch.float64)
    mean, variance = torch.tensor(1.0, dtype=torch.float64), torch.tensor(0.0, dtype=torch.float64)
    for beta in betas:
        mean, variance = (1 - beta).sqrt() * mean, (1 - beta) * variance + beta
    alpha, sigma = marginal(linear_alphas_cumprod(30), torch.tensor([29]), 1)
    torch.testing.assert_close(alpha[0].double(), mean, rtol=1e-6, atol=0)
    torch.testing.assert_close(sigma[0].double() ** 2, variance, rtol=1e-6, atol=0)


def test_scripted_marginal_and_q_sample_equal_eager():
    args = (linear_alphas_cumprod(), torch.tensor([3, 700]), 3)
    alpha, sigma = marginal(*args)
    scripted_alpha, scripted_sigma = torch.jit.script(marginal)(*args)
    assert torch.equal(scripted_alpha, alpha) and torch.equal(scripted_sigma, sigma)
    x0, noise = torch.randn(2, 2, 4, 4, generator=torch.Generator().manual_seed(0)).unbind(0)
    assert torch.equal(torch.jit.script(q_sample)(x0, noise, alpha, sigma), q_sample(x0, noise, alpha, sigma))


@pytest.mark.parametrize("power", [0.01, 0.1, 0.5, 1.0, 1.5, 2.0, 3.0, 7.0])
@pytest.mark.parametrize("steps", [1, 2, 3, 8, 50, 999, 1000])
def test_powered_timesteps_start_at_pure_noise_and_strictly_decrease(steps, power):
    timesteps = respaced_timesteps(1000, steps, power)
    assert len(timesteps) == steps
    assert timesteps[0] == 999 and timesteps[-1] >= 0
    assert (timesteps.diff() < 0).all()


def test_a_larger_power_visits_cleaner_timesteps():
    assert respaced_timesteps(1000, 4, 1.0).tolist() == [999, 749, 499, 249]
    assert respaced_timesteps(1000, 4, 2.0).tolist() == [999, 561, 249, 61]
    assert respaced_timesteps(1000, 4, 3.0).tolist() == [999, 420, 124, 14]

    assert respaced_timesteps(1000, 4, 0.1).tolist() == [999, 970, 932, 869]


@pytest.mark.parametrize("power", [0, -1.0, float("nan")])
def test_a_power_that_is_not_positive_is_refused(power):
    with refused(ValueError, "power", "positive", f"got {power}"):
        respaced_timesteps(1000, 4, power)
