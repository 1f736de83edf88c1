"""Covariances of errors by tissue: laws, and vertebrae that come back from radiographs."""

import pytest
import torch
from tests.networks.factories import normal

from scripts.geometry import preset
from scripts.intensity import AIR_BELOW_HU, hu_to_mu, hu_to_network, network_to_hu, radiograph_to_network
from scripts.networks.lifting import Unexplained
from scripts.networks.tissue_prior import TissueCovariance, TissueVariance
from scripts.networks.trusted import TrustedConsistency
from scripts.physics.separable import SeparableProjector

SMALL = preset("carm", (4, 5, 6), 12.0, 8)
GEOMETRY = preset("carm", (32, 32, 32), 5.0, 64)
PRIORS = [lambda geometry: TissueVariance(), TissueCovariance]


def mixed(shape, seed=0):
    """Voxels of air, soft tissue and bone at random."""
    return hu_to_network(500 * normal(1, 1, *shape, seed=seed))


@pytest.mark.parametrize("prior", PRIORS)
def test_a_covariance_is_symmetric_and_has_no_negative_eigenvalue(prior):
    made, count = prior(SMALL).double(), 4 * 5 * 6
    weights = made.weights(mixed(SMALL.volume_shape).double()).expand(count, -1, -1, -1, -1)
    c = made(torch.eye(count, dtype=torch.float64).reshape(count, 1, *SMALL.volume_shape), weights).flatten(1)
    torch.testing.assert_close(c, c.T)
    assert torch.linalg.eigvalsh(c)[0] > -1e-12 * c.diagonal().max() and (c.diagonal() > 0).any()


@pytest.mark.parametrize("prior", PRIORS)
def test_air_does_not_change(prior):
    volume = mixed(SMALL.volume_shape)
    made, air = prior(SMALL), network_to_hu(volume) < AIR_BELOW_HU - 1
    assert air.any() and not made(normal(*volume.shape, seed=1), made.weights(volume))[air].any()


def test_bone_changes_in_detail_only_and_soft_tissue_smoothly():
    made = TissueCovariance(GEOMETRY)
    wave = (torch.pi * torch.arange(32)).cos().expand(1, 1, 32, 32, 32)  # from voxel to voxel along w
    inside = (slice(None), slice(None), *3 * [slice(8, 24)])

    def share(hu, values):
        """Variance of such an error, in shares of that of independent ones."""
        weights = made.weights(hu_to_network(torch.full_like(values, hu)))
        return (made(values, weights)[inside] / (made.std**2 * values[inside])).mean().item()

    assert share(-200.0, torch.ones_like(wave)) == pytest.approx(1.2, abs=0.1)
    assert share(-200.0, wave) == pytest.approx(0.2, abs=0.1)
    assert share(600.0, torch.ones_like(wave)) == pytest.approx(0, abs=0.01)
    assert share(600.0, wave) == pytest.approx(1, abs=0.01)


@torch.no_grad()
def test_vertebrae_come_back_from_radiographs_instead_of_stripes_through_the_body():
    hu = torch.full((1, 1, 32, 32, 32), -1000.0)
    hu[..., 4:28, 6:26, :] = 40
    spine = hu.clone()
    spine[..., 13:19, 18:24, :] = 250
    single = spine.clone()
    single[..., 13:19, 18:24, :] += 100 * (torch.arange(32) * torch.pi / 3).sin()  # every 30 mm
    image = radiograph_to_network(SeparableProjector(GEOMETRY)(hu_to_mu(single)))
    truth, start = single - spine, hu_to_network(spine)
    in_spine = spine > 200

    def found(prior):
        change = network_to_hu(TrustedConsistency(Unexplained(GEOMETRY), prior)(start, image)) - spine
        right = (change * truth)[in_spine].sum() / truth.square().sum()
        return right.item(), change[~in_spine].square().mean().sqrt().item()

    (right, stripes), (before, stripes_before) = found(TissueCovariance(GEOMETRY)), found(TissueVariance())
    print(right, stripes, before, stripes_before)
    assert right > 0.5 > 2 * before and stripes < stripes_before / 2
