"""ICM-Reg: the conditioner's features through a 3D decoder written out, and the laws of any direct method."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scripts.geometry import BiplanarGeometry, preset
from scripts.networks.expanded import ExpandedConditioner
from scripts.networks.icm_reg import ICMReg, VolumeDecoder

TINY = preset("carm", (16, 16, 16), 20.0, 16)
SMALL, OBLONG = preset("carm", (8, 8, 8), 40.0, 16), preset("carm", (8, 12, 16), 20.0, 32)
SIZES = {
    "channels": (8, 16),
    "plane_channels": (8, 8, 16),
    "condition_channels": (6, 10),
    "patch": 2,
    "plane_blocks": 1,
}


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def spread_weights(module: nn.Module, scale: float = 0.2) -> nn.Module:
    """Every parameter drawn anew, so that no branch is silent."""
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        parameter.data = scale * torch.randn(parameter.shape, generator=generator)
    return module.eval()


def network(geometry: BiplanarGeometry = TINY, **changes) -> ICMReg:
    torch.manual_seed(0)
    return ICMReg(geometry, **{**SIZES, "dropout": 0.0, **changes})


def test_the_size_of_the_bundles_overlay_has_7_005_640_parameters() -> None:
    with torch.device("meta"):
        module = ICMReg(
            preset("carm", (64, 64, 64), 5.0, 128),
            channels=(48, 96, 160),
            plane_channels=(48, 96, 144, 192),
            condition_channels=(32, 64, 96),
            patch=2,
            stem_stride=2,
        )
    assert sum(p.numel() for p in module.parameters()) == 7_005_640


# The decoder


@pytest.mark.parametrize("patch", [1, 2])
def test_the_decoder_upsamples_joins_and_refines_from_the_coarsest_grid_to_the_finest(patch: int) -> None:
    module = spread_weights(VolumeDecoder((6, 8, 10), (3, 4, 5), patch, blocks=2))
    h = [normal(2, 3, 8, 12, 4), normal(2, 4, 4, 6, 2), normal(2, 5, 2, 3, 1)]
    with torch.no_grad():
        f = h[2]
        for block in module.bottom:
            f = block(f)
        for upsample, blocks, finer in zip(module.upsample, module.merge, (h[1], h[0]), strict=True):
            f = torch.cat([upsample(f), finer], dim=1)
            for block in blocks:
                f = block(f)
        norm, _, last, _ = module.head
        cells = last(F.silu(norm(f)))
        volume = module(h)
    assert volume.shape == (2, 1, 8 * patch, 12 * patch, 4 * patch)
    for i, (u, v, w) in enumerate((u, v, w) for u in range(patch) for v in range(patch) for w in range(patch)):
        assert torch.allclose(volume[:, 0, u::patch, v::patch, w::patch], cells[:, i], atol=1e-5)


def test_one_stage_is_enough() -> None:
    assert VolumeDecoder((8,), (3,))([normal(1, 3, 4, 4, 4)]).shape == (1, 1, 4, 4, 4)


# The network


def test_the_volume_is_decoded_from_the_conditions_of_the_images() -> None:
    module, image = spread_weights(network(OBLONG, stem_stride=2)), normal(2, 2, 32, 32)
    with torch.no_grad():
        h = module.conditioner(image)
        assert [tuple(x.shape) for x in h] == [(2, 6, 4, 6, 8), (2, 10, 2, 3, 4)]
        assert torch.equal(module(image), module.decoder(h))
        assert module(image).shape == (2, 1, 8, 12, 16)


def test_every_condition_and_both_views_reach_the_volume() -> None:
    module, image = spread_weights(network()), normal(1, 2, 16, 16)
    with torch.no_grad():
        h, volume = module.conditioner(image), module(image)
        for i in range(2):
            silenced = [torch.zeros_like(x) if i == k else x for k, x in enumerate(h)]
            assert not torch.allclose(module.decoder(silenced), volume, atol=1e-2)
            other = image.clone()
            other[:, i] = 0
            assert not torch.allclose(module(other), volume, atol=1e-2)


def test_the_embedding_is_disturbed_in_training_only() -> None:
    module, image = spread_weights(network()), normal(1, 2, 16, 16)
    with torch.no_grad():
        assert torch.equal(module(image), module(image))
        module.train()
        torch.manual_seed(0)
        assert not torch.allclose(module(image), module(image), atol=1e-3)


def test_a_batch_is_its_exams() -> None:
    module, image = spread_weights(network()), normal(2, 2, 16, 16)
    with torch.no_grad():
        both = module(image)
        for i in range(2):
            assert torch.allclose(module(image[i : i + 1]), both[i : i + 1], atol=1e-4)
        assert not torch.allclose(both[0], both[1], atol=1e-2)


def test_the_conditioner_can_be_another() -> None:
    module = network(conditioner=ExpandedConditioner, plane_channels=(8, 8))
    assert isinstance(module.conditioner, ExpandedConditioner)
    assert module(normal(1, 2, 16, 16)).shape == (1, 1, 16, 16, 16)


def test_the_output_has_no_limits() -> None:
    module = network()
    nn.init.constant_(module.decoder.head[2].bias, 3.0)
    assert module(normal(1, 2, 16, 16)).max() > 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patch": 3}, r"volume_shape \(16, 16, 16\) .*divisible by 6"),
        ({"condition_channels": (6,)}, "decoder: .*2 channels and 1 condition_ch"),
        ({"plane_channels": (8, 8)}, "2 grids .*3 plane_channels .*got 2 and 2"),
        ({"stem_stride": 3}, "detector_pixels 16 .*divisible by 12"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        network(**changes)
