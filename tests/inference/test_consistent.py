"""The inferer that makes volumes consistent: units, the variance that it passes, and its limits."""

import numpy as np
import pytest
import torch
from tests.refusal import refused

from scripts.inference.consistent import ConsistentInferer
from scripts.intensity import MU_WATER_PER_MM, hu_to_mu, hu_to_network, mu_to_hu, network_to_hu

HU = torch.tensor([-1000.0, -950.0, 0.0, 1400.0]).reshape(1, 1, 4, 1, 1).expand(2, 3, 4, 2, 2)
IMAGE = torch.arange(16.0).reshape(2, 2, 2, 2)
WATER = MU_WATER_PER_MM


class Solver:
    """Adds the attenuation of 200 HU wherever there is variance; keeps its arguments."""

    def __init__(self) -> None:
        self.calls = []

    def __call__(self, mu, line_integrals, variance, sigma, steps):
        self.calls.append((mu, line_integrals, variance, sigma, steps))
        return 0.2 * WATER * (variance > 0)


def infer(error=None):
    solver = Solver()
    made = ConsistentInferer(lambda image, network: hu_to_network(HU), solver, 0.02, 5, error)
    return solver, network_to_hu(made(IMAGE, torch.nn.Identity()))


def test_samples_are_solved_in_attenuation_and_line_integrals_and_clipped():
    solver, found = infer()
    assert len(solver.calls) == 3, "one call per sample"
    mu, line_integrals, variance, sigma, steps = solver.calls[0]
    torch.testing.assert_close(mu, hu_to_mu(HU[:, :1]), rtol=1e-5, atol=1e-7)
    assert torch.equal(line_integrals, 4 * IMAGE) and (sigma, steps) == (0.02, 5)
    expected = torch.tensor([-1000.0, -950.0, 200.0, 1500.0]).reshape(4, 1, 1).expand_as(found)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-2)
    assert variance.unique().tolist() == pytest.approx([0.0, (0.1 * WATER) ** 2]), "all but air is equally uncertain"


def test_the_predicted_error_of_each_sample_is_the_metric():
    def error(image, hu):
        assert image.shape == (2, 2, 2) and hu.shape == (4, 2, 2)
        return np.full(hu.shape, float(image.mean()), np.float32), None

    solver, _ = infer(error)
    for *_, variance, _, _ in solver.calls:
        std_hu = mu_to_hu(variance.sqrt()) - mu_to_hu(torch.tensor(0.0))
        torch.testing.assert_close(std_hu, IMAGE.mean((1, 2, 3)).reshape(2, 1, 1, 1, 1).expand_as(std_hu))


@pytest.mark.parametrize("sigma", ["low", 0, -0.02, float("nan"), float("inf")])
def test_noise_that_is_not_a_positive_number_is_refused(sigma):
    with refused(ValueError, "--consistency ", str(sigma)):
        ConsistentInferer(Solver(), Solver(), sigma, 8)


@pytest.mark.parametrize("steps", [2.5, -1])
def test_steps_that_cannot_be_counted_are_refused(steps):
    with refused(ValueError, "--consistency_steps ", str(steps)):
        ConsistentInferer(Solver(), Solver(), 0.02, steps)
