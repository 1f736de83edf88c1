"""Batches reach the network in its own units, and simulated radiographs are projections with the noise asked for."""

import pytest
import torch

from scripts.engine.batches import PrepareSimulated, WithTarget, prepare_measured
from scripts.geometry import preset
from scripts.intensity import hu_to_mu, hu_to_network, network_to_radiograph, radiograph_to_network
from scripts.physics.separable import SeparableProjector

CPU = torch.device("cpu")
PROJECTOR = SeparableProjector(preset("carm", (8, 8, 8), 20.0, 8))


@pytest.fixture
def hu() -> torch.Tensor:
    return torch.rand(64, 1, 8, 8, 8, generator=torch.Generator().manual_seed(0)) * 2500 - 1000


def test_simulated_image_is_the_projection_of_the_unclipped_ct(hu):
    hu[:, :, 4, 4, 4] = 3000.0  # metal, beyond the network's range
    image, x0 = PrepareSimulated(PROJECTOR)({"hu": hu}, CPU)
    torch.testing.assert_close(image, radiograph_to_network(PROJECTOR(hu_to_mu(hu))))
    assert not torch.allclose(image, radiograph_to_network(PROJECTOR(hu_to_mu(hu.clamp(max=1500.0)))))
    torch.testing.assert_close(x0, hu_to_network(hu))
    assert x0.max() == 1.0


def test_noise_has_the_standard_deviation_asked_for_in_line_integrals(hu):
    clean = network_to_radiograph(PrepareSimulated(PROJECTOR)({"hu": hu}, CPU)[0])
    torch.manual_seed(0)
    noisy = network_to_radiograph(PrepareSimulated(PROJECTOR, noise_std=0.05)({"hu": hu}, CPU)[0])
    noise = noisy - clean
    assert noise.std().item() == pytest.approx(0.05, rel=0.05)
    assert abs(noise.mean().item()) < 0.003


def test_gain_is_one_factor_per_exam(hu):
    clean, _ = PrepareSimulated(PROJECTOR)({"hu": hu}, CPU)
    torch.manual_seed(0)
    scaled, _ = PrepareSimulated(PROJECTOR, gain_std=0.1)({"hu": hu}, CPU)
    gain = scaled[:, 0, 4, 4] / clean[:, 0, 4, 4]
    torch.testing.assert_close(scaled, clean * gain[:, None, None, None])
    assert gain.std().item() == pytest.approx(0.1, rel=0.3) and abs(gain.mean().item() - 1) < 0.05


def test_simulation_follows_the_global_seed(hu):
    prepare = PrepareSimulated(PROJECTOR, noise_std=0.1, gain_std=0.1)
    images = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        images.append(prepare({"hu": hu}, CPU)[0])
    assert torch.equal(images[0], images[1]) and not torch.equal(images[0], images[2])


def test_measured_image_is_scaled_by_the_fixed_constant(hu):
    line_integrals = torch.rand(2, 2, 8, 8) * 8
    image, x0 = prepare_measured({"image": line_integrals, "hu": hu[:2]}, CPU)
    torch.testing.assert_close(network_to_radiograph(image), line_integrals)
    torch.testing.assert_close(x0, hu_to_network(hu[:2]))


def test_measured_exam_without_ct_has_no_target():
    assert prepare_measured({"image": torch.rand(2, 2, 8, 8)}, CPU)[1] is None


def test_target_reaches_the_inferer_as_x0(hu):
    image, target, arguments, named = WithTarget(PrepareSimulated(PROJECTOR))({"hu": hu}, CPU)
    assert arguments == () and named.keys() == {"x0"} and named["x0"] is target
    assert image.shape == (64, 2, 8, 8)
