"""X-CTRSNet in our reading: each view lifted along its own rays, the symmetry of the views, and the common laws."""

import pytest
import torch
from torch import Tensor, nn

from scripts.geometry import preset
from scripts.networks.xctrsnet import LiftedFusion, XCTRSNet

TINY, DOUBLE = preset("carm", (16, 16, 16), 20.0, 16), preset("carm", (16, 16, 16), 20.0, 32)
SMALL, OBLONG = preset("carm", (8, 8, 8), 40.0, 8), preset("carm", (8, 12, 16), 20.0, 32)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def spread_weights(module: nn.Module, scale: float = 0.2) -> nn.Module:
    """Every parameter drawn anew, so that no branch is silent."""
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        parameter.data = scale * torch.randn(parameter.shape, generator=generator)
    return module.eval()


def network(geometry=TINY, channels=(8, 12), **changes) -> XCTRSNet:
    torch.manual_seed(0)
    return XCTRSNet(geometry, channels, **{"plane_blocks": 1, **changes})


def test_the_default_size_has_17_127_233_parameters() -> None:
    with torch.device("meta"):
        module = XCTRSNet(preset("carm", (64, 64, 64), 5.0, 128))
        assert module(torch.zeros(1, 2, 128, 128)).shape == (1, 1, 64, 64, 64)
    assert sum(p.numel() for p in module.parameters()) == 17_127_233


# Lifting and fusion


def test_the_frontal_channels_do_not_vary_along_v_nor_the_lateral_ones_along_u() -> None:
    module = LiftedFusion(OBLONG, 16, (4, 6, 8), 3)
    lifted = module.lift(normal(2, 3, 16, 16), normal(2, 3, 16, 16, seed=1))
    assert lifted.shape == (2, 6, 4, 6, 8)
    frontal, lateral = lifted[:, :3], lifted[:, 3:]
    assert torch.equal(frontal, frontal[:, :, :, :1].expand_as(frontal))
    assert torch.equal(lateral, lateral[:, :, :1].expand_as(lateral))
    for lively, axes in ((frontal, (2, 4)), (lateral, (3, 4))):
        assert all(lively.diff(dim=axis).abs().max() > 0.1 for axis in axes)


def test_every_channel_is_lifted_like_a_radiograph_of_its_own() -> None:
    module = LiftedFusion(TINY, 8, (4, 4, 4), 3)
    frontal, lateral = normal(2, 3, 8, 8), normal(2, 3, 8, 8, seed=1)
    lifted = module.lift(frontal, lateral)
    for c in range(3):
        alone = module.replicate(torch.stack([frontal[:, c], lateral[:, c]], dim=1))
        assert torch.equal(lifted[:, [c, 3 + c]], alone)
    assert torch.equal(module(frontal, lateral), module.fuse(lifted))


# The network


@pytest.mark.parametrize("geometry", [TINY, DOUBLE, OBLONG])
def test_both_views_are_encoded_apart_fused_at_every_level_and_decoded_together(geometry) -> None:
    module, n = spread_weights(network(geometry)), geometry.detector_pixels
    image = normal(2, 2, n, n)
    with torch.no_grad():
        frontal, lateral = module.encoders[0](image[:, 0:1]), module.encoders[1](image[:, 1:2])
        fused = [fuse(a, b) for fuse, a, b in zip(module.fusion, frontal, lateral, strict=True)]
        assert [tuple(x.shape[2:]) for x in fused] == [tuple(k // s for k in geometry.volume_shape) for s in (1, 2)]
        volume = module(image)
        assert volume.shape == (2, 1, *geometry.volume_shape)
        assert torch.equal(volume, module.decoder(fused))
        for i in range(2):
            silenced = [torch.zeros_like(x) if i == k else x for k, x in enumerate(fused)]
            assert not torch.allclose(module.decoder(silenced), volume, atol=1e-2)


def test_with_tied_encoders_and_a_symmetric_decoder_swapping_the_views_swaps_u_and_v() -> None:
    module, image = spread_weights(network()), normal(2, 2, 16, 16)
    with torch.no_grad():
        assert not torch.allclose(module(image.flip(1)), module(image).transpose(2, 3), atol=1e-2)
        module.encoders[1].load_state_dict(module.encoders[0].state_dict())
        for fusion in module.fusion:
            frontal, lateral = fusion.fuse.weight.chunk(2, dim=1)
            lateral.copy_(frontal.transpose(2, 3))
        for kernel in (p for p in module.decoder.parameters() if p.ndim == 5):
            kernel.copy_((kernel + kernel.transpose(2, 3)) / 2)
        assert torch.allclose(module(image.flip(1)), module(image).transpose(2, 3), atol=1e-3)
        assert not torch.allclose(module(image), module(image).transpose(2, 3), atol=1e-2)


def test_absolute_attenuation_reaches_the_volume() -> None:
    module, image = spread_weights(network()), normal(1, 2, 16, 16)
    with torch.no_grad():
        assert not torch.allclose(module(2 * image), module(image), atol=1e-2)


def test_in_evaluation_the_same_images_give_the_same_volume_alone_or_in_a_batch() -> None:
    module, image = spread_weights(network(dropout=0.5)), normal(2, 2, 16, 16)
    with torch.no_grad():
        both = module(image)
        assert torch.equal(module(image), both)
        for i in range(2):
            assert torch.allclose(module(image[i : i + 1]), both[i : i + 1], atol=1e-4)
        assert not torch.allclose(both[0], both[1], atol=1e-2)


def test_the_output_has_no_limits() -> None:
    module = network()
    nn.init.constant_(module.decoder.head[2].bias, 3.0)
    assert module(normal(1, 2, 16, 16)).max() > 1


@pytest.mark.parametrize(
    ("volume_shape", "pixels", "message"),
    [
        ((16, 18, 16), 16, r"volume_shape \(16, 18, 16\) .*divisible by 4"),
        ((16, 16, 16), 36, "detector_pixels 36 .*divisible by 8"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(volume_shape, pixels: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        network(preset("parallel", volume_shape, 5.0, pixels), channels=(8, 8, 8))
