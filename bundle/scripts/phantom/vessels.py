"""The vessels of the lungs: trees that branch from the hila, evaluated all at once."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from scripts.phantom.canvas import Canvas
from scripts.phantom.draw import Draw
from scripts.phantom.patient import Patient

_HILUM = (34.0, -6.0, 172.0)
_LENGTH_MM, _RADIUS_MM = 34.0, 3.4
_LENGTH_RATIO, _RADIUS_RATIO = 0.85, 0.7
_GENERATIONS = 4


def paint_lung_vessels(canvas: Canvas, patient: Patient, lung: Tensor, draw: Draw) -> None:
    """Paint the trees of both sides, restricted to the inside of the lungs."""
    share = torch.zeros_like(canvas.hu)
    starts, headings = _stems(draw)
    length, radius = _LENGTH_MM, _RADIUS_MM
    for _ in range(_GENERATIONS):
        headings = headings / headings.norm(dim=1, keepdim=True)
        ends = starts + length * headings
        _raise_cover(share, canvas, starts, ends, radius)
        # Each vessel forks into two.
        starts, headings = ends.repeat_interleave(2, 0), headings.repeat_interleave(2, 0)
        headings = headings + draw.uniforms(len(headings), 3, reach=0.75)
        length, radius = length * _LENGTH_RATIO, radius * _RADIUS_RATIO
    hu = min(patient.tissue.pulmonary_hu, 250.0)
    canvas.hu.add_((hu - canvas.hu).mul_(share).mul_(canvas.cover(lung + 2)))


def _stems(draw: Draw) -> tuple[Tensor, Tensor]:
    """Return starting points and directions of the trees: outwards, more of them down than up."""
    count = draw.whole(10, 20)
    side = torch.tensor([1.0, -1.0]).repeat(count)[:, None]
    headings = draw.uniforms(2 * count, 3, reach=1.0) * torch.tensor([0.45, 0.9, 1.1]) + torch.tensor([0.55, 0.0, -0.2])
    outward = torch.cat([side, torch.ones(2 * count, 2)], dim=1)
    return outward * torch.tensor(_HILUM), outward * headings


def _raise_cover(share: Tensor, canvas: Canvas, starts: Tensor, ends: Tensor, radius: float) -> None:
    """Raise `share` to the fraction of each voxel that lies inside any of the tubes of the same radius.

    Every tube is evaluated on a box of voxels around it; all boxes have the same size, so that this takes one pass.
    """
    if canvas.is_empty:
        return
    # The cap is the tube's area over the voxel's, so that a thin tube stays faint on a coarse grid.
    most = min(1.0, math.pi * (radius / canvas.edge_mm) ** 2)
    reach = radius + canvas.edge_mm / 2
    inside, offsets, index = torch.ones(()), [], torch.zeros((), dtype=torch.long)
    for dim, (axis, step) in enumerate(zip((canvas.x, canvas.y, canvas.z), canvas.steps, strict=True)):
        first, count = axis.flatten()[0], axis.numel()
        low = torch.ceil((torch.minimum(starts, ends)[:, dim] - reach - first) / step)
        span = (starts - ends)[:, dim].abs().max().item() + 2 * reach
        shape = [len(starts), 1, 1, 1]
        shape[dim + 1] = -1
        at = (low[:, None] + torch.arange(int(span / step) + 1)).view(shape)
        inside = inside * ((at >= 0) & (at < count))
        offsets.append(first + at * step - starts[:, dim].view(-1, 1, 1, 1))
        index = index * count + at.clamp(0, count - 1).long()
    along = sum(o * s.view(-1, 1, 1, 1) for o, s in zip(offsets, (ends - starts).T, strict=True))
    along = (along / (ends - starts).square().sum(1).view(-1, 1, 1, 1)).clamp_(0, 1)
    square = sum((o - along * s.view(-1, 1, 1, 1)).square_() for o, s in zip(offsets, (ends - starts).T, strict=True))
    cover = canvas.cover(square.sqrt_().sub_(radius), most).mul_(inside)
    share.view(-1).scatter_reduce_(0, index.flatten(), cover.flatten(), "amax")
