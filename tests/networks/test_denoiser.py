"""The 3D denoising U-Net: shapes, what its output depends on, and the cached condition."""

import pytest
import torch
from tests.refusal import refused
from torch import Tensor, nn

from scripts.networks.denoiser import Denoiser, stage_shapes


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def spread_weights(module: nn.Module, scale: float = 0.1) -> nn.Module:
    """Every silent parameter drawn anew: a new denoiser's output is zero whatever it sees."""
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        if not parameter.any():
            parameter.data = scale * torch.randn(parameter.shape, generator=generator)
    return module.eval()


def denoiser(shape=(8, 8, 16), patch: int = 1, blocks: int = 1, window: int = 2, dropout: float = 0.2) -> Denoiser:
    return spread_weights(Denoiser(shape, (8, 12, 16), (3, 5, 7), patch, blocks, 2, window, dropout))


def conditions(shape: tuple[int, int, int], patch: int = 1, batch: int = 1, seed: int = 0) -> list[Tensor]:
    shapes = stage_shapes(shape, patch, 3)
    return [normal(batch, c, *grid, seed=seed + i) for i, (c, grid) in enumerate(zip((3, 5, 7), shapes, strict=True))]


@pytest.mark.parametrize("patch", [1, 2])
@pytest.mark.parametrize("shape", [(16, 16, 16), (16, 32, 48), (32, 16, 16)])
def test_the_prediction_has_the_shape_of_the_volume(shape: tuple[int, int, int], patch: int) -> None:
    module = denoiser(shape, patch)
    with torch.no_grad():
        maps = module.project_condition(conditions(shape, patch, batch=2))
        y = module(normal(2, 1, *shape), torch.tensor([3, 700]), maps)
    assert y.shape == (2, 1, *shape)
    widths, grids = (8, 12, 16), stage_shapes(shape, patch, 3)
    assert [tuple(m.shape) for m in maps] == 2 * [(2, c, *grid) for c, grid in zip(widths, grids, strict=True)]


def test_stages_halve_the_patched_grid() -> None:
    assert stage_shapes((64, 32, 128), 1, 3) == [(64, 32, 128), (32, 16, 64), (16, 8, 32)]
    assert stage_shapes((64, 32, 128), 2, 3) == [(32, 16, 64), (16, 8, 32), (8, 4, 16)]


def test_a_new_denoiser_predicts_zero() -> None:
    module = Denoiser((8, 8, 8), (8, 12, 16), (3, 5, 7), window=2)
    y = module(normal(1, 1, 8, 8, 8), torch.tensor([5]), module.project_condition(conditions((8, 8, 8))))
    assert torch.equal(y, torch.zeros_like(y))


def test_the_condition_projected_once_serves_every_step() -> None:
    module, shape = denoiser(), (8, 8, 16)
    h = conditions(shape)
    with torch.no_grad():
        maps = module.project_condition(h)
        kept = [m.clone() for m in maps]
        for t in (999, 500, 0):
            x, time = normal(1, 1, *shape, seed=t), torch.tensor([t])
            assert torch.equal(module(x, time, maps), module(x, time, module.project_condition(h)))
    assert all(torch.equal(a, b) for a, b in zip(maps, kept, strict=True))


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_the_condition_of_every_stage_enters_on_both_sides(stage: int) -> None:
    module, shape = denoiser(), (8, 8, 16)
    x, t, maps = normal(1, 1, *shape), torch.tensor([40]), module.project_condition(conditions(shape))
    with torch.no_grad():
        y = module(x, t, maps)
        for side in (0, 3):
            changed = list(maps)
            changed[side + stage] = changed[side + stage].roll(1, dims=-1)
            assert (module(x, t, changed) - y).abs().max() > 1e-3


def test_the_condition_is_read_through_linear_maps_of_its_activation() -> None:
    module = denoiser()
    h = conditions((8, 8, 16))
    down, up = module.project_condition(h)[:3], module.project_condition(h)[3:]
    for i in range(3):
        active = h[i] * torch.sigmoid(h[i])
        assert torch.allclose(down[i], module.condition_down[i](active), atol=1e-6)
        assert torch.allclose(up[i], module.condition_up[i](active), atol=1e-6)


def test_the_prediction_depends_on_time_and_on_the_volume() -> None:
    module, shape = denoiser(), (8, 8, 16)
    x, maps = normal(1, 1, *shape), module.project_condition(conditions(shape))
    with torch.no_grad():
        y = module(x, torch.tensor([100]), maps)
        assert (module(x, torch.tensor([101]), maps) - y).abs().max() > 1e-5
        assert (module(x, torch.tensor([900]), maps) - y).abs().max() > 1e-2
        assert (module(x.flip(-1), torch.tensor([100]), maps) - y).abs().max() > 1e-2


def test_each_member_of_a_batch_has_its_own_time_and_condition() -> None:
    module, shape = denoiser(), (8, 8, 16)
    x, t = normal(2, 1, *shape), torch.tensor([10, 900])
    maps = module.project_condition(conditions(shape, batch=2))
    with torch.no_grad():
        y = module(x, t, maps)
        for i in range(2):
            alone = module(x[i : i + 1], t[i : i + 1], [m[i : i + 1] for m in maps])
            assert torch.allclose(y[i : i + 1], alone, atol=1e-4)
            crossed = module(x[i : i + 1], t[1 - i : 2 - i], [m[i : i + 1] for m in maps])
            assert not torch.allclose(y[i : i + 1], crossed, atol=1e-3)


@pytest.mark.parametrize(("patch", "blocks"), [(1, 1), (2, 2)])
def test_every_weight_learns(patch: int, blocks: int) -> None:
    shape = (16, 16, 32)
    module = denoiser(shape, patch, blocks, dropout=0.0)
    h = [c.requires_grad_() for c in conditions(shape, patch)]
    y = module(normal(1, 1, *shape), torch.tensor([300]), module.project_condition(h))
    (y * normal(*y.shape, seed=1)).sum().backward()
    silent = [name for name, p in module.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []
    assert all(torch.isfinite(p.grad).all() for p in module.parameters())
    assert all(c.grad.any() for c in h)


def test_dropout_acts_in_training_only() -> None:
    module, shape = denoiser(), (8, 8, 16)
    arguments = normal(1, 1, *shape), torch.tensor([300]), module.project_condition(conditions(shape))
    assert torch.equal(module(*arguments), module(*arguments))
    module.train()
    assert not torch.equal(module(*arguments), module(*arguments))


def test_bfloat16_autocast_predicts_what_float32_does() -> None:
    module, shape = denoiser(), (8, 8, 16)
    x, t, h = normal(1, 1, *shape), torch.tensor([300]), conditions(shape)
    with torch.no_grad():
        exact = module(x, t, module.project_condition(h))
        with torch.autocast("cpu", torch.bfloat16):
            rounded = module(x, t, module.project_condition(h))
    assert rounded.dtype == torch.bfloat16
    assert (rounded.float() - exact).norm() < 0.03 * exact.norm()


@pytest.mark.parametrize("shape", [(8, 8, 12), (8, 8, 4), (9, 8, 8)])
def test_volumes_that_do_not_halve_through_the_stages_are_refused(shape: tuple[int, int, int]) -> None:
    message = rf"volume_shape \({', '.join(map(str, shape))}\) must be divisible by 8 \(patch 2, 3 stages\); crop or"
    with pytest.raises(ValueError, match=message):
        stage_shapes(shape, 2, 3)
    with pytest.raises(ValueError, match=message):
        denoiser(shape, patch=2)


def test_a_coarsest_grid_that_does_not_split_into_windows_is_refused() -> None:
    with refused(ValueError, "(2, 3, 2)", "windows of 2", "choose"):
        denoiser((8, 12, 8))


def test_a_condition_for_each_stage_is_demanded() -> None:
    with refused(ValueError, "3 channels", "2 condition_channels"):
        Denoiser((8, 8, 8), (8, 12, 16), (3, 5))
