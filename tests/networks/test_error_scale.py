"""The network of error scales: its evidence, its objective, and that it learns where errors are."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from tests.networks.factories import normal
from tests.refusal import refused

from scripts.geometry import preset
from scripts.inference.weights import load_weights
from scripts.networks.correcting import REST_GAIN
from scripts.networks.error_scale import ErrorScale
from scripts.networks.local_statistics import COUNT, gaussian_means, local_statistics
from scripts.studies.learn_error import FLOOR, Voxels, learn, log_error_loss, rank

GEOMETRY = preset("carm", (16, 16, 16), 20.0, 16)


def network(geometry=GEOMETRY) -> ErrorScale:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return ErrorScale(geometry, hidden=16).eval()


@torch.no_grad()
def test_scales_are_positive_and_bounded():
    scale = network()(normal(2, 2, 16, 16), 100 * normal(2, 1, 16, 16, 16))
    assert scale.shape == (2, 1, 16, 16, 16)
    assert (scale > 0.001).all() and (scale < 2).all()


def test_weights_of_another_geometry_are_refused(tmp_path):
    torch.save(network().state_dict(), tmp_path / "model.pt")
    other = network(preset("carm", (16, 16, 16), 10.0, 16))
    with refused(ValueError, "geometry", str(tmp_path / "model.pt")):
        load_weights(other, tmp_path / "model.pt")


def test_an_image_of_another_geometry_is_refused():
    with refused(ValueError, "32"):
        network()(normal(1, 2, 32, 32), normal(1, 1, 16, 16, 16))


@torch.no_grad()
def test_it_reads_local_statistics_and_what_the_radiographs_leave_unexplained():
    made, seen = network(), []
    made.pointwise.register_forward_hook(lambda module, arguments, output: seen.append(arguments[0]))
    image, volume = normal(1, 2, 16, 16), normal(1, 1, 16, 16, 16)
    made(image, volume)
    expected = torch.cat([local_statistics(volume, 20.0), REST_GAIN * made.unexplained(image, volume)], dim=1)
    assert torch.equal(torch.cat(seen, dim=2), expected)


def test_gaussian_means_are_scipys_inside_and_keep_a_constant_at_the_edge():
    x = normal(1, 1, 24, 20, 22)
    inside = (..., slice(8, -8), slice(8, -8), slice(8, -8))
    expected = gaussian_filter(x[0, 0].double().numpy(), 1.5, truncate=20)
    np.testing.assert_allclose(gaussian_means(x, 1.5)[0, 0].numpy()[inside], expected[inside], atol=1e-4)
    torch.testing.assert_close(gaussian_means(torch.full_like(x, 3.0), 4.0), torch.full_like(x, 3.0))


def test_statistics_are_those_of_a_ramp():
    """A volume that rises by 0.1 per voxel of 1 mm has that gradient, and the deviation sigma * 0.1 in a window."""
    ramp = 0.1 * torch.arange(128.0).reshape(1, 1, 128, 1, 1).expand(1, 1, 128, 8, 8)
    middle = local_statistics(ramp, 1.0)[0, :, 64, 4, 4]
    assert len(middle) == COUNT
    undone = (middle[2:5].exp() - 1) * 0.008  # the gradient, and the deviations in windows of 5 and 7.5 mm
    torch.testing.assert_close(undone, torch.tensor([0.1, 0.5, 0.75]), rtol=1e-3, atol=0)
    assert middle[:2].tolist() == pytest.approx([6.4, 6.4], rel=0.01)
    assert middle[-3:].tolist() == pytest.approx([1 / 127, 1 / 7, 1 / 7])


def test_the_same_body_on_a_finer_grid_has_the_same_statistics():
    smooth = gaussian_means(normal(1, 1, 40, 40, 40), 6.0) * 10
    fine = torch.nn.functional.interpolate(smooth, scale_factor=2.0, mode="trilinear", align_corners=False)
    back = torch.nn.functional.avg_pool3d(local_statistics(fine, 2.5), 2)
    deviations = slice(3, COUNT - 3)
    torch.testing.assert_close(back[:, deviations], local_statistics(smooth, 5.0)[:, deviations], rtol=0.05, atol=0.02)


def test_the_objective_is_least_for_the_geometric_mean_of_errors():
    errors = 0.1 * normal(4000).exp()
    best = (errors + FLOOR).log().mean().exp()
    values = [float(log_error_loss(factor * best, errors)) for factor in (0.9, 1, 1.1)]
    assert values[1] < min(values[0], values[2])


@torch.no_grad()
def test_voxels_in_any_order_have_the_sizes_of_the_volume():
    made, image, volume = network(), normal(1, 2, 16, 16), normal(1, 1, 16, 16, 16)
    chosen = torch.tensor([5, 4000, 77])
    some = made.evidence(image, volume)[0].flatten(1)[:, chosen].T[..., None, None, None]
    torch.testing.assert_close(made.size(some).flatten(), made(image, volume).flatten()[chosen])


def test_it_learns_the_scale_of_two_tissues():
    """Errors in half of the volume are ten times those in the other half, which the volume itself shows."""
    made, generator = network(), torch.Generator().manual_seed(0)
    left = torch.arange(16**3) < 16**3 // 2
    volume, image = torch.where(left, 0.5, -0.5).reshape(1, 1, 16, 16, 16), torch.zeros(1, 2, 16, 16)
    errors = torch.where(left, 0.3, 0.03) * torch.randn(len(left), generator=generator).abs()
    case = Voxels(made.evidence(image, volume).detach()[0].flatten(1).T[..., None, None, None], errors, errors >= 0)
    learn(made, [case], 200, 256, 0.01, generator)
    scale = made(image, volume).detach().flatten()
    assert float(scale[left].median() / scale[~left].median()) == pytest.approx(7, rel=0.3)  # the floor counts, too
    assert rank(made, case) > 0.6
