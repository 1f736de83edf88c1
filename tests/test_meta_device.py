"""Nothing leaves its device: on PyTorch's `meta` device, as on a GPU, a constant left on the CPU meets no tensor.

Two things stay on the CPU by design, here as on a GPU. A sampler reads its timesteps and noise levels as numbers, since
a loop needs them (:mod:`~scripts.diffusion.samplers`), and noise comes from a CPU generator, so that one seed gives one
volume everywhere. Photon noise (:mod:`~scripts.physics.noise`) is left out: it draws on its images' own device, and
`meta` has no generator. AXON's stages upon others are not put into training mode, which asks whether the weights of
the stage below are zero: `meta` has no values. Weights are read from files on the CPU.
"""

from collections.abc import Callable, Iterable
from functools import partial

import pytest
import torch
from tests.networks.factories import GEOMETRY, IMAGE_SHAPE, NETWORKS, VOLUME_SHAPE
from torch import Tensor, nn

from scripts.diffusion.bridge import BrownianBridge, bridge_alphas_cumprod
from scripts.diffusion.parametrisation import X0, Epsilon, V
from scripts.diffusion.samplers import DDIM, DDPM, DPMSolverPP2M
from scripts.diffusion.schedules import linear_alphas_cumprod, marginal, q_sample, respaced_timesteps
from scripts.diffusion.training import Prediction
from scripts.geometry import preset
from scripts.losses.adversarial import DiscriminatorLoss, GeneratorLoss
from scripts.losses.diffusion import DiffusionLoss
from scripts.losses.direct import MeanSquaredLoss, X2CTLoss
from scripts.losses.mean_projection import MeanProjectionLoss
from scripts.losses.objective import Objective
from scripts.losses.structure import StructureLoss
from scripts.losses.terms import BoneWeightedLoss, DifferenceLoss, ReprojectionLoss, RoughnessLoss
from scripts.networks.diffux2ct import DiffuX2CT
from scripts.networks.lifting import Unexplained
from scripts.networks.mean_volume import MeanVolume
from scripts.networks.upsampler import Upsampler
from scripts.networks.x2ct import PatchDiscriminator
from scripts.physics import detector
from scripts.physics.pose import MisalignedProjector
from scripts.physics.raymarch import RayMarchProjector
from scripts.physics.separable import SeparableProjector

META = torch.device("meta")
SCHEDULE = linear_alphas_cumprod()


def on_meta(*shape: int) -> Tensor:
    return torch.empty(shape, device=META)


def images(count: int = 2) -> Tensor:
    return on_meta(count, *IMAGE_SHAPE)


def volumes(count: int = 2) -> Tensor:
    return on_meta(count, *VOLUME_SHAPE)


def assert_learns(output: Tensor, parameters: Iterable[Tensor]) -> None:
    """Gradients flow, on the same device."""
    output.sum().backward()
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    assert gradients and all(gradient.is_meta for gradient in gradients)


# Networks


# Left out: those whose parts all occur in another one's.
COMBINED = {
    *("correcting, implicit", "correcting, lifted", "diff2ct, correcting", "axon, correcting", "axon, replicated"),
    *("axon, displacement", "diffux2ct, expanded"),
}
UPON_OTHERS = {"axon, controlled", "axon, super-resolved", "refined"}


@pytest.fixture(scope="module", params=[name for name in NETWORKS if name not in COMBINED])
def state_and_network(request) -> tuple[dict[str, Tensor], nn.Module]:
    """Weights on the CPU, and the network that they were made with; it is built once for all its tests."""
    network = NETWORKS[request.param](GEOMETRY)
    state = {name: value.clone() for name, value in network.state_dict().items()}
    return state, network.to(META).train(request.param not in UPON_OTHERS)


@pytest.fixture
def network(state_and_network) -> nn.Module:
    return state_and_network[1]


@pytest.mark.filterwarnings("ignore:.*copying from a non-meta parameter")
def test_a_network_takes_weights(state_and_network) -> None:
    state, network = state_and_network
    network.load_state_dict(state)
    assert all(value.is_meta for value in network.state_dict().values())
    with pytest.raises(RuntimeError, match="weights trained for geometry"):
        network.load_state_dict({**state, "geometry": state["geometry"] + 1})


@torch.no_grad()
def test_a_network_reconstructs_and_serves_a_sampler(network: nn.Module) -> None:
    training, t = network.training, torch.zeros(2, dtype=torch.int64, device=META)
    network.eval()
    volume = network(images())
    assert volume.is_meta and volume.shape == volumes().shape
    if isinstance(network, DiffuX2CT):
        condition = network.condition(images(), None)
        estimate = network.first_estimate(condition)
        assert all(part.is_meta for part in (*condition, estimate))
        assert network.predict_x0(volumes(), t, condition, estimate).is_meta
        assert network.reconstruct(condition).is_meta
    network.train(training)


def test_a_network_learns(network: nn.Module) -> None:
    t = torch.zeros(2, dtype=torch.int64, device=META)
    inputs = (volumes(), t, volumes()) if isinstance(network, DiffuX2CT) else ()
    assert_learns(network(images(), *inputs), network.parameters())


def test_the_parts_of_other_shapes_stay_there_too() -> None:
    upsampler, discriminator = Upsampler(4, 1).to(META), PatchDiscriminator(GEOMETRY, 4).to(META)
    assert_learns(upsampler(volumes()), upsampler.parameters())
    assert_learns(discriminator(volumes(), images()), discriminator.parameters())
    assert MeanVolume(torch.zeros(VOLUME_SHAPE)).to(META)(images()).is_meta
    unexplained = Unexplained(GEOMETRY).to(META)
    assert unexplained(images(), volumes()).is_meta and unexplained.first_estimate(images()).is_meta


# Losses

TERMS = {
    "absolute": BoneWeightedLoss(1),
    "squared": BoneWeightedLoss(2),
    "differences": DifferenceLoss(),
    "roughness": RoughnessLoss(),
    "reprojection": ReprojectionLoss(GEOMETRY),
    "structure": StructureLoss(),
    "projection": MeanProjectionLoss(),
}
OBJECTIVES = {
    "objective": Objective(TERMS, dict.fromkeys(TERMS, 0.5)),
    "diffusion": DiffusionLoss(0.5, structure_weight=0.1),
    "x2ct": X2CTLoss(),
    "squared": MeanSquaredLoss(),
}
ADVERSARIAL = {"generator": (GeneratorLoss(), 1), "discriminator": (DiscriminatorLoss(), 2)}


@pytest.mark.parametrize("term", TERMS.values(), ids=TERMS)
def test_a_term_of_an_objective_stays_there(term: nn.Module) -> None:
    x = volumes().requires_grad_()
    loss = term.to(META)(x, volumes())
    assert loss.is_meta and loss.shape == ()
    assert_learns(loss, [x])


@pytest.mark.parametrize("answers", [1, 2])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_objective_stays_there(name: str, answers: int) -> None:
    several = name == "objective"
    x = volumes(2 * answers if several else 2).requires_grad_()
    loss = OBJECTIVES[name].to(META)(Prediction(x, x.detach(), x, x.detach()), volumes())
    assert loss.is_meta and loss.shape == ()
    assert_learns(loss, [x])


@pytest.mark.parametrize(("loss", "inputs"), ADVERSARIAL.values(), ids=ADVERSARIAL)
def test_an_adversarial_loss_stays_there(loss: nn.Module, inputs: int) -> None:
    logits = [on_meta(2, 1, 3, 3, 3).requires_grad_() for _ in range(inputs)]
    assert_learns(loss.to(META)(*logits), logits)


# Projectors


class Still:
    """Poses without an error."""

    def draw(self, exams: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return torch.eye(3).expand(exams, 2, 3, 3), torch.zeros(exams, 2, 3)


PROJECTORS = {
    "separable": partial(SeparableProjector, GEOMETRY),
    "ray march": partial(RayMarchProjector, GEOMETRY),
    "parallel": lambda: SeparableProjector(preset("parallel", GEOMETRY.volume_shape, 20.0, 16)),
    "misaligned": lambda: MisalignedProjector(SeparableProjector(GEOMETRY), Still()),
}


@pytest.mark.parametrize("make", PROJECTORS.values(), ids=PROJECTORS)
def test_a_projector_and_its_adjoint_stay_there(make: Callable[[], nn.Module]) -> None:
    projector, mu, image = make().to(META), volumes().requires_grad_(), images().requires_grad_()
    assert projector(mu).shape == image.shape
    assert_learns(projector(mu), [mu])
    if hasattr(projector, "adjoint"):
        assert projector.adjoint(image).shape == mu.shape
        assert_learns(projector.adjoint(image), [image])


DETECTOR = {
    "scatter": lambda p: detector.add_scatter(p, on_meta(len(p), 2), 30.0, 10.0),
    "blur": lambda p: detector.blur(p, on_meta(len(p), 2), 10.0),
    "exposure": lambda p: detector.expose(p, 1.5),
    "contrast": lambda p: detector.contrast_curve(p, on_meta(len(p), 2), 4.0),
    "collimation": lambda p: detector.collimate(p, torch.zeros(len(p), 2, 4, dtype=torch.int64, device=META), 3.0),
}


@pytest.mark.parametrize("apply", DETECTOR.values(), ids=DETECTOR)
def test_what_a_detector_does_stays_there(apply: Callable[[Tensor], Tensor]) -> None:
    assert apply(images()).is_meta and apply(images()).shape == images().shape


# Diffusion

SAMPLERS = {"ddpm": DDPM(), "ddim": DDIM(), "ddim, noisy": DDIM(eta=0.5), "dpm-solver++(2m)": DPMSolverPP2M()}


@pytest.mark.parametrize("each", [True, False], ids=["a generator each", "one generator"])
@pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)
def test_a_sampler_stays_there(sampler, each: bool) -> None:
    def denoise(x: Tensor, t: Tensor, estimate: Tensor) -> Tensor:
        assert t.is_meta and estimate.is_meta
        return x * marginal(SCHEDULE.to(META), t, x.ndim)[0] + estimate

    generator = [torch.Generator(), torch.Generator()] if each else torch.Generator()
    timesteps = respaced_timesteps(len(SCHEDULE), 4)
    for estimate in (None, volumes()):
        assert sampler(denoise, volumes(), timesteps, SCHEDULE, generator, estimate=estimate).is_meta


@pytest.mark.parametrize("parametrisation", [Epsilon(), X0(), V()], ids=lambda module: type(module).__name__)
def test_a_noisy_example_is_made_and_read_there(parametrisation) -> None:
    t = torch.zeros(2, dtype=torch.int64, device=META)
    alpha, sigma = marginal(SCHEDULE.to(META), t, 5)
    x_t = q_sample(volumes(), volumes(), alpha, sigma)
    assert parametrisation.target(volumes(), volumes(), alpha, sigma).is_meta
    assert parametrisation.to_x0(volumes(), x_t, alpha, sigma).is_meta


def test_the_bridge_stays_there() -> None:
    bridge = BrownianBridge(bridge_alphas_cumprod()).to(META)
    assert bridge(volumes(), volumes(), torch.zeros(2, dtype=torch.int64, device=META)).is_meta
