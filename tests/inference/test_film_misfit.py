"""The misfit of films to what a network makes of them."""

import torch

from scripts.geometry import preset
from scripts.inference.film_misfit import FilmMisfit
from scripts.intensity import hu_to_mu, hu_to_network, network_to_hu, radiograph_to_network
from scripts.networks.trusted import trusted_consistency
from scripts.phantom.torso import torso
from scripts.physics.separable import SeparableProjector

GEOMETRY = preset("carm", (16, 16, 16), 20.0, 16)


def test_it_is_the_mean_of_what_the_network_s_and_consistent_volumes_do_not_explain():
    project, network = SeparableProjector(GEOMETRY), torch.nn.Identity()
    bodies = hu_to_network(torch.stack([torso(seed, GEOMETRY.volume_shape, 20.0).hu for seed in range(3)])[:, None])
    films = project(hu_to_mu(network_to_hu(bodies)))
    changed = films + 0.1 * torch.randn(films.shape, generator=torch.Generator().manual_seed(0))
    consistency, seen = trusted_consistency(GEOMETRY, torch.device("cpu")), []

    def reconstruct(image, by):
        assert by is network
        seen.append(image)
        return bodies[len(torch.cat(seen)) - len(image) : len(torch.cat(seen))]

    def missed(volumes):
        rest = changed - project(hu_to_mu(network_to_hu(volumes)))
        return rest.flatten(1).norm(dim=1) / changed.flatten(1).norm(dim=1)

    found = FilmMisfit(reconstruct, network, consistency, torch.device("cpu"), batch=2)(changed)
    image = radiograph_to_network(changed)
    consistent = consistency.consistent(bodies, image, consistency.unexplained.rest(image, bodies))
    torch.testing.assert_close(found, (missed(bodies) * missed(consistent)).sqrt(), rtol=1e-3, atol=1e-3)
    assert [len(image) for image in seen] == [2, 1]
    torch.testing.assert_close(torch.cat(seen), image)
