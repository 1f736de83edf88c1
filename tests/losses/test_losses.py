"""The training objective against eqs (7), (9) and (10) computed by hand."""

import pytest
import torch
from torch import Tensor

from scripts.diffusion.training import Prediction
from scripts.losses.diffusion import DiffusionLoss
from scripts.losses.mean_projection import MeanProjectionLoss


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def prediction(seed: int = 0, shape: tuple[int, ...] = (2, 1, 4, 3, 5)) -> Prediction:
    return Prediction(*(normal(*shape, seed=seed + i) for i in range(3)))


def checkerboard(side: int) -> Tensor:
    axis = torch.arange(side)
    return 1.0 - 2.0 * ((axis[:, None, None] + axis[:, None] + axis) % 2).reshape(1, 1, side, side, side)


def test_eq_9_by_hand_on_eight_voxels() -> None:
    # y0-hat - y0, indexed [u][v][w].
    difference = torch.tensor([[[1.0, 2.0], [3.0, -5.0]], [[-1.0, 4.0], [0.0, 6.0]]]).reshape(1, 1, 2, 2, 2)
    target = normal(1, 1, 2, 2, 2)
    # Means along u: (0, 3, 1.5, 0.5); along v: (2, -1.5, -0.5, 5); along w: (1.5, -1, 1.5, 3).
    along_u, along_v, along_w = (0 + 3 + 1.5 + 0.5) / 4, (2 + 1.5 + 0.5 + 5) / 4, (1.5 + 1 + 1.5 + 3) / 4
    expected = (along_u + along_v + along_w) / 3
    assert float(MeanProjectionLoss()(target + difference, target)) == pytest.approx(expected, abs=1e-6)
    assert expected == 1.75


def test_eq_9_on_an_oblong_volume_weighs_the_three_views_alike() -> None:
    difference = torch.zeros(1, 1, 2, 4, 8)
    difference[0, 0, 0, 0, 0] = 1
    # One voxel spreads over 4*8, 2*8 and 2*4 pixels with a mean of 1/2, 1/4 and 1/8: always 1/64.
    loss = MeanProjectionLoss()(difference, torch.zeros_like(difference))
    assert float(loss) == pytest.approx(1 / 64)


def test_the_projection_loss_averages_over_the_batch() -> None:
    a, b = normal(2, 1, 3, 4, 5), normal(2, 1, 3, 4, 5, seed=1)
    each = [float(MeanProjectionLoss()(a[i : i + 1], b[i : i + 1])) for i in range(2)]
    assert float(MeanProjectionLoss()(a, b)) == pytest.approx(sum(each) / 2)


def test_the_projection_loss_is_blind_to_what_averages_out_along_every_axis_and_l1_is_not() -> None:
    x0, board = normal(1, 1, 4, 4, 4), checkerboard(4)
    assert float(MeanProjectionLoss()(x0 + board, x0)) == pytest.approx(0, abs=1e-6)
    assert float(torch.nn.functional.l1_loss(x0 + board, x0)) == pytest.approx(1)
    assert float(MeanProjectionLoss()(x0 + board.abs(), x0)) == pytest.approx(1)


@pytest.mark.parametrize("axis", [2, 3, 4])
def test_what_averages_out_along_one_axis_only_is_seen_in_the_two_other_views(axis: int) -> None:
    x0 = normal(1, 1, 4, 4, 4)
    shape = [1] * 5
    shape[axis] = 4
    stripes = torch.tensor([1.0, -1.0, 1.0, -1.0]).reshape(shape).expand_as(x0)
    assert float(MeanProjectionLoss()(x0 + stripes, x0)) == pytest.approx(2 / 3, abs=1e-6)


@pytest.mark.parametrize("weight", [0.0, 0.25, 1e-3])
def test_the_objective_is_eq_7_plus_lambda_times_eq_9(weight: float) -> None:
    p, x0 = prediction(), normal(2, 1, 4, 3, 5, seed=7)
    pairs = zip(p.output.flatten().tolist(), p.target.flatten().tolist(), strict=True)
    simple = sum(abs(a - b) for a, b in pairs) / 120
    expected = simple + weight * float(MeanProjectionLoss()(p.x0, x0))
    assert float(DiffusionLoss(weight)(p, x0)) == pytest.approx(expected, rel=1e-5)


def test_lambda_is_one_thousandth_unless_told() -> None:
    p, x0 = prediction(), normal(2, 1, 4, 3, 5, seed=7)
    assert torch.equal(DiffusionLoss()(p, x0), DiffusionLoss(1 / 1000)(p, x0))


def test_the_truth_costs_nothing_and_anything_else_something() -> None:
    p = prediction()
    truth = Prediction(p.target, p.target, p.x0)
    loss = DiffusionLoss(0.5)
    assert float(loss(truth, p.x0)) == 0
    assert float(loss(p, p.x0)) > 0
    assert float(loss(truth, p.x0 + 0.1)) == pytest.approx(0.05, abs=1e-6)


@pytest.mark.parametrize("at_truth", [False, True])
def test_gradients_are_finite_and_reach_the_output_and_the_implied_volume(at_truth: bool) -> None:
    p, x0 = prediction(), normal(2, 1, 4, 3, 5, seed=7)
    output = (p.target if at_truth else p.output).clone().requires_grad_()
    implied = (x0 if at_truth else p.x0).clone().requires_grad_()
    DiffusionLoss(0.5)(Prediction(output, p.target, implied), x0).backward()
    for gradient in (output.grad, implied.grad):
        assert torch.isfinite(gradient).all()
        assert bool(gradient.any()) is not at_truth


def test_the_gradient_is_the_one_of_finite_differences() -> None:
    p, x0 = prediction(shape=(1, 1, 2, 3, 2)), normal(1, 1, 2, 3, 2, seed=7).double()
    output, implied = p.output.double().requires_grad_(), p.x0.double().requires_grad_()
    loss = DiffusionLoss(0.5)
    assert torch.autograd.gradcheck(lambda a, b: loss(Prediction(a, p.target.double(), b), x0), (output, implied))
