"""PSR against its published sizes, the rule for other shapes, and what the bottleneck does to the axes."""

import math

import pytest
import torch
import torch.nn.functional as F
from tests.refusal import refused
from torch import Tensor, nn

from scripts.geometry import BiplanarGeometry, preset
from scripts.networks.psr import PSR, HalvingStage, Transformation

PUBLISHED, DEFAULT = preset("carm", (128, 64, 128), 2.0, 128), preset("carm", (64, 64, 64), 5.0, 128)
TINY = preset("carm", (16, 16, 16), 20.0, 16)
WIDTH = 1 / 64


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def network(geometry: BiplanarGeometry = TINY, width: float = WIDTH) -> PSR:
    torch.manual_seed(0)
    return PSR(geometry, width).eval()


def on_meta(geometry: BiplanarGeometry, width: float = 1) -> PSR:
    with torch.device("meta"):
        return PSR(geometry, width)


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def layers(module: nn.Module, kind: type | tuple[type, ...]) -> list[tuple[int, int, int, int]]:
    found = (m for m in module.modules() if isinstance(m, kind))
    return [(m.in_channels, m.out_channels, m.kernel_size[0], m.stride[0]) for m in found]


# Published sizes


def test_at_width_1_the_published_shape_has_the_published_layers() -> None:
    module, encoder, decoder = on_meta(PUBLISHED), [], [(2048, 1024, 4, 2)]
    for before, channels in [(2, 256), (256, 512), (512, 1024), (1024, 2048), (2048, 4096)]:
        encoder += [(before, channels, 4, 2), (channels, channels, 3, 1)]
    for before, channels in [(1024, 512), (512, 256), (256, 128), (128, 64)]:
        decoder += [(before, channels, 4, 2), (channels, channels, 3, 1)]
    assert layers(module.encoder, nn.Conv2d) == encoder
    assert layers(module.transformation, nn.Conv2d) == [(4096, 4096, 1, 1)]
    assert layers(module.transformation, nn.Conv3d) == [(2048, 2048, 1, 1)]
    assert layers(module.decoder, (nn.ConvTranspose3d, nn.Conv3d)) == decoder
    assert (module.head.in_channels, module.head.out_channels, module.head.kernel_size) == (64, 1, (1, 1, 1))

    kernels = sum(a * b * k**2 for a, b, k, _ in [*encoder, (4096, 4096, 1, 1)])
    kernels += sum(a * b * k**3 for a, b, k, _ in [*decoder, (2048, 2048, 1, 1)])
    # A scale and a shift follow every convolution of the encoder but the first, and every one of the decoder.
    norms = 2 * sum(b for _, b, _, _ in [*encoder[1:], *decoder])
    assert count(module) == kernels + norms + 65 == 588_587_329


def test_the_bundles_default_shape_has_the_number_of_parameters_that_the_docstring_says() -> None:
    assert count(on_meta(DEFAULT)) == 604_729_473
    assert f"{604_729_473:,}" in PSR.__doc__ and f"{588_587_329:,}" in PSR.__doc__


def test_the_width_scales_every_channel_so_parameters_go_with_its_square() -> None:
    assert count(on_meta(DEFAULT, 1 / 4)) == pytest.approx(count(on_meta(DEFAULT)) / 16, rel=1e-3)


def test_the_bottleneck_keeps_its_published_channels_at_other_shapes() -> None:
    for volume, pixels in [((128, 128, 128), 256), ((16, 32, 16), 32), ((48, 16, 48), 96)]:
        module = on_meta(preset("carm", volume, 2.0, pixels))
        assert layers(module.encoder, nn.Conv2d)[-1] == (4096, 4096, 3, 1)
        assert layers(module.transformation, nn.Conv3d) == [(2048, 2048, 1, 1)]
        assert layers(module.decoder, nn.ConvTranspose3d)[0] == (2048, 1024, 4, 2)
        assert module(torch.zeros(1, 2, pixels, pixels, device="meta")).shape == (1, 1, *volume)


def test_weights_start_with_the_published_deviation() -> None:
    module = network()
    for part in (module.encoder, module.transformation, module.decoder):
        for conv in (m for m in part.modules() if isinstance(m, nn.Conv2d | nn.Conv3d | nn.ConvTranspose3d)):
            published = math.sqrt(2 / (math.prod(conv.kernel_size) * conv.out_channels))
            assert float(conv.weight.detach().std()) == pytest.approx(published, rel=0.1)


# Parts


def test_a_halving_stage_adds_a_normalised_convolution_to_what_it_halved() -> None:
    x = normal(2, 3, 8, 8)
    first, later = (HalvingStage(3, 4, is_first) for is_first in (True, False))
    for stage in (first, later):
        halved = F.conv2d(x, stage.halve[0].weight, stride=2, padding=1)
        halved = halved if stage is first else F.relu(F.batch_norm(halved, None, None, training=True))
        added = F.batch_norm(F.conv2d(halved, stage.residual[0].weight, padding=1), None, None, training=True)
        assert torch.allclose(stage(x), F.relu(halved + added), atol=1e-5)


def test_the_transformation_turns_a_cell_into_the_column_along_v_behind_it_in_the_frontal_view() -> None:
    module, x = Transformation(6, 4, depth=3), torch.zeros(1, 6, 5, 5)
    x[0, :, 1, 3] = 1
    y = module(x)
    assert y.shape == (1, 4, 5, 3, 5)
    assert y[:, :, 1, :, 3].abs().max() > 0
    y[:, :, 1, :, 3] = 0
    assert not y.any()
    planes = F.relu(module.flat(x)).reshape(1, 4, 3, 5, 5)
    depths = F.relu(torch.einsum("oc,bcvuw->bouvw", module.deep.weight[:, :, 0, 0, 0], planes))
    assert torch.allclose(module(x), depths, atol=1e-6)


# Laws


def test_the_volume_has_the_geometrys_shape_and_no_limits() -> None:
    module = network(preset("carm", (16, 32, 16), 20.0, 32))
    nn.init.constant_(module.head.bias, 3.0)
    volume = module(normal(2, 2, 32, 32))
    assert volume.shape == (2, 1, 16, 32, 16)
    assert volume.max() > 1


def test_in_evaluation_the_same_images_give_the_same_volume_alone_or_in_a_batch() -> None:
    module, image = network(), normal(2, 2, 16, 16)
    module.train()(normal(4, 2, 16, 16, seed=1))  # some statistics
    module.eval()
    with torch.no_grad():
        both = module(image)
        assert torch.equal(module(image), both)
        for i in range(2):
            assert torch.allclose(module(image[i : i + 1]), both[i : i + 1], atol=1e-4)
        assert not torch.allclose(both[0], both[1], atol=1e-2)


def test_both_views_are_read() -> None:
    module, image = network(), normal(1, 2, 16, 16)
    for view in range(2):
        other = image.clone()
        other[:, view] = 0
        assert not torch.allclose(module(other), module(image), atol=1e-3)


# Refusals


@pytest.mark.parametrize(
    ("volume_shape", "pixels"),
    [
        ((16, 16, 32), 16),  # u and w differ
        ((16, 6, 16), 16),  # v does not halve as often
        ((4, 4, 4), 16),  # nothing to halve
        ((16, 16, 16), 4),
        ((48, 48, 48), 64),  # 6 cells and 4
        ((18, 18, 18), 16),
        ((16, 16, 16), 18),
    ],
)
def test_shapes_that_do_not_meet_in_one_bottleneck_are_refused(volume_shape, pixels: int) -> None:
    with refused(ValueError, f"detector_pixels {pixels}", "volume_shape", "powers of two"):
        PSR(preset("parallel", volume_shape, 5.0, pixels), WIDTH)


@pytest.mark.parametrize("width", [1 / 3, 1 / 4096, 0.0, -1.0])
def test_a_width_that_leaves_broken_channels_is_refused(width: float) -> None:
    with refused(ValueError, "halve 1 times", "3 times", "got width ", "choose"):
        PSR(TINY, width)
