"""The whole network: a program from radiographs to a volume, scripted or not, that learns what it is shown."""

import math
from functools import partial

import pytest
import torch
from tests.refusal import refused
from torch import Tensor

from scripts.diffusion.parametrisation import X0, Epsilon, V
from scripts.diffusion.samplers import DDIM
from scripts.diffusion.schedules import linear_alphas_cumprod, marginal, q_sample, respaced_timesteps
from scripts.diffusion.training import Prediction
from scripts.geometry import BiplanarGeometry, preset
from scripts.intensity import hu_to_mu, hu_to_network, radiograph_to_network
from scripts.losses.diffusion import DiffusionLoss
from scripts.networks.contract import geometry_fingerprint
from scripts.networks.diffux2ct import DiffuX2CT, diffux2ct
from scripts.networks.triplane import NoEmbedding, ResidualFusion, SumFusion, TriplaneConditioner
from scripts.phantom.torso import torso
from scripts.physics.separable import SeparableProjector

GEOMETRY = preset("carm", (8, 16, 8), 20.0, 16)
IMAGE_SHAPE, VOLUME_SHAPE = (2, 16, 16), (1, 8, 16, 8)
SCHEDULE = linear_alphas_cumprod()
SMALL = {
    "channels": (8, 12),
    "plane_channels": (4, 6, 8),
    "condition_channels": (3, 5),
    "heads": 2,
    "window": 2,
    "plane_blocks": 1,
    "steps": 4,
}


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def small(geometry: BiplanarGeometry = GEOMETRY, parametrisation=V, **changes) -> DiffuX2CT:
    """A small network in which every branch speaks; it is the same at every call."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = diffux2ct(geometry, parametrisation(), SCHEDULE, **{**SMALL, **changes})
        for parameter in network.parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.1)
    return network.eval()


# The reconstruction


@pytest.mark.parametrize("parametrisation", [Epsilon, X0, V])
def test_an_image_alone_is_reconstructed_by_ddim_from_the_networks_own_noise(parametrisation) -> None:
    network, image = small(parametrisation=parametrisation), normal(2, *IMAGE_SHAPE)
    with torch.no_grad():
        condition = network.condition(image)

        def denoise(x: Tensor, t: Tensor, estimate: Tensor) -> Tensor:
            alpha, sigma = marginal(SCHEDULE, t, 5)
            x0 = network.parametrisation.to_x0(network.denoiser(x, t, condition), x, alpha, sigma)
            return x0.clip(-1, 1)

        noise = network.noise.expand(2, -1, -1, -1, -1)
        expected = DDIM()(denoise, noise, respaced_timesteps(1000, 4), SCHEDULE)
        fewer = DDIM()(denoise, noise, respaced_timesteps(1000, 3), SCHEDULE)
        pred = network(image)
    assert pred.shape == (2, *VOLUME_SHAPE)
    assert torch.allclose(pred, expected, atol=1e-3)
    assert not torch.allclose(pred, fewer, atol=1e-3)


def test_the_networks_noise_is_standard_normal_and_always_the_same() -> None:
    noise = small().noise
    assert torch.equal(noise, small(parametrisation=X0).noise)
    assert abs(float(noise.mean())) < 0.1
    assert float(noise.std()) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize(("steps", "power"), [(1, 1.0), (7, 1.0), (3, 3.0)])
def test_the_reconstruction_takes_the_steps_it_was_built_for(steps: int, power: float) -> None:
    network, visited = small(steps=steps, power=power), []
    network.denoiser.time.register_forward_hook(lambda module, inputs, output: visited.append(int(inputs[0][0])))
    with torch.no_grad():
        network(normal(1, *IMAGE_SHAPE))
    assert visited == respaced_timesteps(1000, steps, power).tolist()
    assert visited[0] == 999


def test_predicted_volumes_are_clipped_to_the_networks_range() -> None:
    network, x, t = small(), 5 * normal(1, *VOLUME_SHAPE), torch.tensor([500])
    condition = network.condition(normal(1, *IMAGE_SHAPE))
    with torch.no_grad():
        alpha, sigma = marginal(SCHEDULE, t, 5)
        free = alpha * x - sigma * network.denoise(x, t, condition, x)
        assert free.abs().max() > 1
        assert torch.allclose(network.predict_x0(x, t, condition, x), free.clip(-1, 1), atol=1e-5)


def test_image_volume_and_time_are_one_evaluation_of_the_denoiser() -> None:
    network, image, x = small(), normal(2, *IMAGE_SHAPE), normal(2, *VOLUME_SHAPE)
    t = torch.tensor([3, 800])
    with torch.no_grad():
        maps = network.denoiser.project_condition(network.conditioner(image))
        assert torch.equal(network(image, x, t), network.denoiser(x, t, maps))


# What it depends on, and what not


@pytest.mark.parametrize("fusion", [{}, {"fusion": SumFusion}, {"fusion": ResidualFusion}, {"embedding": NoEmbedding}])
def test_every_ablation_reconstructs_and_reads_both_views(fusion: dict) -> None:
    network, image = small(conditioner=partial(TriplaneConditioner, **fusion)), normal(1, *IMAGE_SHAPE)
    with torch.no_grad():
        pred = network(image)
        assert pred.shape == (1, *VOLUME_SHAPE)
        for view in (0, 1):
            changed = image.clone()
            changed[:, view] = 0
            assert (network(changed) - pred).abs().max() > 1e-3


def test_swapping_the_views_changes_the_result() -> None:
    network, image = small(), normal(1, *IMAGE_SHAPE)
    with torch.no_grad():
        assert (network(image.flip(1)) - network(image)).abs().max() > 1e-2


def test_a_batch_of_two_is_two_singles() -> None:
    network, image, x = small(), normal(2, *IMAGE_SHAPE), normal(2, *VOLUME_SHAPE)
    t = torch.tensor([3, 800])
    with torch.no_grad():
        both, denoised = network(image), network(image, x, t)
        for i in range(2):
            one = slice(i, i + 1)
            assert torch.allclose(both[one], network(image[one]), atol=1e-4)
            assert torch.allclose(denoised[one], network(image[one], x[one], t[one]), atol=1e-4)
        assert (both[0] - both[1]).abs().max() > 1e-2


def test_in_evaluation_the_same_image_gives_the_same_volume_whatever_the_global_seed() -> None:
    network, image = small(), normal(1, *IMAGE_SHAPE)
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(1)
        first = network(image)
        torch.manual_seed(2)
        assert torch.equal(network(image), first)


def test_in_training_only_the_uv_plane_is_disturbed() -> None:
    image = normal(1, *IMAGE_SHAPE)
    with torch.no_grad():
        network = small(dropout=0.0).train()
        first, second = network.condition(image), network.condition(image)
        assert all((a - b).abs().max() > 1e-3 for a, b in zip(first, second, strict=True))
        z = torch.zeros(1, *network.conditioner.disturbance_shape)
        calm = network.eval().condition(image)
        still = network.train().condition(image, z)
        assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(still, calm, strict=True))
        plain = small(dropout=0.0, conditioner=partial(TriplaneConditioner, embedding=NoEmbedding)).train()
        assert all(torch.equal(a, b) for a, b in zip(plain.condition(image), plain.condition(image), strict=True))


@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_dropout_acts_in_both_parts_in_training_only(rate: float) -> None:
    network, image, x = small(dropout=rate), normal(1, *IMAGE_SHAPE), normal(1, *VOLUME_SHAPE)
    z, t = torch.zeros(1, *network.conditioner.disturbance_shape), torch.tensor([500])
    with torch.no_grad():
        for training in (False, True):
            network.train(training)
            still = not training or rate == 0
            condition = network.condition(image, z)
            assert torch.equal(condition[0], network.condition(image, z)[0]) is still
            assert torch.equal(network.denoise(x, t, condition, x), network.denoise(x, t, condition, x)) is still


# TorchScript and weights


@pytest.fixture(scope="module")
def scripted(tmp_path_factory):
    """A network in eval mode, its script, and the script read back from a file."""
    network, path = small(), tmp_path_factory.mktemp("script") / "model.ts"
    script = torch.jit.script(network)
    torch.jit.save(script, path)
    return network, script, torch.jit.load(path)


def test_the_scripted_network_is_the_eager_one_also_from_a_file(scripted) -> None:
    network, *scripts = scripted
    image, x, t = normal(2, *IMAGE_SHAPE), normal(2, *VOLUME_SHAPE), torch.tensor([3, 800])
    with torch.no_grad():
        volume, output = network(image), network(image, x, t)
        for script in scripts:
            assert torch.allclose(script(image), volume, atol=1e-4)
            assert torch.allclose(script(image, x, t), output, atol=1e-5)


def test_the_scripted_network_offers_a_sampler_what_it_needs(scripted) -> None:
    network, _, script = scripted
    image, x, t = normal(1, *IMAGE_SHAPE), normal(1, *VOLUME_SHAPE), torch.tensor([500])
    with torch.no_grad():
        condition, expected = script.condition(image), network.condition(image)
        assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(condition, expected, strict=True))
        predicted = script.predict_x0(x, t, condition, x)
        assert torch.allclose(predicted, network.predict_x0(x, t, expected, x), atol=1e-5)


def test_the_scripted_network_refuses_with_the_same_words(scripted) -> None:
    _, _, script = scripted
    with pytest.raises(torch.jit.Error, match=r"images \[B\] \+ \[2, 16, 16\], got \[1, 2, 16, 8\]"):
        script(torch.zeros(1, 2, 16, 8))


def test_the_geometry_travels_in_the_weights_and_the_tables_that_follow_from_it_do_not() -> None:
    state = small().state_dict()
    assert torch.equal(state["geometry"], geometry_fingerprint(GEOMETRY))
    assert state["geometry"].dtype == torch.float64
    tables = {"geometry", "conditioner.embedding.sine"}  # no other table decides what the weights mean
    assert state.keys() - {name for name, _ in small().named_parameters()} == tables


# Refusals


@pytest.mark.parametrize("shape", [(1, 1, 8, 8, 16), (1, 2, 8, 16, 8), (1, 8, 16, 8)])
def test_volumes_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with refused(ValueError, "volumes", "[1, 8, 16, 8]", "got ", "resample"):
        small()(torch.zeros(1, *IMAGE_SHAPE), torch.zeros(shape), torch.tensor([0]))


@pytest.mark.parametrize("given", [{"x": torch.zeros(1, *VOLUME_SHAPE)}, {"timesteps": torch.tensor([0])}])
def test_a_volume_without_a_time_or_a_time_without_a_volume_is_refused(given: dict) -> None:
    with refused(ValueError, "x and timesteps", "only one"):
        small()(torch.zeros(1, *IMAGE_SHAPE), **given)


# Learning


def phantom_cases(side: int, count: int) -> tuple[BiplanarGeometry, Tensor, Tensor]:
    """Radiographs and volumes of procedural torsos in the network's units, on a cube of ``side`` voxels."""
    spacing_mm = 320.0 / side
    geometry = preset("carm", (side,) * 3, spacing_mm, 2 * side)
    torsos = [torso(seed, geometry.volume_shape, spacing_mm, centre_mm=160.0).hu for seed in range(count)]
    hu = torch.stack(torsos).float().unsqueeze(1)
    return geometry, radiograph_to_network(SeparableProjector(geometry)(hu_to_mu(hu))), hu_to_network(hu)


def psnr(a: Tensor, b: Tensor) -> float:
    return 10 * math.log10(4 / float((a - b).square().mean()))


def fit(network: DiffuX2CT, image: Tensor, x0: Tensor, iterations: int, copies: int) -> None:
    """Train on these cases and nothing else."""
    image, x0 = image.repeat(copies, 1, 1, 1), x0.repeat(copies, 1, 1, 1, 1)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    criterion = DiffusionLoss(projection_weight=0.1)
    network.train()
    for _ in range(iterations):
        t = torch.randint(len(SCHEDULE), (len(x0),))
        alpha, sigma = marginal(SCHEDULE, t, 5)
        noise = torch.randn_like(x0)
        x_t = q_sample(x0, noise, alpha, sigma)
        output = network(image, x_t, t)
        target = network.parametrisation.target(x0, noise, alpha, sigma)
        prediction = Prediction(output, target, network.parametrisation.to_x0(output, x_t, alpha, sigma))
        optimizer.zero_grad()
        criterion(prediction, x0).backward()
        optimizer.step()
    network.eval()


def assert_learnt(network: DiffuX2CT, image: Tensor, x0: Tensor, known: int, margin_db: float) -> None:
    """The first ``known`` cases are recovered from their own radiographs, and only from those."""
    fit_image, fit_x0 = image[:known], x0[:known]
    mean = x0.mean(dim=0, keepdim=True)
    with torch.no_grad():
        pred = network(fit_image)
        crossed = network(fit_image.roll(1, dims=0))
    for i in range(known):
        baseline = psnr(mean[0], fit_x0[i])
        assert psnr(pred[i], fit_x0[i]) > baseline + margin_db
        assert psnr(crossed[i], fit_x0[i]) < baseline


@pytest.mark.slow
def test_two_phantoms_are_recovered_far_better_than_by_the_mean_phantom() -> None:
    geometry, image, x0 = phantom_cases(16, count=6)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        sizes = {"channels": (16, 32), "plane_channels": (16, 16, 32), "condition_channels": (16, 16), "patch": 2}
        network = diffux2ct(geometry, X0(), SCHEDULE, **{**SMALL, **sizes, "stem_stride": 2, "dropout": 0.0})
        fit(network, image[:2], x0[:2], iterations=260, copies=2)
    assert_learnt(network, image, x0, known=2, margin_db=2.0)


@pytest.mark.slow
def test_phantoms_with_32_voxels_a_side_are_recovered_through_three_stages() -> None:
    geometry, image, x0 = phantom_cases(32, count=6)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        sizes = {"channels": (32, 48, 64), "plane_channels": (16, 24, 32, 48), "condition_channels": (16, 16, 16)}
        more = {"patch": 2, "stem_stride": 2, "dropout": 0.0, "steps": 8}
        network = diffux2ct(geometry, X0(), SCHEDULE, **{**SMALL, **sizes, **more})
        fit(network, image[:2], x0[:2], iterations=500, copies=2)
    assert_learnt(network, image, x0, known=2, margin_db=3.0)
