"""Implicit shapes on a canvas: distances in mm, negative inside, with the profiles and noise they are made from."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from scripts.phantom.canvas import Canvas
from scripts.phantom.draw import Point

Knots = Sequence[tuple[float, float]]


def profile(knots: Knots, z: Tensor) -> Tensor:
    """Evaluate the polyline through `knots` (position, value), smoothed over 40 mm and constant beyond its ends."""
    position, value = (torch.tensor(column, dtype=torch.float32) for column in zip(*knots, strict=True))
    at = (z[..., None] + torch.linspace(-20, 20, 9)).clamp(position[0], position[-1])
    right = torch.searchsorted(position, at).clamp(1, len(position) - 1)
    share = (at - position[right - 1]) / (position[right] - position[right - 1])
    return torch.lerp(value[right - 1], value[right], share).mean(-1)


def trunk(canvas: Canvas, width: Knots, depth: Knots, centre: Knots, power: float) -> Tensor:
    """Return the distance to a superellipse with half width, half depth and centre that vary with z."""
    a, b, y = profile(width, canvas.z), profile(depth, canvas.z), canvas.y - profile(centre, canvas.z)
    level = ((canvas.x.abs() / a) ** power + (y.abs() / b) ** power) ** (1 / power)
    radius = torch.sqrt(canvas.x**2 + y**2)
    # radius / level is the radius of the surface in this direction; the offsets keep the axis itself finite.
    distance = radius - (radius + 1e-3) / (level + 1e-5)
    # On a slanted surface, the horizontal distance exceeds the true one.
    slope = (profile(width, canvas.z + 2) - profile(width, canvas.z - 2)) / 4
    return distance / torch.sqrt(1 + slope**2)


def angle_about(canvas: Canvas, width: Knots, depth: Knots, centre: Knots) -> Tensor:
    """Return the angle about the axis of a trunk, in radians: 0 at the back, pi at the front, equal on both sides."""
    across = canvas.x.abs() / profile(width, canvas.z)
    return torch.atan2(across, (profile(centre, canvas.z) - canvas.y) / profile(depth, canvas.z))


def ovoid(canvas: Canvas, centre: Point, axis: Point, half_length: float, radius: float) -> Tensor:
    """Return the distance (first order) to the ellipsoid of revolution about `axis`."""
    norm = math.hypot(*axis)
    x, y, z = canvas.x - centre[0], canvas.y - centre[1], canvas.z - centre[2]
    along = x * (axis[0] / norm) + y * (axis[1] / norm) + z * (axis[2] / norm)
    square = x * x + y * y + z * z
    return (torch.sqrt(square / radius**2 + along**2 * (half_length**-2 - radius**-2) + 1e-9) - 1) * radius


def smooth_max(a: Tensor, b: Tensor, width: float) -> Tensor:
    """Return the maximum of two distances, with the crease rounded over `width` mm."""
    return torch.maximum(a, b) + (width - (a - b).abs()).clamp_(min=0).square_() / (4 * width)


def mirrored(points: Sequence[Point]) -> list[list[Point]]:
    """Return the points as given, on the patient's right, and mirrored to the left."""
    return [[(side * x, y, z) for x, y, z in points] for side in (1, -1)]


def noise(lattice: Tensor, cell_mm: float, canvas: Canvas) -> Tensor:
    """Return smooth noise of about unit variance: a periodic lattice of normals, spread by a Gaussian of 0.6 cells.

    The lattice is fixed in mm, so the field does not depend on the grid. The Gaussian is separable: three products.
    """
    count = lattice.shape[0]
    field = lattice
    for axis in (canvas.x, canvas.y, canvas.z):
        offset = axis.flatten()[:, None] / cell_mm - torch.arange(count)
        offset = offset - count * torch.round(offset / count)
        weight = torch.exp(-0.5 * (offset / 0.6) ** 2)
        # Contracts the leading lattice axis and appends the grid's: after three rounds the order is u, v, w again.
        field = torch.tensordot(field, weight / weight.norm(dim=1, keepdim=True), dims=([0], [1]))
    return field
