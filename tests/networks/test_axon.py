"""AXON's stages: what lifting means, that a stage changes nothing before it is trained, and that only it is trained."""

from functools import partial

import pytest
import torch
from tests.refusal import refused
from torch import Tensor

from scripts.blocks.residual import SpaceToDepth
from scripts.diffusion.bridge import bridge_alphas_cumprod
from scripts.diffusion.parametrisation import X0
from scripts.diffusion.schedules import linear_alphas_cumprod
from scripts.geometry import preset
from scripts.intensity import hu_to_mu, hu_to_network, network_to_hu, radiograph_to_network
from scripts.networks.axon import (
    AttenuationLifting,
    BridgeDenoiser,
    ControlledBridge,
    DisplacementDenoiser,
    TriplaneLifting,
    axon_bridge,
)
from scripts.networks.diffux2ct import diffux2ct
from scripts.networks.lifting import BackProjectedAttenuation, ReplicatedAttenuation
from scripts.networks.upon import SuperResolved
from scripts.networks.upsampler import Upsampler
from scripts.physics.separable import SeparableProjector

GEOMETRY = preset("carm", (8, 16, 8), 20.0, 32)
FINE = GEOMETRY.with_volume((16, 32, 16), 10.0)
BACK_PROJECTED = partial(AttenuationLifting, spread=BackProjectedAttenuation)
REPLICATED = partial(AttenuationLifting, spread=ReplicatedAttenuation)
TRIPLANE = partial(TriplaneLifting, plane_channels=(8, 16, 16))
LIFTINGS = [BACK_PROJECTED, REPLICATED, TRIPLANE]
SCHEDULE = bridge_alphas_cumprod(1000)
SIZES = {
    "channels": (8, 16),
    "condition_channels": (6, 8),
    "patch": 2,
    "heads": 2,
    "window": 2,
    "steps": 2,
    "power": 3.0,
}


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def stage1(trained: bool = True, **changes):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = axon_bridge(GEOMETRY, SCHEDULE, **{**SIZES, **changes})
        for parameter in network.parameters():
            if trained and not parameter.any():
                torch.nn.init.normal_(parameter, std=0.05)
    return network.eval()


def stage2(trained: bool = False, **changes) -> ControlledBridge:
    network = ControlledBridge(stage1(**changes), GEOMETRY, steps=2, power=3.0)
    for i, parameter in enumerate(network.denoiser.parameters()):
        if trained and not parameter.any():
            parameter.data = 0.1 * normal(*parameter.shape, seed=i)
    return network.eval()


def stage3(**changes) -> SuperResolved:
    return SuperResolved(stage2(**changes), Upsampler(4, 1), FINE).eval()


def radiographs_of(hu: float) -> Tensor:
    volume = torch.full((1, 1, *GEOMETRY.volume_shape), hu)
    return radiograph_to_network(SeparableProjector(GEOMETRY)(hu_to_mu(volume)))


# Stage 1 -------------------------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("views", [(0, 1), (0,), (1,)])
@pytest.mark.parametrize("hu", [-700.0, 0.0, 300.0])
def test_a_homogeneous_body_is_lifted_to_itself_from_both_views_and_from_one(hu: float, views: tuple) -> None:
    image = radiographs_of(hu)
    image[:, [i for i in (0, 1) if i not in views]] = 0
    y = stage1(lifting=BACK_PROJECTED).conditioner(image)[0]
    torch.testing.assert_close(network_to_hu(y), torch.full_like(y, hu), rtol=0, atol=0.1)


@torch.no_grad()
def test_replication_holds_each_rays_mean_attenuation_at_the_isocentre() -> None:
    """Rays through the middle of a homogeneous box cross its whole depth, and obliquity is a few per cent."""
    image = radiographs_of(0.0)
    y = network_to_hu(stage1(lifting=REPLICATED).conditioner(image)[0])
    assert y[0, 0, 3:5, 6:10, 3:5].abs().max() < 30


@torch.no_grad()
@pytest.mark.parametrize("objective", [BridgeDenoiser, DisplacementDenoiser])
@pytest.mark.parametrize("lifting", LIFTINGS)
def test_at_the_end_of_the_bridge_the_noise_does_not_matter(lifting, objective) -> None:
    network, image = stage1(lifting=lifting, objective=objective), normal(2, 2, 32, 32)
    condition, last = network.condition(image), torch.tensor([999, 999])
    x = [normal(2, 1, 8, 16, 8, seed=i) for i in range(2)]
    assert torch.equal(*(network.denoise(u, last, condition, u) for u in x))
    at_noise = [network.denoise(u, torch.tensor([500, 500]), condition, u) for u in x]
    assert (at_noise[0] - at_noise[1]).abs().max() > 1e-3


@torch.no_grad()
def test_untrained_the_objectives_start_at_y_and_at_x_t() -> None:
    image, u, t = normal(1, 2, 32, 32), normal(1, 1, 8, 16, 8), torch.tensor([300])
    for objective in (BridgeDenoiser, DisplacementDenoiser):
        network = stage1(trained=False, objective=objective, lifting=BACK_PROJECTED)
        condition = network.condition(image)
        y = condition[0]
        expected = y if objective is BridgeDenoiser else network.denoiser.bridge(u, y, t)
        assert torch.equal(network.denoise(u, t, condition, u), expected)


@pytest.mark.parametrize("lifting", LIFTINGS)
def test_every_weight_of_stage_1_learns(lifting) -> None:
    network = stage1(lifting=lifting, dropout=0.0)
    for i, parameter in enumerate(network.parameters()):
        parameter.data = 0.2 * normal(*parameter.shape, seed=i)
    out = network(normal(2, 2, 32, 32), normal(2, 1, 8, 16, 8), torch.tensor([3, 900]))
    (out * normal(*out.shape, seed=1)).sum().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


@torch.no_grad()
@pytest.mark.parametrize("lifting", LIFTINGS)
def test_stage_1_is_reconstructed_from_one_view_or_two_and_each_of_them_counts(lifting) -> None:
    network, image = stage1(lifting=lifting), normal(1, 2, 32, 32).abs()
    frontal, lateral = (image * torch.tensor(mask)[None, :, None, None] for mask in ([1.0, 0.0], [0.0, 1.0]))
    volumes = [network(each) for each in (image, frontal, lateral)]
    assert all(v.isfinite().all() and v.shape == (1, 1, 8, 16, 8) for v in volumes)
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert (volumes[i] - volumes[j]).abs().max() > 1e-3


def test_a_schedule_without_a_bridge_is_refused() -> None:
    with pytest.raises(ValueError, match="bridge_alphas_cumprod"):
        axon_bridge(GEOMETRY, linear_alphas_cumprod(), **SIZES)


# Stage 2 -------------------------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("lifting", LIFTINGS)
def test_an_untrained_controlnet_changes_nothing(lifting) -> None:
    image = normal(2, 2, 32, 32)
    assert torch.equal(stage2(lifting=lifting)(image), stage1(lifting=lifting)(image))


@torch.no_grad()
def test_the_hint_is_stage_1s_volume_and_zero_where_that_explains_the_radiographs() -> None:
    """A homogeneous body that stage 1 reconstructs perfectly leaves nothing unexplained; a wrong one does."""
    network = stage2(lifting=BACK_PROJECTED)
    told = network.conditioner
    body = hu_to_network(torch.full((1, 1, 8, 16, 8), 40.0))
    told.base.reconstruct = lambda condition: body
    hint = told(radiographs_of(40.0))[-1]
    assert torch.equal(hint[:, :1], body) and hint[:, 1:].abs().max() < 1e-5
    excess = told(radiographs_of(90.0))[-1][:, 1:]
    torch.testing.assert_close(excess, torch.full_like(excess, 50.0 * 2 / 2524), rtol=1e-3, atol=1e-5)


@torch.no_grad()
def test_a_missing_view_leaves_nothing_unexplained() -> None:
    image = normal(1, 2, 32, 32).abs()
    image[:, 1] = 0
    hint = stage2().conditioner(image)[-1]
    assert not hint[:, 2].any() and hint[:, 1].any()


def test_only_the_controlnet_learns_and_stage_1_stays_in_evaluation_mode() -> None:
    network = stage2(trained=True).train()
    assert not any(module.training for module in network.conditioner.base.modules())
    out = network(normal(2, 2, 32, 32), normal(2, 1, 8, 16, 8), torch.tensor([3, 900]))
    (out * normal(*out.shape, seed=1)).sum().backward()
    learnt = {name for name, p in network.named_parameters() if p.grad is not None and p.grad.any()}
    assert learnt == {name for name, _ in network.named_parameters() if name.startswith("denoiser.")}


def test_the_controlnet_starts_as_a_copy_of_the_encoder_that_shares_no_memory() -> None:
    network = stage2()
    control, base = network.denoiser.state_dict(), network.conditioner.base.denoiser.denoiser.state_dict()
    common = [name for name in control if name in base]
    assert any("down.1" in name for name in common) and any("attention" in name for name in common)
    for name in common:
        assert torch.equal(control[name], base[name]) and control[name].data_ptr() != base[name].data_ptr()


@pytest.mark.parametrize("build", [
    lambda base: ControlledBridge(base, GEOMETRY),
    lambda base: SuperResolved(base, Upsampler(4, 1), FINE),
])  # fmt: skip
def test_training_upon_an_untrained_stage_is_refused(build) -> None:
    network = build(stage1(trained=False))
    network.eval()
    with pytest.raises(ValueError, match="stage1_weights"):
        network.train()


def test_a_base_that_is_no_bridge_cannot_be_steered() -> None:
    base = diffux2ct(GEOMETRY, X0(), linear_alphas_cumprod(), plane_channels=(4, 6, 8), **SIZES)
    with refused(ValueError, "stage 1", "got a base with Denoiser", "axon_bridge"):
        ControlledBridge(base, GEOMETRY)


# Stage 3 -------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_untrained_super_resolution_is_trilinear_interpolation_of_the_stages_before() -> None:
    image, network = normal(2, 2, 32, 32), stage3()
    expected = torch.nn.functional.interpolate(stage2()(image), scale_factor=2, mode="trilinear")
    assert torch.equal(network(image), expected)


def test_only_the_upsampler_learns() -> None:
    network = stage3(trained=True).train()
    (network(normal(1, 2, 32, 32)) * normal(1, 1, 16, 32, 16)).sum().backward()
    learnt = {name for name, p in network.named_parameters() if p.grad is not None and p.grad.any()}
    assert learnt and all(name.startswith("upsampler.") for name in learnt)
    assert not any(module.training for module in network.base.modules())


def test_a_grid_that_is_not_twice_as_fine_is_refused() -> None:
    with pytest.raises(ValueError, match="half of the voxels"):
        SuperResolved(stage1(), Upsampler(4, 1), GEOMETRY)


# All -----------------------------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("build", [
    lambda: stage1(lifting=REPLICATED, objective=DisplacementDenoiser), lambda: stage1(lifting=TRIPLANE), stage3,
    pytest.param(lambda: stage1(lifting=BACK_PROJECTED), marks=pytest.mark.slow),  # a part of stages 2 and 3
    pytest.param(lambda: stage2(trained=True), marks=pytest.mark.slow),  # a part of stage 3
])  # fmt: skip
def test_the_scripted_network_is_the_eager_one(build) -> None:
    network, image = build(), normal(1, 2, 32, 32)
    torch.testing.assert_close(torch.jit.script(network)(image), network(image), atol=1e-4, rtol=1e-4)


def test_the_controlnets_hint_is_folded_as_the_volume_is() -> None:
    fold = stage2().denoiser.hint[0]
    assert isinstance(fold, SpaceToDepth) and fold.patch == SIZES["patch"]
