"""A grid to paint on: Hounsfield units and labels, with soft edges like partial volume."""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from scripts.phantom.draw import Point

AIR_HU = -1000.0
_SCANNER_BLUR_MM = 2.4  # soft kernel and usual slice thickness


class Label(enum.IntEnum):
    """The tissue of a voxel. AIR is outside the body only: gas inside belongs to its organ."""

    AIR = 0
    SKIN = 1
    FAT = 2
    SOFT_TISSUE = 3
    LUNG = 4
    HEART = 5
    VERTEBRA = 6
    RIB = 7
    PELVIS = 8
    METAL = 9
    LIVER = 10
    SPLEEN = 11
    KIDNEY = 12
    STOMACH = 13
    BOWEL = 14
    BLADDER = 15
    VESSEL = 16
    TRACHEA = 17
    STERNUM = 18
    SCAPULA = 19
    CLAVICLE = 20
    FEMUR = 21
    CARTILAGE = 22
    HUMERUS = 23
    FOREARM = 24
    EFFUSION = 25
    DEVICE = 26


class Canvas(NamedTuple):
    """Grid to paint on; `x`, `y`, `z` broadcast to [U, V, W], and `edge_mm` is the width of a soft boundary."""

    hu: Tensor
    labels: Tensor
    x: Tensor
    y: Tensor
    z: Tensor
    steps: Point
    edge_mm: float

    @classmethod
    def blank(cls, shape: Sequence[int], spacing_mm: float, scale: Point, isocentre: Point) -> Canvas:
        """Return a canvas of air with voxel coordinates in the frame of the anatomy; `scale` is the patient's."""
        grid = [(torch.arange(n, dtype=torch.float64) - (n - 1) / 2) * spacing_mm for n in shape]
        x, y, z = ((g / s + c).float() for g, s, c in zip(grid, scale, isocentre, strict=True))
        hu, labels = torch.full(tuple(shape), AIR_HU), torch.full(tuple(shape), int(Label.AIR), dtype=torch.uint8)
        along_x, along_y, along_z = (spacing_mm / s for s in scale)
        edge_mm = math.hypot(spacing_mm, _SCANNER_BLUR_MM) * 3 / sum(scale)
        return cls(hu, labels, x[:, None, None], y[None, :, None], z[None, None], (along_x, along_y, along_z), edge_mm)

    @property
    def is_empty(self) -> bool:
        """Whether there is no voxel to paint."""
        return self.hu.numel() == 0

    def window(self, *points: Point, margin: float) -> tuple[slice, slice, slice]:
        """Return the voxels within `margin` mm of the box around `points`; the canvas must not be turned."""
        margin += self.edge_mm
        x, y, z = (
            _span(axis, step, min(values) - margin, max(values) + margin)
            for axis, step, values in zip((self.x, self.y, self.z), self.steps, zip(*points, strict=True), strict=True)
        )
        return x, y, z

    def near(self, *points: Point, margin: float) -> Canvas:
        """Return the part of this canvas in :meth:`window`; shares memory."""
        u, v, w = self.window(*points, margin=margin)
        x, y, z = self.x[u], self.y[:, v], self.z[:, :, w]
        return self._replace(hu=self.hu[u, v, w], labels=self.labels[u, v, w], x=x, y=y, z=z)

    def slab(self, w: slice) -> Canvas:
        """Return a range of heights of this canvas, bent or not; shares memory."""
        x, y, z = (axis if axis.shape[2] == 1 else axis[..., w] for axis in (self.x, self.y, self.z))
        return self._replace(hu=self.hu[..., w], labels=self.labels[..., w], x=x, y=y, z=z)

    def heights(self, low: float, high: float) -> slice:
        """Return the indices along w of the heights from `low` to `high` mm."""
        return _span(self.z, self.steps[2], low, high)

    def turned(self, centre: Point, axes: Tensor) -> Canvas:
        """Return this canvas in the local frame of `centre` with the given axes (rows)."""
        dx, dy, dz = self.x - centre[0], self.y - centre[1], self.z - centre[2]
        x, y, z = (a * dx + b * dy + c * dz for a, b, c in axes.tolist())
        return self._replace(x=x, y=y, z=z)

    def folded(self) -> Canvas:
        """Return this canvas with x as the distance from the sagittal plane, to paint both sides at once."""
        return self._replace(x=self.x.abs())

    def cover(self, distance: Tensor, most: float = 1.0) -> Tensor:
        """Return the fraction of each voxel inside the structure, at most `most`."""
        return (distance * (-1 / self.edge_mm)).add_(0.5).clamp_(0, most)

    def paint(self, distance: Tensor, hu: float | Tensor, label: Label, most: float = 1.0) -> None:
        """Blend in `hu` where `distance` is negative; `most` caps the share of structures thinner than a voxel."""
        cover = self.cover(distance, most)
        self.hu.add_((hu - self.hu).mul_(cover))
        self.labels.masked_fill_(cover > 0.5, int(label))

    def tube(self, points: Sequence[Point], radius: float, hu: float, label: Label) -> None:
        """Paint the polyline through `points`, thickened by `radius`."""
        # The cap is the tube's area over the voxel's, so that a thin tube stays faint on a coarse grid.
        most = min(1.0, math.pi * (radius / self.edge_mm) ** 2)
        for start, end in zip(points, points[1:], strict=False):
            part = self.near(start, end, margin=radius)
            if not part.is_empty:
                part.paint(capsule(part, start, end, radius), hu, label, most)


def _span(axis: Tensor, step: float, low: float, high: float) -> slice:
    """Return the indices of the evenly spaced `axis` from `low` to `high`."""
    count = axis.numel()
    if not count:
        return slice(0, 0)
    first = axis[0, 0, 0].item()
    start, stop = max((low - first) / step, 0.0), min((high - first) / step, count - 1.0)
    start, stop = min(math.ceil(start), count), math.floor(stop) + 1
    return slice(start, max(start, stop))


def capsule(canvas: Canvas, start: Point, end: Point, radius: float) -> Tensor:
    """Return the distance to the segment from `start` to `end`, thickened by `radius`."""
    a, b, c = (e - s for s, e in zip(start, end, strict=True))
    square = max(a * a + b * b + c * c, 1e-6)
    x, y, z = canvas.x - start[0], canvas.y - start[1], canvas.z - start[2]
    along = (x * (a / square) + y * (b / square) + z * (c / square)).clamp_(0, 1)
    squares = (x - along * a).square_() + (y - along * b).square_() + (z - along * c).square_()
    return squares.sqrt_().sub_(radius)
