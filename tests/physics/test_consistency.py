"""The last step of a reconstruction: a small change that meets the radiographs within their noise."""

import torch

from scripts.geometry import preset
from scripts.physics.consistency import consistent_change
from scripts.physics.separable import SeparableProjector

SIGMA = 0.02
PROJECTOR = SeparableProjector(preset("carm", (6, 7, 5), 40.0, 8), torch.float64)


def random(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def problem(exams=2):
    """Wrong volumes, noisy radiographs of the true ones, and the variance of the error, which is 0 in some voxels."""
    shape = (exams, 1, *PROJECTOR.volume_shape[1:])
    std = 0.004 * random(*shape, seed=1) * (random(*shape, seed=2) > 0.2)
    normal = torch.randn(shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    true = 0.01 + 0.01 * random(*shape, seed=4)
    films = PROJECTOR(true)
    noise = torch.randn(films.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    return true + std * normal, films + SIGMA * noise, std**2


def change(mu, films, variance, steps=300, sigma=SIGMA):
    return consistent_change(mu, films, variance, PROJECTOR, sigma, steps)


def misfit(mu, films):
    """Root mean square of what is unexplained, in line integrals."""
    return float((films - PROJECTOR(mu)).square().mean().sqrt())


def dense():
    """A as a matrix [2 N N, U V W]."""
    count = torch.tensor(PROJECTOR.volume_shape).prod()
    return PROJECTOR(torch.eye(count, dtype=torch.float64).reshape(-1, *PROJECTOR.volume_shape)).flatten(1).T


def test_it_minimises_the_stated_objective():
    mu, films, variance = problem()
    variance = variance + 1e-7  # so that its inverse exists
    a, found = dense(), change(mu, films, variance)
    for i in range(2):
        precision = torch.diag(1 / variance[i].flatten())
        rest = films[i].flatten() - a @ mu[i].flatten()
        best = torch.linalg.solve(precision + a.T @ a / SIGMA**2, a.T @ rest / SIGMA**2)
        torch.testing.assert_close(found[i].flatten(), best, rtol=1e-6, atol=1e-10)


def test_a_voxel_without_variance_stays_bit_for_bit():
    mu, films, variance = problem()
    moved = mu + change(mu, films, variance, steps=8)
    certain = variance == 0
    assert 10 < certain.sum() < mu.numel() / 2
    assert torch.equal(moved[certain], mu[certain])
    assert (moved[~certain] != mu[~certain]).all()


def test_every_step_explains_more_until_the_noise_is_left():
    mu, films, variance = problem()
    errors = [misfit(mu + change(mu, films, variance, steps), films) for steps in range(9)]
    assert all(after < before for before, after in zip(errors, errors[1:], strict=False))
    assert errors[0] > 4 * SIGMA > 3 * errors[-1]
    assert SIGMA / 2 < misfit(mu + change(mu, films, variance), films) < SIGMA


def test_an_exam_does_not_depend_on_the_others_of_its_batch():
    mu, films, variance = problem()
    films[0] = PROJECTOR(mu)[0]  # explained already
    together = change(mu, films, variance, steps=8)
    assert not together[0].any()
    alone = change(mu[1:], films[1:], variance[1:], steps=8)
    torch.testing.assert_close(together[1:], alone)


def test_a_missing_view_asks_for_nothing():
    mu, films, variance = problem()
    films[:, 1] = 0
    frontal, rest = dense()[:64], films[:, 0].flatten(1) - PROJECTOR(mu)[:, 0].flatten(1)
    spread = variance.flatten(1)[0, :, None] * frontal.T
    best = spread @ torch.linalg.solve(frontal @ spread + SIGMA**2 * torch.eye(64, dtype=torch.float64), rest[0])
    torch.testing.assert_close(change(mu, films, variance)[0].flatten(), best, rtol=1e-6, atol=1e-10)
