"""Volumes carried over to a finer grid: what the network sees, interpolation, and films met at full resolution."""

import pytest
import torch
from monai.metrics import PSNRMetric
from tests.refusal import refused

from scripts.geometry import preset
from scripts.inference.finer import FinerInferer
from scripts.intensity import hu_to_mu, hu_to_network, network_to_hu, radiograph_to_network
from scripts.networks.trusted import WhereTrusted, trusted_consistency
from scripts.physics.separable import SeparableProjector

COARSE = preset("carm", (16, 16, 16), 20.0, 16)
FINE = COARSE.finer(2)
NETWORK = torch.nn.Identity()


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def halved(volume):
    return torch.nn.functional.avg_pool3d(volume, 2)


def patients():
    """Two smooth volumes in network range, with a sharp plate inside each."""
    rough = torch.nn.functional.interpolate(normal(2, 1, 6, 6, 6), size=(32, 32, 32), mode="trilinear")
    hu = 50 * rough.clamp(-2, 2)
    hu[:, :, 15:16, 8:24, 8:24] -= 400
    return hu_to_network(hu)


@torch.no_grad()
def films(volume):
    return radiograph_to_network(SeparableProjector(FINE)(hu_to_mu(network_to_hu(volume))))


def test_the_network_sees_means_of_pixels_and_the_samples_are_interpolated_and_changed_in_turn():
    image, volumes, seen = normal(2, 2, 32, 32), normal(2, 3, 16, 16, 16, seed=1), []

    def reconstruct(shown, network):
        seen.append((shown, network))
        return volumes

    def change(volume, films):
        assert films is image
        return 2 * volume

    found = FinerInferer(reconstruct, 2, [change, lambda volume, films: -volume])(image, NETWORK)
    (shown, network), *others = seen
    assert not others and network is NETWORK
    torch.testing.assert_close(shown, image.reshape(2, 2, 16, 2, 16, 2).mean((3, 5)))
    expected = torch.nn.functional.interpolate(volumes, size=(32, 32, 32), mode="trilinear", align_corners=False)
    torch.testing.assert_close(found, expected * torch.tensor([2.0, -1.0, 2.0]).reshape(1, 3, 1, 1, 1))


@torch.no_grad()
def test_detail_across_the_beams_comes_back_from_the_films():
    truth = patients()
    image = films(truth)
    meet = trusted_consistency(FINE, torch.device("cpu"))
    inferer = FinerInferer(lambda shown, network: halved(truth), 2, [meet])
    interpolated = FinerInferer(lambda shown, network: halved(truth), 2, [lambda volume, shown: volume])
    found, without = (made(image, NETWORK) for made in (inferer, interpolated))
    misfit, before = (((films(made) - image).norm() / image.norm()).item() for made in (found, without))
    assert misfit < 0.3 * before
    psnr = PSNRMetric(max_val=2.0)
    assert psnr(found, truth).mean() > psnr(without, truth).mean() + 0.3


@torch.no_grad()
def test_films_that_are_not_trusted_leave_the_interpolation():
    truth = patients()
    image = films(truth) * torch.tensor([1.0, 1.3]).reshape(2, 1, 1, 1)
    meet = trusted_consistency(FINE, torch.device("cpu"))
    inferer = FinerInferer(lambda shown, network: halved(truth), 2, [meet])
    interpolated = FinerInferer(lambda shown, network: halved(truth), 2, [lambda volume, shown: volume])
    found, without = (made(image, NETWORK) for made in (inferer, interpolated))
    assert not torch.equal(found[0], without[0]) and torch.equal(found[1], without[1])


@torch.no_grad()
def test_volumes_change_only_where_their_films_are_trusted():
    truth = patients()
    image = films(truth) * torch.tensor([1.0, 1.3]).reshape(2, 1, 1, 1)
    seen = []

    def change(volume, image):
        seen.append(image)
        return volume + 1

    where_trusted = WhereTrusted(change, trusted_consistency(COARSE, torch.device("cpu")))
    first, second = where_trusted(truth, image)
    assert torch.equal(first, truth[0] + 1) and torch.equal(second, truth[1])
    assert torch.equal(where_trusted(truth[1:], image[1:]), truth[1:]) and len(seen) == 1


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_a_finer_geometry_covers_the_same_fields_and_coarsens_back(factor):
    finer = COARSE.finer(factor)
    assert finer.volume_shape == (16 * factor,) * 3 and finer.detector_pixels == 16 * factor
    assert finer.volume_size_mm == pytest.approx(COARSE.volume_size_mm)
    assert finer.detector_size_mm == pytest.approx(COARSE.detector_size_mm)
    assert finer.coarser(factor).volume_shape == COARSE.volume_shape


@pytest.mark.parametrize("factor", [0, -1, 1.5, True, "2", None, 10**6])
def test_a_factor_that_makes_no_grid_is_refused(factor):
    with refused(ValueError, "grid_factor", repr(factor)):
        COARSE.finer(factor)
