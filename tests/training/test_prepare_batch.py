"""Batches reach the network in its own units, and simulated radiographs are projections with the noise asked for."""

import pytest
import torch
from tests.refusal import refused

from scripts.geometry import VIEWS, preset
from scripts.inference.measured import KeepViews, prepare_measured
from scripts.intensity import hu_to_mu, hu_to_network, network_to_radiograph, radiograph_to_network
from scripts.physics.separable import SeparableProjector
from scripts.training.prepare_batch import DropViews, MakeFilms, PrepareBatch, PrepareSimulated

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
    image, x0 = prepare_measured({"line_integrals": line_integrals, "hu": hu[:2]}, CPU)
    torch.testing.assert_close(network_to_radiograph(image), line_integrals)
    torch.testing.assert_close(x0, hu_to_network(hu[:2]))


def test_measured_exam_without_ct_has_no_target():
    assert prepare_measured({"line_integrals": torch.rand(2, 2, 8, 8)}, CPU)[1] is None


@pytest.mark.parametrize("views", [("frontal",), ("lateral",), VIEWS])
def test_the_channel_of_a_view_that_is_not_kept_is_zero_and_the_rest_is_as_it_was(views, hu):
    batch = {"line_integrals": torch.rand(2, 2, 8, 8) + 1, "hu": hu[:2]}
    (image, x0), (both, target) = KeepViews(views)(batch, CPU), prepare_measured(batch, CPU)
    assert torch.equal(x0, target)
    for number, view in enumerate(VIEWS):
        assert torch.equal(image[:, number], both[:, number] * (view in views))


class Doubled:
    """Films whose line integrals are twice those of the radiographs, and a random offset."""

    def draw(self, exams, generator):
        offset = torch.rand(exams, 1, 1, 1, generator=generator)
        return lambda line_integrals: 2 * line_integrals + offset


def test_films_are_made_of_the_line_integrals():
    plain = torch.rand(64, 2, 8, 8)
    offset = network_to_radiograph(MakeFilms(Doubled())(plain)) - 2 * network_to_radiograph(plain)
    torch.testing.assert_close(offset, offset[:, :1, :1, :1].expand_as(offset), rtol=0, atol=1e-5)
    assert 0 <= offset.min() < offset.max() <= 1 + 1e-5


def test_films_follow_the_global_seed(hu):
    prepare = PrepareBatch(PrepareSimulated(PROJECTOR, noise_std=0.1, gain_std=0.1), [MakeFilms(Doubled())])
    images = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        images.append(prepare({"hu": hu}, CPU)[0])
    assert torch.equal(images[0], images[1]) and not torch.equal(images[0], images[2])


def test_steps_change_the_image_in_their_order_and_leave_the_target(hu):
    (plain, x0), steps = (
        PrepareSimulated(PROJECTOR)({"hu": hu}, CPU),
        [lambda image: image + 1, lambda image: 2 * image],
    )
    image, target, _, _ = PrepareBatch(PrepareSimulated(PROJECTOR), steps)({"hu": hu}, CPU)
    assert torch.equal(image, 2 * (plain + 1)) and torch.equal(target, x0)


def test_target_reaches_the_inferer_as_x0(hu):
    image, target, arguments, named = PrepareBatch(PrepareSimulated(PROJECTOR))({"hu": hu}, CPU)
    assert arguments == () and named.keys() == {"x0"} and named["x0"] is target
    assert image.shape == (64, 2, 8, 8)


def test_the_pair_may_be_arranged_for_another_trainer():
    image, x0 = torch.rand(2, 2, 8, 8), torch.rand(2, 1, 8, 8, 8)
    prepare = PrepareBatch(lambda batch, device, non_blocking: (image, x0), arrange=lambda a, b: (b, a, (), {}))
    first, second, *_ = prepare({}, CPU)
    assert first is x0 and second is image


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_views_are_lost_as_often_as_told_each_as_often_as_the_other_and_never_both(probability):
    image = torch.rand(4000, 2, 4, 4) + 1
    torch.manual_seed(0)
    dropped = DropViews(probability)(image)
    lost = (dropped == 0).flatten(2).all(2)
    assert not lost.all(1).any()
    assert torch.equal(dropped[~lost], image[~lost])
    assert lost.float().mean(0).tolist() == pytest.approx([probability / 2] * 2, abs=0.03)


@pytest.mark.parametrize("probability", [-0.1, 50])
def test_a_share_of_views_that_cannot_be_is_refused(probability):
    with refused(ValueError, "--view_dropout", str(probability)):
        DropViews(probability)


def test_a_network_for_two_views_is_trained_on_the_same_random_numbers_as_without_dropping():
    image, state = torch.rand(4, 2, 8, 8), torch.random.get_rng_state()
    assert DropViews()(image) is image
    assert torch.equal(torch.random.get_rng_state(), state)
