"""The upsampler against plain interpolation, the fine grid's millimetres, its stated halo, a volume learnt by heart."""

import pytest
import torch
import torch.nn.functional as F
from tests.refusal import refused
from torch import Tensor, nn

from scripts.geometry import BiplanarGeometry, preset
from scripts.networks.upsampler import Upsampler


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def trilinear(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="trilinear", align_corners=False)


def speaking(channels: int = 4, blocks: int = 2) -> Upsampler:
    """With random weights in the last layer too."""
    torch.manual_seed(0)
    module = Upsampler(channels, blocks).eval()
    nn.init.normal_(module.head.weight, std=0.1)
    return module


def in_the_patients_frame(geometry: BiplanarGeometry) -> Tensor:
    """A volume that rises linearly with the position in mm."""
    affine = torch.from_numpy(geometry.volume_affine())
    index = torch.cartesian_prod(*(torch.arange(float(n), dtype=torch.float64) for n in geometry.volume_shape))
    position_mm = index @ affine[:3, :3].T + affine[:3, 3]
    return (position_mm @ torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)).reshape(1, 1, *geometry.volume_shape)


@pytest.mark.parametrize("shape", [(8, 8, 8), (5, 8, 3), (1, 1, 1)])
def test_untrained_it_is_trilinear_interpolation_bit_by_bit(shape: tuple[int, int, int]) -> None:
    x = normal(2, 1, *shape)
    assert torch.equal(Upsampler(4, 1)(x), trilinear(x))


def test_the_fine_voxels_lie_where_the_geometry_of_half_the_spacing_says() -> None:
    coarse = preset("carm", (6, 8, 10), 10.0, 16)
    fine = coarse.with_volume((12, 16, 20), 5.0)
    volume = Upsampler(4, 1).double()(in_the_patients_frame(coarse))
    inner = (..., *3 * [slice(1, -1)])  # beyond the outermost coarse centres nothing rises
    torch.testing.assert_close(volume[inner], in_the_patients_frame(fine)[inner])


@torch.no_grad()
@pytest.mark.parametrize("blocks", [0, 1, 3])
def test_an_input_voxel_changes_the_output_as_far_as_the_halo_and_no_farther(blocks: int) -> None:
    module = speaking(blocks=blocks).double()
    halo, side = module.halo, 2 * module.halo + 5
    x = normal(1, 1, side, side, side).double()
    other, centre = x.clone(), side // 2
    other[0, 0, centre, centre, centre] += 10
    changed = (module(other) != module(x))[0, 0].nonzero() // 2
    assert changed.min(0).values.tolist() == [centre - halo] * 3
    assert changed.max(0).values.tolist() == [centre + halo] * 3


def test_every_weight_learns() -> None:
    module = speaking()
    (module(normal(1, 1, 6, 6, 6)) * normal(1, 1, 12, 12, 12, seed=1)).sum().backward()
    assert [name for name, p in module.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_a_volume_is_learnt_by_heart() -> None:
    torch.manual_seed(0)
    truth = (trilinear(normal(1, 1, 6, 6, 6)) > 0).float() * 2 - 1  # edges, as interpolation cannot draw them
    module, coarse = Upsampler(16, 1), F.avg_pool3d(truth, 2)
    optimizer, losses = torch.optim.Adam(module.parameters(), 5e-3), []
    for _ in range(80):
        loss = F.l1_loss(module(coarse), truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 10


@torch.no_grad()
def test_a_scripted_network_answers_alike_at_any_shape() -> None:
    module = speaking()
    script = torch.jit.script(module)
    for shape in [(8, 8, 8), (3, 6, 5)]:
        x = normal(2, 1, *shape)
        torch.testing.assert_close(script(x), module(x), atol=1e-6, rtol=1e-6)
    assert script.halo == module.halo


@pytest.mark.parametrize("shape", [(2, 8, 8, 8), (1, 2, 8, 8, 8)])
def test_volumes_of_several_channels_or_none_are_refused(shape: tuple[int, ...]) -> None:
    with refused(ValueError, "[B, 1, U, V, W]", "got ", "channel"):
        Upsampler(4, 1)(torch.zeros(shape))
