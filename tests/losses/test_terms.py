"""Terms of an objective: what each counts, by hand."""

import pytest
import torch
from tests.refusal import refused

from scripts.diffusion.training import Prediction
from scripts.geometry import preset
from scripts.intensity import hu_to_mu, hu_to_network, network_to_hu, radiograph_to_network
from scripts.losses.objective import Objective
from scripts.losses.terms import (
    BoneWeightedLoss,
    DifferenceLoss,
    ReprojectionLoss,
    RoughnessLoss,
    TissueLoss,
    bone_weighted_error,
    difference_error,
    roughness_error,
    tissue_shares,
)
from scripts.metrics.volume import tissue_masks
from scripts.physics.separable import SeparableProjector

GEOMETRY = preset("carm", (8, 16, 8), 20.0, 16)
TERMS = {
    "absolute": BoneWeightedLoss(1),
    "squared": BoneWeightedLoss(2),
    "differences": DifferenceLoss(),
    "roughness": RoughnessLoss(4),
    "reprojection": ReprojectionLoss(GEOMETRY),
    "tissue": TissueLoss(),
}


def uniform(seed: int, *shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def volumes(count: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    return uniform(0, count, 1, *GEOMETRY.volume_shape), uniform(1, count, 1, *GEOMETRY.volume_shape)


@pytest.mark.parametrize("term", TERMS.values(), ids=TERMS)
def test_a_perfect_answer_costs_nothing_another_something_and_gradients_are_finite(term) -> None:
    x, x0 = volumes()
    assert term(x0, x0) == 0
    x.requires_grad_()
    term(x, x0).backward()
    assert term(x, x0) > 0 and torch.isfinite(x.grad).all() and x.grad.any()


@pytest.mark.parametrize("power", [1, 2])
def test_a_voxel_of_bone_counts_as_often_as_its_weight_says(power) -> None:
    x0 = hu_to_network(torch.tensor([0.0, 149.0, 151.0, 900.0]).reshape(1, 1, 4, 1, 1))
    error = torch.tensor([0.1, 0.2, 0.3, 0.4]).reshape_as(x0)
    expected = (0.1**power + 0.2**power + 4 * 0.3**power + 4 * 0.4**power) / 4
    assert bone_weighted_error(x0 + error, x0, power, 4.0, 150.0).item() == pytest.approx(expected, rel=1e-5)


def test_with_a_weight_of_w_bone_is_drawn_where_it_is_likelier_than_one_in_one_plus_w() -> None:
    air, bone = hu_to_network(torch.tensor([0.0, 400.0])).tolist()
    for share, drawn in ((0.15, air), (0.25, bone)):
        x0 = torch.full((1, 1, 100, 1, 1), air)
        x0[:, :, : round(100 * share)] = bone
        costs = {c: bone_weighted_error(torch.full_like(x0, c), x0, 1, 4.0, 150.0).item() for c in (air, bone)}
        assert min(costs, key=costs.get) == drawn


def test_first_differences_do_not_see_a_constant_and_count_an_edge_once() -> None:
    x, x0 = volumes(1)
    assert difference_error(x0 + 0.3, x0).item() == pytest.approx(0, abs=1e-6)
    step = torch.zeros_like(x0)
    step[:, :, 4:] = 0.7
    edges = 0.7 / 7 / 3  # one of seven differences along the first of three axes
    assert difference_error(x0 + step, x0).item() == pytest.approx(edges, rel=1e-4)


def test_roughness_asks_how_many_edges_a_neighbourhood_has_and_not_where_they_are() -> None:
    def edges(*places: int) -> torch.Tensor:
        x = torch.zeros(1, 1, 10, 10, 10)
        for place, step in zip(places, (0.5, 0.3), strict=True):
            x[:, :, place:] += step
        return x

    x0 = edges(2, 7)  # one edge in each cube of 4 differences along u
    assert roughness_error(edges(3, 8), x0, 4).item() == pytest.approx(0, abs=1e-7)
    assert roughness_error(0.6 - x0, x0, 4).item() == pytest.approx(0, abs=1e-7)
    # Two differences between voxels two apart see each edge: 2 * 0.5 and 2 * 0.3 of 4 differences, along one of 3 axes.
    assert roughness_error(0 * x0, x0, 4).item() == pytest.approx((0.5 + 0.3) / 4 / 3, rel=1e-5)


def test_a_checkerboard_is_not_roughness() -> None:
    x0 = volumes()[1]
    u, v, w = (torch.arange(n) for n in x0.shape[2:])
    sign = 1 - 2 * ((u[:, None, None] + v[:, None] + w) % 2)
    assert difference_error(x0 + 0.1 * sign, x0) > 0.1
    assert roughness_error(x0 + 0.1 * sign, x0, 4).item() == pytest.approx(0, abs=1e-6)


def test_the_reprojection_error_is_that_of_the_exams_own_radiographs() -> None:
    project, (x, x0) = SeparableProjector(GEOMETRY), volumes()
    x, x0 = x.clamp(min=-0.9), x0.clamp(min=-0.9)  # above -1000 HU attenuation is linear
    a, b = (radiograph_to_network(project(hu_to_mu(1262 * v + 238))) for v in (x, x0))
    assert TERMS["reprojection"](x, x0).item() == pytest.approx((a - b).abs().mean().item(), rel=1e-4)


def test_an_objective_is_the_weighted_sum_of_its_terms_over_all_answers() -> None:
    (x, x0), weights = volumes(), {"absolute": 1.0, "differences": 0.5, "squared": 0.0}
    objective = Objective(TERMS, weights)
    expected = TERMS["absolute"](x, x0) + 0.5 * TERMS["differences"](x, x0)
    assert torch.allclose(objective(Prediction(x, x0, x), x0), expected)
    twice = torch.cat([x, x0])
    truth = torch.cat([x0, x0])
    assert torch.allclose(objective(Prediction(twice, truth, twice, truth), x0), expected / 2)


@pytest.mark.parametrize("weights", [{"sharpness": 1.0}, {"absolute": -1.0}])
def test_a_weight_without_a_term_or_below_zero_is_refused(weights) -> None:
    with refused(ValueError, "loss_weights", "absolute, squared", "negative", "got {"):
        Objective(TERMS, weights)


@pytest.mark.parametrize("weights", [{}, {"absolute": 0.0, "squared": 0.0}])
def test_an_objective_of_nothing_is_refused(weights) -> None:
    with refused(ValueError, "loss_weights", "at least one", "got {", "absolute, "):
        Objective(TERMS, weights)


def test_sharp_shares_of_tissues_are_the_masks_of_the_metrics_and_soft_ones_still_sum_to_one() -> None:
    x = volumes()[0].double()
    masks = torch.cat(list(tissue_masks(network_to_hu(x)).values()), dim=1).double()
    assert torch.allclose(tissue_shares(x, 1e-6), masks)
    assert torch.allclose(tissue_shares(x, 50.0).sum(dim=1), torch.ones(()).double())


def test_missing_bone_costs_a_quarter_however_little_there_is() -> None:
    hu = torch.zeros(1, 1, 10, 10, 10)
    hu[..., :5], hu[0, 0, 0, :5, :5] = -1000.0, -700.0
    without = hu_to_network(hu.clone())
    hu[0, 0, 5, 5, 7] = 900.0
    assert TissueLoss(10.0)(without, hu_to_network(hu)).item() == pytest.approx(0.25, abs=1e-3)
