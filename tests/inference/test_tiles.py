"""Tiles against the whole volume: equal up to rounding, whatever the shape, if the halo is the network's."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from tests.refusal import refused
from torch import Tensor, nn

from scripts.inference.tiles import in_tiles
from scripts.networks.upsampler import Upsampler


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def upsampler() -> Upsampler:
    """With random weights in all layers, so that it looks as far as it can."""
    torch.manual_seed(0)
    module = Upsampler(8, 1)
    nn.init.normal_(module.head.weight, std=0.1)
    return module.eval()


def error(network: Callable[[Tensor], Tensor], volume: Tensor, tile: int, halo: int, factor: int) -> float:
    with torch.no_grad():
        whole = network(volume)
    tiled = in_tiles(network, volume, tile, halo, factor)
    assert tiled.shape == whole.shape
    return float((tiled - whole).abs().max())


@pytest.mark.parametrize("shape", [(16, 16, 16), (17, 23, 9), (5, 30, 16)])
@pytest.mark.parametrize("tile", [5, 8, 64])
def test_tiles_give_the_whole_volume_up_to_rounding(upsampler: Upsampler, shape: tuple[int, ...], tile: int) -> None:
    assert error(upsampler, normal(2, 1, *shape), tile, upsampler.halo, factor=2) < 2e-6


def test_in_double_precision_rounding_is_all_there_is(upsampler: Upsampler) -> None:
    assert error(upsampler.double(), normal(1, 1, 17, 14, 11).double(), 6, upsampler.halo, factor=2) < 1e-14


def test_with_one_voxel_less_around_the_tiles_show(upsampler: Upsampler) -> None:
    assert error(upsampler.double(), normal(1, 1, 16, 16, 16).double(), 8, upsampler.halo - 1, factor=2) > 1e-3


def test_a_network_that_keeps_the_grid_and_several_channels_can_be_tiled_too() -> None:
    def dilate(x: Tensor) -> Tensor:
        return F.max_pool3d(x, 5, stride=1, padding=2)

    assert error(dilate, normal(1, 3, 11, 8, 13), 4, halo=2, factor=1) == 0


def test_the_network_never_sees_more_than_a_tile_and_its_halo() -> None:
    shapes = []

    def network(x: Tensor) -> Tensor:
        shapes.append(tuple(x.shape[2:]))
        return x

    volume = normal(1, 1, 20, 9, 4)
    assert torch.equal(in_tiles(network, volume, tile=8, halo=3), volume)
    assert len(shapes) == 3 * 2 * 1
    assert max(max(shape) for shape in shapes) == 8 + 2 * 3


def test_no_graph_is_kept(upsampler: Upsampler) -> None:
    assert not in_tiles(upsampler, normal(1, 1, 9, 9, 9), 8, upsampler.halo, factor=2).requires_grad


@pytest.mark.parametrize(("tile", "halo"), [(0, 1), (-4, 1), (8, -1)])
def test_an_empty_tile_or_a_negative_halo_is_refused(tile: int, halo: int) -> None:
    with refused(ValueError, "in_tiles", f"got {tile} and {halo}"):
        in_tiles(lambda x: x, normal(1, 1, 4, 4, 4), tile, halo)
