"""3DCNN: a U-Net behind replicated radiographs, the symmetry of the views, and the laws of any direct method."""

import pytest
import torch
from torch import Tensor, nn

from scripts.geometry import preset
from scripts.networks.cnn3d import CNN3D
from scripts.networks.lifting import RayReplication

TINY = preset("carm", (16, 16, 16), 20.0, 16)
OBLONG = preset("carm", (16, 32, 48), 10.0, 40)
CHANNELS = (8, 8, 8, 8, 16, 8)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def network(geometry=TINY, channels=CHANNELS) -> CNN3D:
    torch.manual_seed(0)
    return CNN3D(geometry, channels).eval()


def test_the_default_size_has_5_750_259_parameters() -> None:
    with torch.device("meta"):
        module = CNN3D(preset("carm", (64, 64, 64), 5.0, 128))
    assert sum(p.numel() for p in module.parameters()) == 5_750_259


def test_the_convolutions_are_3x3x3_and_five_levels_deep() -> None:
    convs = [m for m in network().unet.modules() if isinstance(m, nn.Conv3d)]
    assert {m.kernel_size for m in convs[:-1]} == {(3, 3, 3)}
    assert sum(isinstance(m, nn.MaxPool3d) for m in network().unet.modules()) == 4
    assert convs[0].in_channels == 2 and convs[-1].out_channels == 1


def test_the_unet_reads_the_radiographs_replicated_along_their_rays() -> None:
    module, image = network(OBLONG), normal(2, 2, 40, 40)
    with torch.no_grad():
        volume = module(image)
        assert volume.shape == (2, 1, 16, 32, 48)
        assert torch.equal(volume, module.unet(RayReplication(OBLONG)(image)))
        assert not torch.allclose(volume, module(image.flip(1)), atol=1e-2)


def test_with_a_symmetric_unet_swapping_the_views_swaps_u_and_v() -> None:
    module, image = network(), normal(2, 2, 16, 16)
    with torch.no_grad():
        assert not torch.allclose(module(image.flip(1)), module(image).transpose(2, 3), atol=1e-2)
        for kernel in (p for p in module.unet.parameters() if p.ndim == 5):
            # What the first layer does to one view along (u, v) it does to the other along (v, u).
            mirrored = kernel.flip(1) if kernel.shape[1] == 2 else kernel
            kernel.copy_((kernel + mirrored.transpose(2, 3)) / 2)
        assert torch.allclose(module(image.flip(1)), module(image).transpose(2, 3), atol=1e-4)
        assert not torch.allclose(module(image), module(image).transpose(2, 3), atol=1e-2)


@pytest.mark.parametrize("view", [0, 1])
def test_absolute_attenuation_reaches_the_volume(view: int) -> None:
    module, image = network(), normal(1, 2, 16, 16)
    brighter = image.clone()
    brighter[:, view] *= 2
    with torch.no_grad():
        assert not torch.allclose(module(brighter), module(image), atol=1e-2)
        assert not torch.allclose(module(2 * image), module(image), atol=1e-2)


def test_in_evaluation_the_same_images_give_the_same_volume_alone_or_in_a_batch() -> None:
    module, image = network(), normal(2, 2, 16, 16)
    with torch.no_grad():
        both = module(image)
        assert torch.equal(module(image), both)
        for i in range(2):
            assert torch.allclose(module(image[i : i + 1]), both[i : i + 1], atol=1e-5)
        assert not torch.allclose(both[0], both[1], atol=1e-2)


def test_the_output_has_no_limits() -> None:
    module = network()
    nn.init.constant_(module.unet.final_conv.bias, 3.0)
    assert module(normal(1, 2, 16, 16)).max() > 1


@pytest.mark.parametrize(
    ("volume_shape", "channels", "message"),
    [
        ((16, 24, 16), CHANNELS, r"volume_shape \(16, 24, 16\) .*divisible by 16"),
        ((8, 8, 8), CHANNELS, r"volume_shape \(8, 8, 8\) .*divisible by 16"),
        ((16, 16, 16), (8, 8, 8), r"channels .*6 multiples of 4, .* got \(8, 8, 8\);"),
        ((16, 16, 16), (8, 8, 6, 8, 8, 8), r"channels .*6 multiples of 4, .* got \(8, 8, 6, 8, 8, 8\)"),
        ((16, 16, 16), (8, 8, 0, 8, 8, 8), "channels .*6 multiples of 4"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(volume_shape, channels, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CNN3D(preset("parallel", volume_shape, 5.0, 16), channels)
