"""Networks that correct their own estimate: what they are shown, what an estimate does, and that they learn."""

from functools import partial

import pytest
import torch
from tests.refusal import refused
from torch import Tensor, nn

from scripts.diffusion.bridge import bridge_alphas_cumprod
from scripts.diffusion.parametrisation import X0, V
from scripts.diffusion.samplers import DDIM
from scripts.diffusion.schedules import linear_alphas_cumprod, respaced_timesteps
from scripts.geometry import preset
from scripts.intensity import (
    MU_WATER_PER_MM,
    hu_to_mu,
    hu_to_network,
    network_to_hu,
    network_to_radiograph,
    radiograph_to_network,
)
from scripts.networks.axon import CorrectionDenoiser, axon_bridge
from scripts.networks.correcting import SelfConsistent, SelfCorrecting
from scripts.networks.diff2ct import diff2ct
from scripts.networks.diffux2ct import DiffuX2CT, diffux2ct
from scripts.networks.lifted import JointConditioner, LiftedConditioner
from scripts.networks.triplane import TriplaneConditioner
from scripts.physics.consistency import consistent_change

GEOMETRY = preset("carm", (8, 16, 8), 20.0, 16)
SCHEDULE = linear_alphas_cumprod()
SIZES = {"channels": (8, 16), "patch": 2, "heads": 2, "window": 2, "steps": 3, "network": SelfCorrecting}
PLANES = {"plane_channels": (4, 6, 8), "condition_channels": (4, 8), "plane_blocks": 1, "dropout": 0.0}
CONDITIONERS = [TriplaneConditioner, LiftedConditioner, JointConditioner]
FACTORIES = {
    **{
        kind.__name__: partial(diffux2ct, GEOMETRY, X0(), SCHEDULE, **SIZES, **PLANES, conditioner=kind)
        for kind in CONDITIONERS
    },
    "consistent": partial(
        diffux2ct,
        GEOMETRY,
        X0(),
        SCHEDULE,
        conditioner=LiftedConditioner,
        **SIZES | {"network": SelfConsistent},
        **PLANES,
    ),
    "Diff2CT": partial(diff2ct, GEOMETRY, X0(), SCHEDULE, condition_channels=6, **SIZES),
    "AXON's bridge": partial(
        axon_bridge, GEOMETRY, bridge_alphas_cumprod(), condition_channels=(4, 6), objective=CorrectionDenoiser, **SIZES
    ),
}

PARTLY_SCRIPTED = {"TriplaneConditioner", "LiftedConditioner", "Diff2CT"}
"""Their parts are scripted within JointConditioner, or in the tests of Diff2CT."""


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def network(make, speaking: bool = True) -> DiffuX2CT:
    """The same weights at every call; with ``speaking`` none of them is zero."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = make()
        for parameter in made.parameters():
            if speaking and not parameter.any():
                nn.init.normal_(parameter, std=0.1)
    return made.eval()


@pytest.fixture(params=FACTORIES.values(), ids=FACTORIES)
def make(request):
    return request.param


@torch.no_grad()
def test_untrained_it_draws_nothing_and_no_back_projection_passes_for_a_reconstruction(make) -> None:
    made, image, x = network(make, speaking=False), normal(2, 2, 16, 16), normal(2, 1, 8, 16, 8)
    estimate, t = normal(2, 1, 8, 16, 8, seed=1), torch.tensor([10, 900])
    assert not made(image, x, t, estimate).any() and not made(image).any()


@torch.no_grad()
def test_its_output_is_added_to_the_estimate_and_the_first_one_is_the_back_projection(make) -> None:
    made, image, x = network(make), normal(2, 2, 16, 16), normal(2, 1, 8, 16, 8)
    estimate, t = normal(2, 1, 8, 16, 8, seed=1), torch.tensor([10, 900])
    condition, shown = made.condition(image), []
    made.denoiser.register_forward_hook(lambda module, arguments, output: shown.append((arguments[0], output)))
    answer = made(image, x, t, estimate)
    (volumes, correction), rest = shown[0], made.rest_gain * made.unexplained(image, estimate)
    assert torch.equal(volumes, torch.cat([x, estimate, rest], dim=1))
    assert torch.equal(answer, estimate + correction)
    assert torch.equal(made(image, x, t), made(image, x, t, made.unexplained.first_estimate(image)))
    assert torch.equal(made.first_estimate(condition), made.unexplained.first_estimate(image))


@torch.no_grad()
def test_the_answer_depends_on_the_estimate_and_on_the_radiographs_beside_their_features(make) -> None:
    made, image, x, t = network(make), normal(1, 2, 16, 16), normal(1, 1, 8, 16, 8), torch.tensor([500])
    condition, estimate = made.condition(image), torch.full((1, 1, 8, 16, 8), -0.5)
    correction = made.denoise(x, t, condition, estimate) - estimate
    other = estimate + 0.1 * normal(1, 1, 8, 16, 8, seed=2)
    assert not torch.allclose(made.denoise(x, t, condition, other) - other, correction, atol=1e-4)
    unseen = [torch.zeros_like(image), *condition[1:]]
    assert not torch.allclose(made.denoise(x, t, unseen, estimate) - estimate, correction, atol=1e-4)


@torch.no_grad()
def test_an_image_alone_is_reconstructed_by_ddim_that_hands_on_the_estimate(make) -> None:
    made, image = network(make), 0.1 * normal(2, 2, 16, 16)
    condition = made.condition(image)
    expected = DDIM()(
        lambda x, t, estimate: made.predict_x0(x, t, condition, estimate), made.noise.expand(2, -1, -1, -1, -1),
        respaced_timesteps(1000, 3), made.alphas_cumprod, estimate=made.first_estimate(condition),
    )  # fmt: skip
    torch.testing.assert_close(made(image), expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n in PARTLY_SCRIPTED)) for n in FACTORIES]
)
def test_the_scripted_network_is_the_eager_one(name) -> None:
    make = FACTORIES[name]
    made, image = network(make), 0.1 * normal(2, 2, 16, 16)
    torch.testing.assert_close(torch.jit.script(made)(image), made(image), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_a_consistent_volume_meets_its_radiographs_better_and_the_weights_are_the_same() -> None:
    made = network(FACTORIES["consistent"])
    made.load_state_dict(network(FACTORIES["LiftedConditioner"]).state_dict())
    hu = 100 * normal(2, 1, 8, 16, 8).clamp(-2, 2)
    image = radiograph_to_network(made.unexplained.spread.projector(hu_to_mu(hu)))
    wrong, condition = hu_to_network(hu + 50 * normal(2, 1, 8, 16, 8, seed=1)), made.condition(image)
    made_consistent = made.meet(wrong, condition)
    misfit = [made.unexplained.rest(image, x0).norm().item() for x0 in (wrong, made_consistent)]
    assert misfit[1] < 0.3 * misfit[0]
    truth = hu_to_network(hu)
    torch.testing.assert_close(made.meet(truth, condition), truth, atol=1e-5, rtol=0)
    air = torch.full_like(truth, -1.0)
    assert torch.equal(made.meet(air, condition), air)


@torch.no_grad()
def test_the_change_is_that_of_a_typical_error_of_each_tissue_and_of_the_noise_of_films() -> None:
    made, image, x0 = network(FACTORIES["consistent"]), 0.2 * normal(2, 2, 16, 16).abs(), 0.3 * normal(2, 1, 8, 16, 8)
    made.consistency.trusted_misfit = made.consistency.explained_misfit = 100.0
    hu = network_to_hu(x0)
    variance = (100 * MU_WATER_PER_MM / 1000) ** 2 * (hu > -900) * torch.where(hu > 150, 0.3, 1.0)
    assert (hu > 150).any() and (hu < -900).any()
    projector = made.unexplained.spread.projector
    change = consistent_change(hu_to_mu(hu), network_to_radiograph(image), variance, projector, sigma=0.02, steps=4)
    expected = hu_to_network(hu + 1000 * change / MU_WATER_PER_MM).float()
    torch.testing.assert_close(made.meet(x0, made.condition(image)), expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_every_prediction_is_made_consistent() -> None:
    made, plain = network(FACTORIES["consistent"]), network(FACTORIES["LiftedConditioner"])
    plain.load_state_dict(made.state_dict())
    image, x, estimate = normal(1, 2, 16, 16).abs(), normal(1, 1, 8, 16, 8), 0.3 * normal(1, 1, 8, 16, 8, seed=1)
    made.consistency.trusted_misfit = made.consistency.explained_misfit = 100.0
    found, raw = (each.predict_x0(x, torch.tensor([900]), each.condition(image), estimate) for each in (made, plain))
    assert torch.equal(found, made.meet(raw, made.condition(image))) and not torch.allclose(found, raw, atol=1e-3)


@torch.no_grad()
def test_radiographs_that_are_not_trusted_change_nothing() -> None:
    made, x0 = network(FACTORIES["consistent"]), 0.1 * normal(2, 1, 8, 16, 8)
    image = made.unexplained.spread.project(made.unexplained.scale.inverse(x0))
    image = image * torch.tensor([1.03, 1.2]).reshape(2, 1, 1, 1)
    changed = made.meet(x0, made.condition(image))
    assert not torch.allclose(changed[0], x0[0], atol=1e-3) and torch.equal(changed[1], x0[1])


def test_gradients_reach_every_parameter(make) -> None:
    made = network(make).train()
    made(normal(2, 2, 16, 16), normal(2, 1, 8, 16, 8), torch.tensor([3, 700])).square().mean().backward()
    assert [name for name, p in made.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_only_a_network_that_predicts_x0_can_correct_it() -> None:
    with refused(ValueError, "x_0", "parametrisation V;", "X0"):
        diffux2ct(GEOMETRY, V(), SCHEDULE, **SIZES, **PLANES)
