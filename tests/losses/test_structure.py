"""The structure loss is one minus the metric, and says so when a volume is too small for it."""

import pytest
import torch
from tests.refusal import refused
from torch import Tensor

from scripts.diffusion.training import Prediction
from scripts.losses.diffusion import DiffusionLoss
from scripts.losses.structure import StructureLoss, window_matrix, window_means
from scripts.metrics.volume import SSIM_WINDOW, ssim3d

SHAPE = (2, 1, 12, 15, 20)


def uniform(seed: int, *shape: int) -> Tensor:
    return torch.rand(shape or SHAPE, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.mark.parametrize("strength", [0.01, 0.3, 2.0])
def test_it_is_one_minus_the_metric(strength: float) -> None:
    x = uniform(0)
    y = (x + strength * uniform(1)).clamp(-1, 1)
    expected = 1 - ssim3d(y, x, 2.0).mean()
    torch.testing.assert_close(StructureLoss()(y, x), expected, atol=2e-5, rtol=0)


def test_another_data_range_is_the_metrics() -> None:
    x, y = uniform(0) * 500, uniform(1) * 500
    torch.testing.assert_close(StructureLoss(1000.0)(y, x), 1 - ssim3d(y, x, 1000.0).mean(), atol=2e-5, rtol=0)


def test_the_truth_costs_nothing_and_a_blurred_volume_something() -> None:
    x = uniform(0)
    blurred = torch.nn.functional.avg_pool3d(x, 3, 1, 1)
    assert float(StructureLoss()(x, x)) == pytest.approx(0, abs=1e-5)
    assert float(StructureLoss()(blurred, x)) > 0.1


def test_it_prefers_more_contrast_in_an_imperfect_prediction_than_l1_does() -> None:
    """Why it is there: a window's structure term is largest where the variances are equal, whatever the correlation."""
    x, wrong = uniform(0), uniform(1)
    prediction = 0.7 * x + 0.51**0.5 * wrong  # same variance as x, correlation 0.7
    contrasts = torch.linspace(0.3, 1.5, 49)
    costs = torch.stack([StructureLoss()(c * prediction, x) for c in contrasts])
    absolute = torch.stack([(c * prediction - x).abs().mean() for c in contrasts])
    assert contrasts[costs.argmin()] > contrasts[absolute.argmin()] + 0.1


def test_gradients_are_those_of_finite_differences() -> None:
    x, y = (uniform(seed, 1, 1, 11, 12, 11).double() for seed in (0, 1))
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(StructureLoss()(x, y), x)
    for index in [(0, 0, 5, 5, 5), (0, 0, 3, 6, 8)]:
        step = torch.zeros_like(y)
        step[index] = 1e-5
        slope = (StructureLoss()(x + step, y) - StructureLoss()(x - step, y)) / 2e-5
        torch.testing.assert_close(gradient[index], slope.detach(), rtol=1e-4, atol=1e-10)


def test_windows_average_and_lie_inside() -> None:
    assert window_matrix(14).shape == (14 - SSIM_WINDOW + 1, 14)
    torch.testing.assert_close(window_matrix(14).sum(1), torch.ones(4))
    torch.testing.assert_close(window_means(torch.full(SHAPE, 3.0)), torch.full((2, 1, 2, 5, 10), 3.0))


def test_a_volume_smaller_than_the_window_is_refused() -> None:
    small = torch.zeros(1, 1, 10, 16, 16)
    with refused(ValueError, "at least 11 voxels", "got 10", "--structure_weight 0"):
        StructureLoss()(small, small)


def test_the_objective_adds_it_with_its_weight_and_takes_any_size_without() -> None:
    p, x0 = Prediction(*(uniform(seed) for seed in (0, 1, 2))), uniform(3)
    base = DiffusionLoss(0.25)(p, x0)
    torch.testing.assert_close(DiffusionLoss(0.25, 0.2)(p, x0), base + 0.2 * StructureLoss()(p.x0, x0))
    tiny = Prediction(*(uniform(seed, 1, 1, 4, 4, 4) for seed in (0, 1, 2)))
    assert torch.isfinite(DiffusionLoss(0.25)(tiny, tiny.x0))
