"""Window attention against masked attention over the whole grid, the mask written from first principles."""

import math

import pytest
import torch
from torch import Tensor

from scripts.blocks.attention import ShiftedWindowAttention, SwinPair, _merge, _partition


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def spread_weights(module: torch.nn.Module) -> torch.nn.Module:
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        parameter.data = 0.5 * torch.randn(parameter.shape, generator=generator)
    return module.eval()


def cells(grid: tuple[int, int, int]) -> Tensor:
    """Positions ``[cells, 3]`` in the order of ``x.flatten(2)``."""
    return torch.cartesian_prod(*(torch.arange(n) for n in grid))


def attends(grid: tuple[int, int, int], window: int, shift: int) -> Tensor:
    """True ``[cells, cells]`` where two cells lie in one window, no wrapping: window edges at shift + k * window."""
    box = (cells(grid) - shift).div(window, rounding_mode="floor")
    return (box[:, None] == box[None, :]).all(dim=-1)


def full_attention(module: ShiftedWindowAttention, x: Tensor, mask: Tensor) -> Tensor:
    """Attention of every cell to every cell that ``mask`` allows, one head and one sample at a time."""
    grid, channels = tuple(x.shape[2:]), x.shape[1]
    tokens = module.norm(x).flatten(2).transpose(1, 2)
    q, k, v = module.qkv(tokens).chunk(3, dim=-1)
    side = 2 * module.window - 1
    table = module.bias.reshape(side, side, side, -1)
    offset = cells(grid)[:, None] - cells(grid)[None, :] + module.window - 1
    # Offsets that no window holds are masked anyway.
    bias = table[tuple(offset.clamp(0, side - 1).unbind(dim=-1))]
    size, answers = channels // module.heads, []
    for head in range(module.heads):
        part = slice(head * size, (head + 1) * size)
        scores = q[..., part] @ k[..., part].transpose(1, 2) / math.sqrt(size) + bias[..., head]
        answers.append(scores.masked_fill(~mask, -math.inf).softmax(dim=-1) @ v[..., part])
    y = module.project(torch.cat(answers, dim=-1))
    return x + y.transpose(1, 2).reshape(x.shape)


GRIDS = [((4, 4, 4), 2), ((4, 6, 8), 2), ((8, 8, 8), 4), ((6, 6, 9), 3)]


@pytest.mark.parametrize(("grid", "window"), GRIDS)
@pytest.mark.parametrize("shifted", [False, True])
def test_window_attention_is_full_attention_masked_to_neighbours(grid, window: int, shifted: bool) -> None:
    shift = window // 2 if shifted else 0
    module = spread_weights(ShiftedWindowAttention(8, 2, grid, window, shift))
    x = normal(2, 8, *grid)
    mask = attends(grid, window, shift)
    with torch.no_grad():
        y = module(x)
        assert torch.allclose(y, full_attention(module, x, mask), atol=1e-4)
        other = attends(grid, window, 0 if shifted else max(1, window // 2))
        assert not torch.allclose(y, full_attention(module, x, other), atol=1e-2)


@pytest.mark.parametrize("shift", [0, 1])
def test_attention_does_not_leak_across_windows(shift: int) -> None:
    grid, window = (4, 4, 6), 2
    module = spread_weights(ShiftedWindowAttention(4, 1, grid, window, shift))
    # The norm before the attention is global; without it, what a cell reads is exactly its window.
    module.norm = torch.nn.Identity()
    x = normal(1, 4, *grid).requires_grad_()
    mask = attends(grid, window, shift)
    for i in range(len(mask)):
        (gradient,) = torch.autograd.grad(module(x)[0].flatten(1)[:, i].sum(), x)
        reads = gradient[0].abs().sum(dim=0).flatten() > 0
        assert torch.equal(reads, mask[i])


def test_where_a_window_spans_an_axis_nothing_is_shifted() -> None:
    grid = (2, 4, 4)
    shifted = spread_weights(ShiftedWindowAttention(4, 1, grid, window=2, shift=1))
    regular = spread_weights(ShiftedWindowAttention(4, 1, grid, window=2, shift=0))
    x = normal(1, 4, *grid)
    assert shifted.shift == 0
    assert torch.equal(shifted(x), regular(x))


def test_merge_undoes_partition_and_a_window_holds_neighbours() -> None:
    x = normal(2, 3, 4, 6, 2)
    tokens = _partition(x, 2)
    assert tokens.shape == (2, 2 * 3 * 1, 8, 3)
    assert torch.equal(tokens[0, 0], x[0, :, :2, :2, :2].flatten(1).T)
    assert torch.equal(tokens[1, 5], x[1, :, 2:, 4:, :].flatten(1).T)
    assert torch.equal(_merge(tokens, 2, 4, 6, 2), x)


def test_a_new_attention_is_the_identity() -> None:
    x = normal(1, 8, 4, 4, 4)
    assert torch.equal(ShiftedWindowAttention(8, 2, (4, 4, 4), 2, 1)(x), x)
    assert torch.equal(SwinPair(8, 2, (4, 4, 4), 2)(x), x)


def test_a_pair_lets_cells_of_touching_windows_meet() -> None:
    grid = (4, 4, 4)
    x = normal(1, 4, *grid).requires_grad_()
    for first_only in (True, False):
        pair = spread_weights(SwinPair(4, 1, grid, window=2))
        for module in pair.modules():
            if isinstance(module, torch.nn.GroupNorm):
                module.forward = lambda y: y
        y = pair.attention[0](x) if first_only else pair(x)
        (gradient,) = torch.autograd.grad(y[0, :, 1, 1, 1].sum(), x)
        assert bool(gradient[0, :, 2, 2, 2].any()) is not first_only


def test_a_pair_is_attention_and_feed_forward_regular_then_shifted() -> None:
    pair = spread_weights(SwinPair(8, 2, (8, 4, 8), window=2))
    assert [attention.shift for attention in pair.attention] == [0, 1]
    x = normal(2, 8, 8, 4, 8)
    y = x
    for attention, feed_forward in zip(pair.attention, pair.feed_forward, strict=True):
        y = attention(y)
        y = y + feed_forward(y)
    assert torch.equal(pair(x), y)


def test_scripted_attention_is_the_eager_one() -> None:
    module = spread_weights(SwinPair(8, 2, (4, 4, 4), window=2))
    x = normal(1, 8, 4, 4, 4)
    assert torch.allclose(torch.jit.script(module)(x), module(x), atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((6, 4, (4, 4, 4), 2), "6 channels .*4 heads; .*multiple of 4"),
        ((4, 2, (4, 6, 4), 4), r"\(4, 6, 4\) .*windows of 4; choose"),
        ((4, 2, (4, 4, 4), 2, 2), "shift .*window of 2, got 2"),
        ((4, 2, (4, 4, 4), 2, -1), "shift .*window of 2, got -1"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ShiftedWindowAttention(*arguments)
