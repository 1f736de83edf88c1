"""Parametrisations: inverse to their targets, consistent with each other, and scriptable."""

import itertools

import pytest
import torch
from torch import Tensor, nn

from scripts.diffusion.parametrisation import X0, Epsilon, V
from scripts.diffusion.schedules import linear_alphas_cumprod, marginal, q_sample

PARAMETRISATIONS = [Epsilon(), X0(), V()]


@pytest.fixture
def diffused():
    """x0, noise, x_t, alpha, sigma in float64, at timesteps from almost clean to almost pure noise."""
    generator = torch.Generator().manual_seed(0)
    x0, noise = torch.randn(2, 4, 1, 2, 3, 2, generator=generator, dtype=torch.float64).unbind(0)
    alpha_bar = linear_alphas_cumprod()[torch.tensor([0, 10, 500, 999])].reshape(4, 1, 1, 1, 1)
    alpha, sigma = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
    return x0, noise, q_sample(x0, noise, alpha, sigma), alpha, sigma


@pytest.mark.parametrize("parametrisation", PARAMETRISATIONS, ids=repr)
def test_to_x0_inverts_target(parametrisation, diffused):
    x0, noise, x_t, alpha, sigma = diffused
    target = parametrisation.target(x0, noise, alpha, sigma)
    torch.testing.assert_close(parametrisation.to_x0(target, x_t, alpha, sigma), x0, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("parametrisation", PARAMETRISATIONS, ids=repr)
def test_target_inverts_to_x0(parametrisation, diffused):
    _, output, x_t, alpha, sigma = diffused
    x0 = parametrisation.to_x0(output, x_t, alpha, sigma)
    noise = (x_t - alpha * x0) / sigma
    torch.testing.assert_close(parametrisation.target(x0, noise, alpha, sigma), output, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("a", "b"), list(itertools.permutations(PARAMETRISATIONS, 2)), ids=repr)
def test_an_output_reread_in_another_parametrisation_claims_the_same_x0(a, b, diffused):
    _, output, x_t, alpha, sigma = diffused
    x0 = a.to_x0(output, x_t, alpha, sigma)
    reread = b.target(x0, (x_t - alpha * x0) / sigma, alpha, sigma)
    torch.testing.assert_close(b.to_x0(reread, x_t, alpha, sigma), x0, rtol=1e-9, atol=1e-11)


def test_targets_equal_hand_computed_values():
    x0, noise, alpha, sigma = (torch.tensor(value) for value in (2.0, 5.0, 0.8, 0.6))
    assert Epsilon().target(x0, noise, alpha, sigma).item() == 5.0
    assert X0().target(x0, noise, alpha, sigma).item() == 2.0
    assert V().target(x0, noise, alpha, sigma).item() == pytest.approx(0.8 * 5 - 0.6 * 2)


def test_equation_eight_as_printed_does_not_invert_the_forward_process(diffused):
    x0, noise, x_t, alpha, sigma = diffused
    printed = (x_t - sigma**2 * noise) / alpha
    assert (printed - x0).abs().amax() > 0.1
    torch.testing.assert_close(Epsilon().to_x0(noise, x_t, alpha, sigma), x0)


@pytest.mark.parametrize("parametrisation", PARAMETRISATIONS, ids=repr)
def test_calling_is_to_x0_and_there_is_nothing_to_train(parametrisation, diffused):
    _, output, x_t, alpha, sigma = diffused
    called = parametrisation(output, x_t, alpha, sigma)
    assert torch.equal(called, parametrisation.to_x0(output, x_t, alpha, sigma))
    assert parametrisation.state_dict() == {}


class Denoiser(nn.Module):
    """A network with a parametrisation inside, as the exported program has it."""

    def __init__(self, parametrisation: nn.Module) -> None:
        super().__init__()
        self.parametrisation = parametrisation
        self.register_buffer("alphas_cumprod", linear_alphas_cumprod())

    def forward(self, x_t: Tensor, timesteps: Tensor) -> Tensor:
        alpha, sigma = marginal(self.alphas_cumprod, timesteps, x_t.ndim)
        return self.parametrisation.to_x0(torch.tanh(x_t), x_t, alpha, sigma)


@pytest.mark.parametrize("parametrisation", PARAMETRISATIONS, ids=repr)
def test_scripted_as_a_submodule_equals_eager(parametrisation):
    x_t = torch.randn(2, 1, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    denoiser, timesteps = Denoiser(parametrisation), torch.tensor([5, 800])
    torch.testing.assert_close(torch.jit.script(denoiser)(x_t, timesteps), denoiser(x_t, timesteps))


@pytest.mark.parametrize("parametrisation", PARAMETRISATIONS, ids=repr)
def test_scripted_alone_equals_eager(parametrisation, diffused):
    _, output, x_t, alpha, sigma = diffused
    scripted = torch.jit.script(parametrisation)
    torch.testing.assert_close(scripted(output, x_t, alpha, sigma), parametrisation(output, x_t, alpha, sigma))
