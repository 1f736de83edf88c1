"""Residual blocks against their definition written out, and the two reshapings against loops."""

import pytest
import torch
import torch.nn.functional as F
from tests.refusal import refused
from torch import Tensor, nn

from scripts.blocks.residual import (
    DepthToSpace,
    ResidualBlock,
    SpaceToDepth,
    Upsample,
    convolution,
    group_norm,
    zeroed,
)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def spread_weights(module: nn.Module, seed: int = 0) -> nn.Module:
    """Every parameter drawn anew, so that no branch is silent."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
    return module.eval()


@pytest.mark.parametrize("dims", [2, 3])
def test_a_condition_added_is_the_condition_concatenated(dims: int) -> None:
    block = spread_weights(ResidualBlock(dims, 4, 6, embedding_channels=5))
    to_condition = spread_weights(convolution(dims, 3, 6), seed=1)
    x, h, embedding = normal(2, 4, *[5] * dims), normal(2, 3, *[5] * dims, seed=1), normal(2, 5, seed=2)

    joint = convolution(dims, 4 + 3, 6)
    joint.weight.data = torch.cat([block.conv1.weight, to_condition.weight], dim=1)
    joint.bias.data = block.conv1.bias + to_condition.bias
    y = block.norm2(joint(torch.cat([F.silu(block.norm1(x)), h], dim=1)))
    scale, shift = (part.reshape(2, 6, *[1] * dims) for part in block.modulation(F.silu(embedding)).chunk(2, dim=1))
    expected = block.skip(x) + block.conv2(F.silu(y * (1 + scale) + shift))

    assert torch.allclose(block(x, embedding, to_condition(h)), expected, atol=1e-5)
    assert not torch.allclose(block(x, embedding), expected, atol=0.1)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("channels", [(4, 4), (4, 6)])
def test_a_new_block_is_its_skip(dims: int, channels: tuple[int, int]) -> None:
    block = ResidualBlock(dims, *channels, embedding_channels=5).eval()
    x, embedding = normal(2, channels[0], *[4] * dims), normal(2, 5)
    condition = normal(2, channels[1], *[4] * dims, seed=1)
    assert torch.equal(block(x, embedding, condition), block.skip(x))
    assert not torch.equal(spread_weights(block)(x, embedding, condition), block.skip(x))


def test_a_new_modulation_ignores_the_embedding_and_a_trained_one_scales_and_shifts_each_sample() -> None:
    block = spread_weights(ResidualBlock(2, 4, 4, embedding_channels=5))
    x, embedding = normal(2, 4, 4, 4), normal(2, 5)
    both = block(x, embedding)
    assert torch.allclose(both[:1], block(x[:1], embedding[:1]), atol=1e-6)
    assert not torch.allclose(both[:1], block(x[:1], embedding[1:]), atol=0.01)
    zeroed(block.modulation)
    assert torch.equal(block(x, embedding), block(x))


def test_dropout_acts_in_training_only() -> None:
    block = spread_weights(ResidualBlock(2, 4, 4, dropout=0.5))
    x = normal(1, 4, 8, 8)
    assert torch.equal(block(x), block(x))
    block.train()
    assert not torch.equal(block(x), block(x))


def test_a_convolution_keeps_the_shape_or_divides_it_by_its_stride() -> None:
    x = torch.zeros(1, 2, 8, 8)
    assert convolution(2, 2, 3)(x).shape == (1, 3, 8, 8)
    assert convolution(2, 2, 3, kernel_size=1)(x).shape == (1, 3, 8, 8)
    assert convolution(2, 2, 3, kernel_size=5, stride=2)(x).shape == (1, 3, 4, 4)
    assert convolution(3, 2, 3, stride=2)(torch.zeros(1, 2, 8, 4, 6)).shape == (1, 3, 4, 2, 3)


@pytest.mark.parametrize("dims", [2, 3])
def test_upsample_is_doubling_then_the_pointwise_convolution(dims: int) -> None:
    module, x = Upsample(dims, 4, 3), normal(2, 4, 3, 2, *[2] * (dims - 2))
    doubled = x
    for axis in range(2, 2 + dims):
        doubled = doubled.repeat_interleave(2, dim=axis)
    assert torch.allclose(module(x), module.conv(doubled), atol=1e-6)


def test_space_to_depth_puts_each_voxel_of_a_cube_into_its_channel() -> None:
    p, x = 2, normal(2, 3, 4, 6, 2)
    folded = SpaceToDepth(p)(x)
    assert folded.shape == (2, 3 * p**3, 2, 3, 1)
    for du in range(p):
        for dv in range(p):
            for dw in range(p):
                offset = (du * p + dv) * p + dw
                assert torch.equal(folded[:, offset :: p**3], x[:, :, du::p, dv::p, dw::p])


@pytest.mark.parametrize("patch", [1, 2, 3])
def test_depth_to_space_and_space_to_depth_are_inverse(patch: int) -> None:
    x = normal(2, 2, 2 * patch, 3 * patch, patch)
    folded = SpaceToDepth(patch)(x)
    assert torch.equal(DepthToSpace(patch)(folded), x)
    y = normal(2, 2 * patch**3, 2, 3, 1)
    assert torch.equal(SpaceToDepth(patch)(DepthToSpace(patch)(y)), y)


@pytest.mark.parametrize(("channels", "groups"), [(1, 1), (8, 1), (16, 1), (20, 1), (32, 2), (48, 3), (160, 10)])
def test_group_norm_has_groups_of_about_sixteen_channels(channels: int, groups: int) -> None:
    assert group_norm(channels).num_groups == groups


def test_channels_that_do_not_split_into_groups_are_refused() -> None:
    with refused(ValueError, "50 channels", "3 groups", "16", "multiple"):
        group_norm(50)
