"""X2CT-GAN against its published sizes and against its algorithm written out, and the symmetries both imply."""

import pytest
import torch
import torch.nn.functional as F
from tests.refusal import refused
from torch import Tensor, nn

from scripts.geometry import BiplanarGeometry, preset
from scripts.networks.lifting import RayReplication
from scripts.networks.x2ct import DenseLayer, PatchDiscriminator, X2CTGenerator, frontal_to_volume_axes

PAPER = preset("x2ct", (128, 128, 128), 2.5, 128)
EQUAL, DOUBLE = preset("x2ct", (16, 16, 16), 15.0, 16), preset("carm", (16, 16, 16), 15.0, 32)
SMALL = {
    "channels": 4,
    "dense_layers": (2, 1, 1),
    "growth": 3,
    "bottleneck": 5,
    "decoder_channels": (4, 4, 6, 8),
    "dropout": 0.0,
}


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def spread_weights(module: nn.Module, scale: float = 0.1) -> nn.Module:
    """Every parameter drawn anew, so that no branch is silent and none saturates."""
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        parameter.data = scale * torch.randn(parameter.shape, generator=generator)
    return module.eval()


def generator(geometry: BiplanarGeometry = EQUAL, **changes) -> X2CTGenerator:
    return spread_weights(X2CTGenerator(geometry, **{**SMALL, **changes}))


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


# Published sizes


@pytest.fixture(scope="module")
def paper() -> X2CTGenerator:
    with torch.device("meta"):
        return X2CTGenerator(PAPER)


def test_the_paper_size_generator_has_the_published_number_of_parameters(paper: X2CTGenerator) -> None:
    assert count(paper) == pytest.approx(61.7e6, rel=0.02)


def test_the_paper_size_discriminator_has_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        assert count(PatchDiscriminator(PAPER)) == pytest.approx(11.06e6, rel=0.02)


def test_the_encoder_has_the_published_channels_and_connection_a_draws_256_channels_of_4_cubed(paper) -> None:
    assert paper.frontal.encoder.channels == [64, 128, 256, 512, 512, 704]
    assert (paper.frontal.coarsest.draw.in_features, paper.frontal.coarsest.draw.out_features) == (704, 16384)
    assert paper.frontal.coarsest.shape == [256, 4, 4, 4]


@pytest.mark.parametrize("decoder", ["frontal_decoder", "lateral_decoder", "fused_decoder"])
def test_the_decoders_have_the_published_channels(paper: X2CTGenerator, decoder: str) -> None:
    ups = [m for m in paper.get_submodule(decoder).modules() if isinstance(m, nn.ConvTranspose3d)]
    assert [(m.in_channels, m.out_channels) for m in ups] == [(256, 128), (128, 64), (64, 32), (32, 16), (16, 16)]
    assert {(m.kernel_size, m.stride) for m in ups} == {((3, 3, 3), (2, 2, 2))}


def test_the_discriminator_has_the_published_convolutions() -> None:
    with torch.device("meta"):
        convs = [m for m in PatchDiscriminator(PAPER).modules() if isinstance(m, nn.Conv3d)]
    sizes = [(m.in_channels, m.out_channels, m.stride[0]) for m in convs]
    assert sizes == [(3, 64, 2), (64, 128, 2), (128, 256, 2), (256, 512, 1), (512, 1, 1)]
    assert {m.kernel_size for m in convs} == {(4, 4, 4)}


@pytest.mark.parametrize("network", [X2CTGenerator(DOUBLE, **SMALL), PatchDiscriminator(EQUAL, 8)])
def test_weights_start_normal_with_deviation_0_02_and_biases_at_zero(network: nn.Module) -> None:
    weights = torch.cat([p.detach().flatten() for p in network.parameters() if p.ndim > 1])
    assert float(weights.mean()) == pytest.approx(0, abs=1e-3)
    assert float(weights.std()) == pytest.approx(0.02, rel=0.05)
    assert not any(p.any() for p in network.parameters() if p.ndim == 1)


def test_the_paper_size_generator_maps_128_pixels_to_128_voxels_a_side(paper: X2CTGenerator) -> None:
    assert paper(torch.zeros(1, 2, 128, 128, device="meta")).shape == (1, 1, 128, 128, 128)


# The generator's parts


def test_a_dense_layer_appends_to_what_it_is_given() -> None:
    x = normal(2, 3, 4, 4)
    y = DenseLayer(3, growth=5, bottleneck=7)(x)
    assert y.shape == (2, 8, 4, 4)
    assert torch.equal(y[:, :3], x)


def test_each_level_is_lifted_to_a_cube_and_half_as_fine_as_the_one_before() -> None:
    for geometry in (EQUAL, DOUBLE):
        n = geometry.detector_pixels
        lifted = generator(geometry).frontal(normal(2, 1, n, n))
        shapes = [tuple(x.shape) for x in lifted]
        assert shapes == [(2, 4, 16, 16, 16), (2, 4, 8, 8, 8), (2, 6, 4, 4, 4), (2, 8, 2, 2, 2)]


def test_connection_b_copies_the_image_along_the_first_axis_before_it_convolves() -> None:
    lift, x = generator().frontal.finer[0], normal(1, 4, 6, 6)
    lift.deep = nn.Identity()
    assert torch.equal(lift(x), torch.stack([lift.flat(x)] * 6, dim=2))


def test_connection_a_is_a_drawing_from_the_mean_of_the_features() -> None:
    lift, x = generator().frontal.coarsest, normal(2, 10, 2, 2)
    lift.draw = nn.Linear(10, 64)
    expected = F.relu(lift.draw(x.sum(dim=(2, 3)) / 4)).reshape(2, 8, 2, 2, 2)
    assert torch.allclose(lift(x), expected, atol=1e-6)


@pytest.mark.parametrize("geometry", [EQUAL, DOUBLE])
def test_the_generator_is_three_decoders_that_share_the_average_of_the_views_at_every_level(geometry) -> None:
    module, n = generator(geometry), geometry.detector_pixels
    image = normal(2, 2, n, n)
    with torch.no_grad():
        frontal, lateral = module.frontal(image[:, 0:1])[::-1], module.lateral(image[:, 1:2])[::-1]
        at_level = [(frontal[0].permute(0, 1, 3, 2, 4) + lateral[0]) / 2]  # (v, u, w) to (u, v, w)
        for i in range(3):
            of_frontal = module.frontal_decoder[i](at_level[i].permute(0, 1, 3, 2, 4), frontal[i + 1])
            of_lateral = module.lateral_decoder[i](at_level[i], lateral[i + 1])
            at_level.append((of_frontal.permute(0, 1, 3, 2, 4) + of_lateral) / 2)
        fused = at_level[0]
        for i in range(3):
            fused = module.fused_decoder[i](fused, at_level[i + 1])
        assert torch.allclose(module(image), module.head(fused).clip(min=-1), atol=1e-4)


# The generator's laws


def test_turning_the_frontal_axes_twice_changes_nothing() -> None:
    x = normal(1, 2, 3, 4, 5)
    assert frontal_to_volume_axes(x).shape == (1, 2, 4, 3, 5)
    assert torch.equal(frontal_to_volume_axes(frontal_to_volume_axes(x)), x)


def test_with_tied_views_and_a_symmetric_fusion_swapping_the_views_swaps_u_and_v() -> None:
    module, image = generator(), normal(2, 2, 16, 16)
    with torch.no_grad():
        assert not torch.allclose(module(image.flip(1)), module(image).transpose(2, 3), atol=1e-1)
        module.lateral.load_state_dict(module.frontal.state_dict())
        module.lateral_decoder.load_state_dict(module.frontal_decoder.state_dict())
        for kernel in (p for part in (module.fused_decoder, module.head) for p in part.parameters() if p.ndim == 5):
            kernel.copy_((kernel + kernel.transpose(2, 3)) / 2)
        assert torch.allclose(module(image.flip(1)), module(image).transpose(2, 3), atol=1e-3)
        assert not torch.allclose(module(image), module(image).transpose(2, 3), atol=1e-1)


@pytest.mark.parametrize("geometry", [EQUAL, DOUBLE])
@pytest.mark.parametrize(("view", "axis"), [(0, 0), (1, 1)])
def test_what_moves_in_a_view_moves_likewise_in_the_volume_and_stays_at_its_depth(
    geometry, view: int, axis: int
) -> None:
    module, n, scale = generator(geometry), geometry.detector_pixels, geometry.detector_pixels // 16
    for decoder in (module.frontal_decoder, module.lateral_decoder, module.fused_decoder):
        nn.init.zeros_(decoder[-1].upsample.conv.weight)  # the finest level alone, which sees only what is near
    image = normal(1, 2, n, n)

    def centre(row: int, column: int) -> Tensor:
        """Centre of gravity, in voxels, of what a bright square changes."""
        bright = image.clone()
        bright[0, view, row * scale : (row + 1) * scale, column * scale : (column + 1) * scale] += 5
        with torch.no_grad():
            power = (module(bright) - module(image))[0, 0].square()
        return (
            torch.stack([torch.arange(16.0) @ power.movedim(k, 0).flatten(1).sum(dim=1) for k in range(3)])
            / power.sum()
        )

    start, moved = centre(4, 4), torch.zeros(2, 3)
    moved[0, axis] = moved[1, 2] = 7
    assert torch.allclose(centre(11, 4) - start, moved[0], atol=3)
    assert torch.allclose(centre(4, 11) - start, moved[1], atol=3)


def test_each_radiograph_counts_only_up_to_scale_and_offset() -> None:
    module, image = generator(), normal(1, 2, 16, 16)
    other = image * torch.tensor([3.0, 2.0]).reshape(2, 1, 1) + torch.tensor([-1.0, 5.0]).reshape(2, 1, 1)
    with torch.no_grad():
        assert torch.allclose(module(other), module(image), atol=2e-2)
        assert not torch.allclose(module(-image), module(image), atol=2e-1)


def test_the_volume_is_never_below_air_but_has_no_ceiling() -> None:
    with torch.no_grad():
        volume = spread_weights(X2CTGenerator(EQUAL, **SMALL), scale=1.0)(normal(1, 2, 16, 16))
    assert float(volume.min()) == -1
    assert float(volume.max()) > 1


def test_without_dropout_training_and_evaluation_agree() -> None:
    module, image = generator(), normal(2, 2, 16, 16)
    with torch.no_grad():
        assert torch.equal(module.train()(image), module.eval()(image))
        dropping = generator(dropout=0.5)
        assert torch.equal(dropping(image), module(image))
        assert not torch.equal(dropping.train()(image), module(image))


def test_a_batch_of_two_is_two_singles() -> None:
    module, image = generator(), normal(2, 2, 16, 16)
    with torch.no_grad():
        both = module(image)
        for i in range(2):
            assert torch.allclose(both[i : i + 1], module(image[i : i + 1]), atol=1e-4)
        assert not torch.allclose(both[0], both[1], atol=1e-1)


@pytest.mark.slow  # at one size it is scripted with the other direct methods
def test_a_scripted_generator_answers_alike() -> None:
    module, image = generator(DOUBLE), normal(2, 2, 32, 32)
    with torch.no_grad():
        assert torch.allclose(torch.jit.script(module)(image), module(image), atol=1e-5)


@pytest.mark.parametrize("geometry", [EQUAL, DOUBLE])
def test_every_weight_of_the_generator_learns(geometry: BiplanarGeometry) -> None:
    module, n = generator(geometry).train(), geometry.detector_pixels
    volume = module(normal(2, 2, n, n))
    assert volume.shape == (2, 1, 16, 16, 16)
    (volume * normal(*volume.shape, seed=1)).sum().backward()
    assert [name for name, p in module.named_parameters() if p.grad is None or p.grad.abs().max() < 1e-6] == []
    assert all(torch.isfinite(p.grad).all() for p in module.parameters())


# Refusals


@pytest.mark.parametrize(
    ("volume_shape", "pixels", "changes", "message"),
    [
        ((16, 16, 8), 16, {}, r"cube .*volume_shape \(16, 16, 8\) .*detector_pixels 16;"),
        ((16, 16, 16), 48, {}, r"half, .*volume_shape \(16, 16, 16\) .*detector_pixels 48"),
        ((16, 16, 16), 8, {}, r"half, .*volume_shape \(16, 16, 16\) .*detector_pixels 8;"),
        ((8, 8, 8), 8, {}, "3 stages .*multiple of 8 from 16, got 8;"),
        ((20, 20, 20), 20, {}, "multiple of 8 from 16, got 20"),
        ((16, 16, 16), 16, {"decoder_channels": (4, 4)}, "3 dense_layers .*4 decoder_channels, got 2"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(volume_shape, pixels: int, changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        generator(preset("parallel", volume_shape, 5.0, pixels), **changes)


# The discriminator


def test_the_discriminator_judges_the_volume_beside_the_replicated_radiographs() -> None:
    module = spread_weights(PatchDiscriminator(DOUBLE, 4))
    volume, image = normal(2, 1, 16, 16, 16), normal(2, 2, 32, 32, seed=1)
    with torch.no_grad():
        logits = module(volume, image)
        beside = torch.cat([volume, RayReplication(DOUBLE)(image)], dim=1)
        assert torch.equal(logits, module.patches(beside)[-1])
        assert logits.shape == (2, 1, 3, 3, 3)
        assert logits.min() < 0 < logits.max()
        assert not torch.allclose(module(volume.flip(2), image), logits, atol=1e-3)
        for view in range(2):
            other = image.clone()
            other[:, view] = 0
            assert not torch.allclose(module(volume, other), logits, atol=1e-3)


def test_every_weight_of_the_discriminator_learns_and_so_does_the_volume_it_judges() -> None:
    module = spread_weights(PatchDiscriminator(EQUAL, 4)).train()
    volume = normal(2, 1, 16, 16, 16).requires_grad_()
    logits = module(volume, normal(2, 2, 16, 16, seed=1))
    (logits * normal(*logits.shape, seed=2)).sum().backward()
    assert [name for name, p in module.named_parameters() if p.grad is None or p.grad.abs().max() < 1e-6] == []
    assert volume.grad.abs().max() > 1e-6


def test_the_discriminator_refuses_other_shapes() -> None:
    module = PatchDiscriminator(EQUAL, 4)
    volume, image = torch.zeros(1, 1, 16, 16, 16), torch.zeros(1, 2, 16, 16)
    with refused(ValueError, "volumes", "[1, 16, 16, 16]", "got ", "resample"):
        module(volume[..., :8], image)
    with refused(ValueError, "images", "[2, 16, 16]", "got ", "resample"):
        module(volume, image[..., :8])
