"""Samples of a reconstruction: what each depends on, however many go through the network together."""

import pytest
import torch
from tests.refusal import refused
from torch import nn

from scripts.diffusion.parametrisation import V
from scripts.diffusion.samplers import DDIM, DDPM, DPMSolverPP2M
from scripts.diffusion.schedules import linear_alphas_cumprod
from scripts.geometry import preset
from scripts.inference.reconstruct import ReconstructionInferer, SuperResolvingInferer
from scripts.networks.diffux2ct import diffux2ct

SAMPLERS = [DPMSolverPP2M(), DDPM(), DDIM(eta=0.5)]
SCHEDULE = linear_alphas_cumprod()
SHAPE = (6, 5, 4)


class Pointwise(nn.Module):
    """Pulls x towards a number that the image gives, voxel by voxel, so that grouping rounds nothing; keeps records."""

    def __init__(self) -> None:
        super().__init__()
        self.volume_shape, self.conditions, self.seen = [1, *SHAPE], 0, []

    def condition(self, image):
        self.conditions += 1
        return [image.mean((1, 2, 3)).reshape(-1, 1, 1, 1, 1).expand(-1, 3, *SHAPE).contiguous()]

    def first_estimate(self, condition):
        return torch.zeros(len(condition[0]), *self.volume_shape)

    def predict_x0(self, x, t, condition, estimate):
        self.seen.append((x, condition[0]))
        return torch.tanh(x + condition[0][:, :1])


def images(count: int) -> torch.Tensor:
    return torch.rand(count, 2, 8, 8, generator=torch.Generator().manual_seed(0))


def reconstruct(sampler, image, network=None, **options) -> torch.Tensor:
    options = {"steps": 4, "samples": 5} | options
    return ReconstructionInferer(sampler, SCHEDULE, **options)(image, network or Pointwise())


@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
@pytest.mark.parametrize("exams", [1, 3])
def test_samples_do_not_depend_on_how_they_are_grouped(sampler, exams):
    alone = reconstruct(sampler, images(exams))
    assert alone.shape == (exams, 5, *SHAPE)
    assert (alone[:, :-1] - alone[:, 1:]).abs().amax((2, 3, 4)).min() > 0.01
    for size in (2, 4, 5, 99):
        assert torch.equal(reconstruct(sampler, images(exams), sample_batch=size), alone)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
@pytest.mark.parametrize("size", [1, 3])
def test_sample_k_is_the_only_sample_of_seed_plus_k(sampler, size):
    together = reconstruct(sampler, images(2), seed=7, sample_batch=size)
    for k in range(5):
        assert torch.equal(reconstruct(sampler, images(2), seed=7 + k, samples=1), together[:, k : k + 1])


@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
def test_an_exam_does_not_depend_on_the_others_of_its_batch(sampler):
    together = reconstruct(sampler, images(3), sample_batch=2)
    for i in range(3):
        assert torch.equal(reconstruct(sampler, images(3)[i : i + 1]), together[i : i + 1])


@pytest.mark.parametrize("exams, size", [(1, 4), (3, 1)])
def test_the_condition_is_made_once_and_takes_its_memory_once(exams, size):
    network = Pointwise()
    reconstruct(DDPM(), images(exams), network, sample_batch=size)
    assert network.conditions == 1
    assert len({shared.untyped_storage().data_ptr() for _, shared in network.seen}) == 1
    assert all(len(x) == len(shared) <= exams * size for x, shared in network.seen)
    assert network.seen[0][1].untyped_storage().nbytes() == 4 * exams * 3 * 6 * 5 * 4


@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
def test_grouping_changes_the_real_networks_samples_by_rounding_only(sampler):
    torch.manual_seed(0)
    geometry = preset("carm", (8, 8, 8), 20.0, 16)
    sizes = {"channels": (8, 8), "plane_channels": (8, 8, 8), "condition_channels": (4, 4), "heads": 2, "window": 2}
    network = diffux2ct(geometry, V(), SCHEDULE, **sizes).eval()
    for parameter in network.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    image = torch.rand(2, 2, 16, 16)
    alone, grouped = (reconstruct(sampler, image, network, sample_batch=size) for size in (1, 3))
    torch.testing.assert_close(grouped, alone, rtol=0, atol=1e-5)


def test_every_step_of_every_group_is_reported():
    told = []
    reconstruct(DDPM(), images(1), steps=2, sample_batch=3, callback=lambda *step: told.append(step))
    assert told == [(0, 2), (1, 2)] * 2


@pytest.mark.parametrize("counts", [{"samples": 0}, {"sample_batch": 0}])
def test_counts_below_one_are_refused(counts):
    with refused(ValueError, "samples", "sample_batch", "at least 1", "got"):
        reconstruct(DDIM(), images(1), **counts)


class Staged(nn.Module):
    """A network whose samples are drawn on a finer grid by copying voxels, in a way that needs no neighbours."""

    def __init__(self) -> None:
        super().__init__()
        self.base, self.upsampler = Pointwise(), nn.Upsample(scale_factor=2, mode="nearest")
        self.upsampler.halo, self.upsampler.factor, self.upsampler.stride, self.passes = 0, 2, 1, 1

    def coarse_image(self, image):
        return image

    def start(self, coarse):
        return coarse

    def evidence(self, image, volume):
        return volume

    def mirrored(self, evidence):
        return evidence.flip(2)


@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("tile", [1, 3, 64])
def test_every_sample_of_every_exam_is_drawn_on_the_finer_grid(samples, tile):
    options = {"sampler": DDIM(), "alphas_cumprod": SCHEDULE, "steps": 2, "samples": samples}
    network, image = Staged().eval(), images(2)
    coarse = ReconstructionInferer(**options)(image, network.base)
    fine = SuperResolvingInferer(**options, tile=tile)(image, network)
    assert fine.shape[:2] == coarse.shape[:2] == (2, samples)
    expected = coarse.repeat_interleave(2, 2).repeat_interleave(2, 3).repeat_interleave(2, 4)
    assert torch.equal(fine, expected.clamp(-1, 1))
