"""The network of error scales: its evidence, its likelihood, and that it learns where errors are."""

import pytest
import torch
import torch.nn.functional as F
from tests.networks.factories import normal
from tests.refusal import refused

from scripts.geometry import preset
from scripts.inference.weights import load_weights
from scripts.losses.likelihood import LaplaceLoss
from scripts.networks.correcting import REST_GAIN
from scripts.networks.error_scale import ErrorScale

GEOMETRY = preset("carm", (16, 16, 16), 20.0, 16)


def network() -> ErrorScale:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return ErrorScale(GEOMETRY, channels=(8, 8, 16)).eval()


@torch.no_grad()
def test_scales_are_positive_and_bounded():
    scale = network()(normal(2, 2, 16, 16), 100 * normal(2, 1, 16, 16, 16))
    assert scale.shape == (2, 1, 16, 16, 16)
    assert (scale > 0.001).all() and (scale < 2).all()


def test_weights_of_another_geometry_are_refused(tmp_path):
    torch.save(network().state_dict(), tmp_path / "model.pt")
    other = ErrorScale(preset("carm", (16, 16, 16), 10.0, 16), channels=(8, 8, 16))
    with refused(ValueError, "geometry", str(tmp_path / "model.pt")):
        load_weights(other, tmp_path / "model.pt")


@torch.no_grad()
def test_it_reads_the_volume_and_what_the_radiographs_leave_unexplained():
    made, seen = network(), []
    made.unet.register_forward_hook(lambda module, arguments, output: seen.append(arguments[0]))
    image, volume = normal(1, 2, 16, 16), normal(1, 1, 16, 16, 16)
    made(image, volume)
    expected = torch.cat([volume, REST_GAIN * made.unexplained(image, volume)], dim=1)
    assert torch.equal(seen[0], expected)


@torch.no_grad()
def test_on_a_finer_grid_the_scale_is_that_of_means_interpolated():
    made, image, volume = network(), normal(1, 2, 16, 16), 0.3 * normal(1, 1, 16, 16, 16)
    finer_image = image.repeat_interleave(2, 2).repeat_interleave(2, 3)
    finer_volume = volume.repeat_interleave(2, 2).repeat_interleave(2, 3).repeat_interleave(2, 4)
    fine = made(finer_image, finer_volume)
    expected = F.interpolate(made(image, volume), scale_factor=2.0, mode="trilinear", align_corners=False)
    torch.testing.assert_close(fine, expected)


@pytest.mark.parametrize("pixels", [8, 24])
def test_an_image_that_is_no_multiple_is_refused(pixels):
    with refused(ValueError, str(pixels)):
        network()(normal(1, 2, pixels, pixels), normal(1, 1, 16, 16, 16))


def test_likelihood_is_that_of_the_laplace_distribution():
    x, x0, b = normal(1, 1, 4, 4, 4), normal(1, 1, 4, 4, 4, seed=1), normal(1, 1, 4, 4, 4, seed=2).abs() + 0.1
    exact = -torch.distributions.Laplace(x, b).log_prob(x0).mean()
    assert LaplaceLoss()(torch.cat([x, b], dim=1), x0) == pytest.approx(float(exact) - float(torch.tensor(2.0).log()))


def test_it_learns_the_scale_of_two_tissues():
    """Errors in half of the volume are ten times those in the other half, which the volume itself shows."""
    made, loss = network().train(), LaplaceLoss()
    left = torch.zeros(1, 1, 16, 16, 16, dtype=torch.bool)
    left[:, :, :8] = True
    true_scale = torch.where(left, 0.2, 0.02)
    volume, image = torch.where(left, 0.5, -0.5), torch.zeros(1, 2, 16, 16)
    optimizer = torch.optim.Adam(made.parameters(), 0.01)
    generator = torch.Generator().manual_seed(0)
    for _ in range(60):
        u = torch.rand(true_scale.shape, generator=generator) - 0.5
        error = -true_scale * u.sign() * torch.log1p(-2 * u.abs())
        value = loss(torch.cat([volume, made(image, volume)], dim=1), volume + error)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    scale = made.eval()(image, volume).detach()
    assert float(scale[left].median()) == pytest.approx(0.2, rel=0.3)
    assert float(scale[~left].median()) == pytest.approx(0.02, rel=0.3)
