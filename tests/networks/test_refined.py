"""The refining stage: what it reads, what it starts as, how far it looks, what learns, and that it does learn."""

import pytest
import torch
from tests.networks.factories import normal
from torch import Tensor, nn

from scripts.diffusion.parametrisation import X0
from scripts.diffusion.samplers import DDIM
from scripts.diffusion.schedules import linear_alphas_cumprod
from scripts.geometry import preset
from scripts.inference.reconstruct import SuperResolvingInferer
from scripts.inference.tiles import in_tiles
from scripts.intensity import hu_to_mu, hu_to_network, radiograph_to_network
from scripts.networks.correcting import SelfCorrecting
from scripts.networks.diffux2ct import diffux2ct
from scripts.networks.lifted import LiftedConditioner
from scripts.networks.refined import Refined, Refiner, refined
from scripts.phantom.torso import torso
from scripts.physics.separable import SeparableProjector
from scripts.training.inferers import RefiningTrainingInferer

FINE = preset("carm", (16, 16, 16), 20.0, 32)
COARSE = preset("carm", (8, 8, 8), 40.0, 16)


def network(geometry=COARSE, **sizes) -> Refined:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        base = diffux2ct(
            geometry, X0(), linear_alphas_cumprod(), (8, 16), (4, 6, 8), (4, 8), patch=2, heads=2, window=2,
            steps=2, dropout=0.0, conditioner=LiftedConditioner, network=SelfCorrecting,
        )  # fmt: skip
        for parameter in base.parameters():
            if not parameter.any():
                nn.init.normal_(parameter, std=0.1)
        return refined(FINE, base, (8, 8), (1, 1), plane_channels=(8, 8), lifted_channels=4, **sizes).eval()


def speaking(**sizes) -> Refined:
    made = network(**sizes)
    for parameter in (*made.upsampler.parameters(), *made.lifting.parameters()):
        if not parameter.any():
            parameter.data = 0.1 * normal(*parameter.shape)
    return made


@pytest.fixture
def exam() -> tuple[Tensor, Tensor]:
    """Radiographs of a phantom, and the phantom on the fine grid."""
    hu = torso(3, FINE.volume_shape, FINE.volume_spacing_mm).hu[None, None]
    return radiograph_to_network(SeparableProjector(FINE)(hu_to_mu(hu))), hu_to_network(hu)


@torch.no_grad()
def test_untrained_it_interpolates_the_coarse_volume_in_every_pass(exam) -> None:
    made = network(passes=3)
    expected = made.start(made.base(made.coarse_image(exam[0])))
    torch.testing.assert_close(made(exam[0]), expected.clamp(-1, 1))


@torch.no_grad()
def test_a_volume_that_explains_its_radiographs_leaves_no_rest(exam) -> None:
    image, x0 = exam
    evidence = network().evidence(image, x0)
    assert evidence[:, 8:24].abs().max() < 1e-3
    assert network().evidence(image, -torch.ones_like(x0))[:, 8:24].abs().max() > 0.1


@torch.no_grad()
def test_a_missing_view_has_no_rest(exam) -> None:
    image, x0 = exam
    image[:, 1] = 0
    evidence = network().evidence(image, -torch.ones_like(x0))
    assert evidence[:, 8:16].abs().max() > 0.1 and not evidence[:, 16:24].any()


@torch.no_grad()
def test_the_second_pass_reads_the_rest_that_the_first_one_left(exam) -> None:
    image, made = exam[0], speaking(passes=2)
    first = made.upsampler(made.evidence(image, made.start(made.base(made.coarse_image(image)))))
    assert torch.equal(made(image), made.upsampler(made.evidence(image, first)))


@torch.no_grad()
@pytest.mark.parametrize(("blocks", "shape"), [((1, 1), (32, 4, 2)), ((2, 1), (2, 40, 4)), ((1, 3), (4, 2, 52))])
def test_tiles_with_the_stated_halo_show_no_seams_and_with_less_they_do(blocks, shape) -> None:
    torch.manual_seed(0)
    refiner = Refiner(9, (4, 4), blocks).double()
    refiner.head.weight.data = normal(*refiner.head.weight.shape).double()
    evidence = normal(1, 9, *shape).double()
    whole = refiner(evidence)
    assert (in_tiles(refiner, evidence, 2, refiner.halo, 2, 2) - whole).abs().max() < 1e-12
    assert (in_tiles(refiner, evidence, 2, refiner.halo - 2, 2, 2) - whole).abs().max() > 1e-9


def test_tiles_that_do_not_begin_at_the_stride_are_refused() -> None:
    refiner = Refiner(9, (4, 4))
    with pytest.raises(ValueError, match="multiples of 2, got 3"):
        in_tiles(refiner, normal(1, 9, 8, 8, 8), 3, refiner.halo, 2, 2)


@torch.no_grad()
def test_samples_are_drawn_in_tiles_as_at_once(exam) -> None:
    options = {"sampler": DDIM(), "alphas_cumprod": linear_alphas_cumprod(), "steps": 2, "samples": 2}
    at_once, in_parts = (SuperResolvingInferer(**options, tile=tile)(exam[0], speaking(passes=2)) for tile in (8, 4))
    assert at_once.shape == (1, 2, 16, 16, 16)
    torch.testing.assert_close(at_once, in_parts, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_scripted_network_is_the_eager_one(exam) -> None:
    made = speaking(passes=2)
    torch.testing.assert_close(torch.jit.script(made)(exam[0]), made(exam[0]), atol=1e-4, rtol=1e-4)


def test_the_tiles_of_a_training_pass_are_cut_from_the_whole_pass(exam) -> None:
    image, x0 = exam
    made, corners = speaking(), torch.tensor([[0, 0, 0], [2, 4, 0]])
    tiles = made(image, x0, corners, 4)
    evidence = made.crop(made.evidence(image, x0), corners, 4)
    assert torch.equal(tiles, made.upsampler(evidence))
    assert torch.equal(made.crop(x0, 2 * corners, 8)[1], x0[0, :, 4:12, 8:16, 0:8])


@torch.no_grad()
def test_mirrored_evidence_is_that_of_mirrored_volumes(exam) -> None:
    made = speaking()
    evidence = made.evidence(*exam)
    mirrored = made.mirrored(evidence)
    unfold = made.upsampler.unfold
    for channel in range(0, 32, 8):
        part = slice(channel, channel + 8)
        assert torch.equal(unfold(mirrored[:, part]), unfold(evidence[:, part]).flip(2))
    assert torch.equal(mirrored[:, 32:], evidence[:, 32:].flip(2))
    assert torch.equal(made.mirrored(mirrored), evidence)


@torch.no_grad()
def test_a_mirrored_tile_answers_in_the_place_of_the_tile(exam) -> None:
    image, x0 = exam
    silent, corners = network(), torch.tensor([[2, 4, 0]])
    torch.testing.assert_close(
        silent(image, x0, corners, 4, mirror=True), silent.crop(x0.clamp(-1, 1), 2 * corners, 8), atol=0, rtol=0
    )


def test_a_tile_that_is_larger_than_the_volume_is_the_whole_volume(exam) -> None:
    image, x0 = exam
    answer = RefiningTrainingInferer(tiles=1, side=100)(image, speaking(), x0=x0)
    assert torch.equal(answer.target, x0) and answer.output.shape == x0.shape


@torch.no_grad()
def test_mirrored_tiles_are_trained_towards_the_same_truth(exam) -> None:
    image, x0 = exam
    made, answers = speaking(), []
    for mirror in (0.0, 1.0):
        torch.manual_seed(1)
        answers.append(RefiningTrainingInferer(side=4, mirror=mirror)(image, made, x0=x0))
    plain, mirrored = answers
    assert torch.equal(plain.target, mirrored.target) and not torch.equal(plain.output, mirrored.output)
    for parameter in made.upsampler.parameters():
        parameter.zero_()
    torch.manual_seed(1)
    plain = RefiningTrainingInferer(side=4, mirror=0.0)(image, made, x0=x0)
    torch.manual_seed(1)
    assert torch.equal(RefiningTrainingInferer(side=4, mirror=1.0)(image, made, x0=x0).output, plain.output)


@pytest.mark.parametrize(
    "sizes",
    [{"tiles": 0}, {"tiles": 1.5}, {"side": 0}, {"side": 47}, {"side": "wide"}, {"mirror": 1.5}, {"mirror": "often"}],
)
def test_tiles_that_cannot_be_are_refused(sizes) -> None:
    with pytest.raises(ValueError, match=str(*sizes.values())):
        RefiningTrainingInferer(**sizes)


def test_the_coarse_network_is_frozen_and_everything_else_learns(exam) -> None:
    image, x0 = exam
    made = speaking().train()
    answer = RefiningTrainingInferer(tiles=2, side=4)(image, made, x0=x0)
    (answer.output * normal(*answer.output.shape)).sum().backward()
    learnt = {name for name, p in made.named_parameters() if p.grad is not None and p.grad.any()}
    assert learnt == {name for name, p in made.named_parameters() if p.requires_grad}
    assert not any(name.startswith("base.") for name in learnt)


def test_a_phantom_is_learnt_by_heart(exam) -> None:
    """The coarse stage stays as it is, so that all the gain is the refining stage's."""
    image, x0 = exam
    made = network().train()
    optimizer = torch.optim.Adam([p for p in made.parameters() if p.requires_grad], 3e-3)
    torch.manual_seed(0)
    inferer = RefiningTrainingInferer(tiles=1, side=8)
    losses = []
    for _ in range(40):
        answer = inferer(image, made, x0=x0)
        loss = (answer.output - answer.target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.2 * sum(losses[:5])


def test_detectors_that_the_coarse_stage_cannot_share_are_refused() -> None:
    with pytest.raises(ValueError, match=r"24 pixels.*32 pixels"):
        network(geometry=preset("carm", (8, 8, 8), 40.0, 24))


@torch.no_grad()
def test_a_refined_volume_can_be_refined_once_more() -> None:
    first = speaking()
    finer = FINE.with_volume((32, 32, 32), 10.0)
    second = refined(finer, first, (8, 8), (1, 1), plane_channels=(8, 8), lifted_channels=4).eval()
    image = normal(1, 2, 32, 32)
    expected = second.start(first(image)).clamp(-1, 1)
    torch.testing.assert_close(second(image), expected)  # untrained
    sampling = {"sampler": DDIM(), "alphas_cumprod": linear_alphas_cumprod(), "steps": 2}
    volume = SuperResolvingInferer(**sampling)(image, second)
    torch.testing.assert_close(volume, second.start(SuperResolvingInferer(**sampling)(image, first)).clamp(-1, 1))
    assert RefiningTrainingInferer(1, 8)(image, second, x0=volume).output.shape == (1, 1, 16, 16, 16)


def test_a_volume_without_corners_is_refused(exam) -> None:
    with pytest.raises(ValueError, match="volume and corners"):
        network()(exam[0], exam[1])
