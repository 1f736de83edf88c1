"""A seeded, procedural human torso in Hounsfield units, with labels.

The anatomy is a set of implicit functions in millimetres, drawn once per seed and then evaluated on any grid, so the
same seed gives the same patient at every shape and spacing. It serves to test and to pre-train without patient data:
its layout (lungs, spine, ribs, heart, diaphragm, pelvis) follows an adult CT, its detail does not replace one.

Frame of the anatomy: x to the patient's right, y to anterior, z to superior, in the millimetres of an average adult;
z = 0 lies between T12 and L1, and y = 0 about mid-depth of the trunk. A distance is negative inside its structure.
"""

from __future__ import annotations

import enum
import functools
import math
import numbers
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

Point = tuple[float, float, float]
Knots = Sequence[tuple[float, float]]

AIR_HU = -1000.0
# What twelve bits hold; a scanner saturates there, and metal with it.
HU_RANGE = (-1024.0, 3071.0)
METAL_HU = (3000.0, 3071.0)


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


class Phantom(NamedTuple):
    """A torso on a grid: `hu` float32 [U, V, W] in Hounsfield units and `labels` uint8 [U, V, W] of `Label`."""

    hu: Tensor
    labels: Tensor


def torso(
    seed: int,
    shape: Sequence[int] = (64, 64, 64),
    spacing_mm: float = 5.0,
    metal: bool = False,
    centre_mm: float | None = None,
) -> Phantom:
    """Draw one patient and evaluate it on a grid centred on the isocentre.

    Axes are RAS+: u grows to the patient's right, v to anterior, w to superior; along each axis of n voxels, voxel i
    has its centre at (i - (n - 1) / 2) * spacing_mm. Beyond the torso the neck and the thighs continue; there is no
    head, and there are no arms.

    Args:
        seed: non-negative integer that determines the patient, whatever the grid. Metal leaves the patient unchanged.
        shape: number of voxels (U, V, W).
        spacing_mm: edge of the cubic voxel. Boundaries are soft over about one voxel, like partial volume.
        metal: whether pedicle screws and rods instrument a few vertebrae near the centre of the field of view.
        centre_mm: height of the isocentre above the T12/L1 disc, in mm of an average adult (mid-chest about 160,
            pelvis about -220); drawn from [-200, 200] when None.

    Returns:
        The phantom. Beyond the soft edge of the skin the air is exactly -1000 HU; all values lie in [-1024, 3071].

    Raises:
        ValueError: for a seed, shape, spacing or centre out of range.
    """
    _check(seed, shape, spacing_mm, centre_mm)
    draw = _Draw(seed)
    patient = _Patient.drawn(draw, centre_mm)
    canvas = _Canvas.blank(shape, spacing_mm, patient)

    # The order of painting is the order of occlusion; no draw may depend on the grid.
    fields = _Fields.of(canvas, patient, draw)
    _paint_wall(canvas, patient, fields)
    _paint_abdomen(canvas, patient, fields, draw)
    _paint_lungs(canvas, patient, fields, draw)
    _paint_mediastinum(canvas, patient, draw)
    _paint_cage(canvas, patient, fields)
    _paint_pelvis(canvas, patient)
    for vertebra in patient.spine.vertebrae:
        _paint_vertebra(canvas, patient, vertebra)
    _add_texture(canvas, fields, draw)
    if metal:
        _paint_metal(canvas, patient, draw)
    return Phantom(canvas.hu.clamp_(*HU_RANGE), canvas.labels)


def _check(seed: int, shape: Sequence[int], spacing_mm: float, centre_mm: float | None) -> None:
    """Refuse arguments that have no meaning, naming the rule, the value and the remedy."""
    if not _is_integer(seed) or not 0 <= seed < 2**63:
        raise ValueError(f"seed must be an integer in [0, 2**63), got {seed!r}; pass for instance 0.")
    if not isinstance(shape, Sequence) or len(shape) != 3 or not all(_is_integer(n) and n > 0 for n in shape):
        raise ValueError(f"shape must be three positive integers (U, V, W), got {shape!r}; pass e.g. (64, 64, 64).")
    if not _is_finite(spacing_mm) or spacing_mm <= 0:
        raise ValueError(f"spacing_mm must be a positive number of millimetres, got {spacing_mm!r}; pass e.g. 5.0.")
    if centre_mm is not None and not _is_finite(centre_mm):
        raise ValueError(f"centre_mm must be a finite height in millimetres, got {centre_mm!r}; pass None to draw it.")


def _is_integer(value: object) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _is_finite(value: object) -> bool:
    return isinstance(value, numbers.Real) and math.isfinite(value)


# ---------------------------------------------------------------------------------------------------------------------
# The patient: everything that is drawn before a grid exists
# ---------------------------------------------------------------------------------------------------------------------


class _Draw:
    """The one source of randomness of a phantom."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(int(seed))

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * torch.rand((), generator=self.generator).item()

    def chance(self, probability: float) -> bool:
        return self.uniform(0.0, 1.0) < probability

    def near(self, point: Point, jitter: float) -> Point:
        """`point` moved by at most `jitter` mm along each axis."""
        return tuple(p + self.uniform(-jitter, jitter) for p in point)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator)


# Heights of a level, vertebra and disc, in mm: upwards from T12 to C4, downwards from L1 to L5.
_UPWARD_MM = (30, 28.5, 27, 26, 25, 24.5, 24, 23, 22, 21, 20.5, 20, 18, 17, 17, 17)
_DOWNWARD_MM = (34, 35, 36, 36, 35)
_THORACIC_COUNT = 12

# y of the centres of the vertebral bodies over z: lordosis, kyphosis, lordosis.
_SPINE_Y = (
    (-300, -60),
    (-265, -74),
    (-225, -64),
    (-176, -36),
    (-110, -20),
    (-55, -22),
    (0, -33),
    (75, -44),
    (150, -48),
    (230, -42),
    (290, -28),
    (340, -19),
    (420, -17),
)


@dataclass(frozen=True)
class _Vertebra:
    """One vertebra: where it stands, and its sizes in mm. `thoracic` is 1…12 from the top, 0 elsewhere."""

    centre: Point
    axes: Tensor  # [3, 3], rows: the local right, anterior and superior directions
    thoracic: int
    lumbar: bool
    half_width: float
    half_depth: float
    half_height: float
    half_disc: float

    @property
    def canal_y(self) -> float:
        """Local y of the centre of the vertebral canal."""
        return -self.half_depth - 8.0

    @property
    def pedicle(self) -> Point:
        """Local centre of the right pedicle."""
        return (0.62 * self.half_width, -self.half_depth - 2.0, 0.35 * self.half_height)

    @property
    def pedicle_radius(self) -> float:
        return 0.22 * self.half_width

    def to_anatomy(self, point: Point) -> Point:
        """A local point in the frame of the anatomy."""
        return tuple((torch.tensor(self.centre) + torch.tensor(point) @ self.axes).tolist())


@dataclass(frozen=True)
class _Spine:
    """The curve of the vertebral column."""

    curvature: float
    scoliosis_mm: float
    scoliosis_phase: float
    scoliosis_length_mm: float

    def x(self, z: Tensor) -> Tensor:
        """Lateral offset: a sine that dies away at the sacrum."""
        wave = torch.sin(2 * math.pi * z / self.scoliosis_length_mm + self.scoliosis_phase)
        return self.scoliosis_mm * wave * ((z + 185) / 120).clamp(0, 1)

    def y(self, z: Tensor) -> Tensor:
        """Depth: the average curve, flattened or exaggerated about its mean."""
        mean_y = -34.0
        return mean_y + self.curvature * (_profile(_SPINE_Y, z) - mean_y)

    def at(self, z: float) -> Point:
        """The point of the curve at height z."""
        height = torch.tensor([float(z)])
        return self.x(height).item(), self.y(height).item(), float(z)

    @functools.cached_property
    def vertebrae(self) -> list[_Vertebra]:
        """From C4 down to L5."""
        tops = [sum(_UPWARD_MM[:i]) for i in range(len(_UPWARD_MM) + 1)]
        upper = [self._vertebra(*pair, order) for order, pair in enumerate(zip(tops, tops[1:], strict=False))]
        downs = [-sum(_DOWNWARD_MM[:i]) for i in range(len(_DOWNWARD_MM) + 1)]
        lower = [self._vertebra(low, top, -1 - i) for i, (top, low) in enumerate(zip(downs, downs[1:], strict=False))]
        return upper[::-1] + lower

    def _vertebra(self, low: float, top: float, order: int) -> _Vertebra:
        """The level between two heights; `order` counts upwards from T12 = 0."""
        centre, below, above = self.at((low + top) / 2), self.at(low), self.at(top)
        thoracic = _THORACIC_COUNT - order if 0 <= order < _THORACIC_COUNT else 0
        half_level, disc_share = (top - low) / 2, 0.27 if order < 0 else 0.19
        size = torch.tensor([float(centre[2])])
        return _Vertebra(
            centre,
            _upright(torch.tensor(above) - torch.tensor(below)),
            thoracic,
            order < 0,
            half_width=_profile(((-180, 26), (-20, 21.5), (150, 16), (280, 14), (320, 11)), size).item(),
            half_depth=_profile(((-180, 18), (-20, 16), (150, 13.5), (280, 9.5), (320, 8)), size).item(),
            half_height=half_level * (1 - disc_share),
            half_disc=half_level * disc_share,
        )


def _upright(superior: Tensor) -> Tensor:
    """The orthonormal axes (rows) whose third is `superior`, turned as little as possible about it."""
    superior = superior / superior.norm()
    anterior = torch.tensor([0.0, 1.0, 0.0]) - superior[1] * superior
    anterior = anterior / anterior.norm()
    return torch.stack([torch.linalg.cross(anterior, superior), anterior, superior])


@dataclass(frozen=True)
class _Patient:
    """Build and positioning of one patient. `scale` is relative to the average adult along x, y and z."""

    scale: Point
    isocentre: Point
    spine: _Spine
    fat_mm: float
    belly_mm: float
    breast_mm: float
    enhancement_hu: float
    bone: float
    lung_hu: float
    muscle_hu: float
    inspiration_mm: float

    @classmethod
    def drawn(cls, draw: _Draw, centre_mm: float | None) -> _Patient:
        """A patient at random; a given `centre_mm` changes the positioning alone."""
        size = draw.uniform(0.93, 1.07)
        drawn_centre = draw.uniform(-200, 200)
        return cls(
            scale=tuple(size * draw.uniform(*r) for r in ((0.94, 1.08), (0.92, 1.08), (0.95, 1.05))),
            isocentre=(
                draw.uniform(-8, 8),
                draw.uniform(-10, 10),
                drawn_centre if centre_mm is None else float(centre_mm),
            ),
            # A squared uniform: most patients are nearly straight, a few are not.
            spine=_Spine(
                draw.uniform(0.7, 1.3), 18 * draw.uniform(-1, 1) ** 2, draw.uniform(0, 6.28), draw.uniform(260, 420)
            ),
            fat_mm=5 + 22 * draw.uniform(0, 1) ** 1.5,
            belly_mm=draw.uniform(-8, 25),
            breast_mm=draw.uniform(25, 45) if draw.chance(0.45) else 0.0,
            enhancement_hu=draw.uniform(80, 300) if draw.chance(0.5) else 0.0,
            bone=draw.uniform(0.75, 1.15),
            lung_hu=draw.uniform(-850, -740),
            muscle_hu=draw.uniform(42, 62),
            inspiration_mm=draw.uniform(-18, 14),
        )


# ---------------------------------------------------------------------------------------------------------------------
# The canvas and the implicit functions
# ---------------------------------------------------------------------------------------------------------------------


class _Canvas(NamedTuple):
    """A grid to paint on. `x`, `y`, `z` broadcast to [U, V, W]; `edge_mm` is the width of a soft boundary."""

    hu: Tensor
    labels: Tensor
    x: Tensor
    y: Tensor
    z: Tensor
    edge_mm: float

    @classmethod
    def blank(cls, shape: Sequence[int], spacing_mm: float, patient: _Patient) -> _Canvas:
        """Air, with the coordinates of the voxels in the frame of the anatomy."""
        grid = [(torch.arange(n, dtype=torch.float64) - (n - 1) / 2) * spacing_mm for n in shape]
        x, y, z = ((g / s + c).float() for g, s, c in zip(grid, patient.scale, patient.isocentre, strict=True))
        labels = torch.full(tuple(shape), int(Label.AIR), dtype=torch.uint8)
        edge_mm = spacing_mm * 3 / sum(patient.scale)
        return cls(torch.full(tuple(shape), AIR_HU), labels, x[:, None, None], y[None, :, None], z, edge_mm)

    def near(self, *points: Point, margin: float) -> _Canvas:
        """The part of this canvas (not a turned one) within `margin` mm of the box around `points`; shares memory."""
        margin += self.edge_mm
        window = []
        for axis, values in zip((self.x, self.y, self.z), zip(*points, strict=True), strict=True):
            bounds = torch.tensor([min(values) - margin, max(values) + margin])
            window.append(slice(*torch.searchsorted(axis.flatten(), bounds).tolist()))
        u, v, w = window
        return self._replace(hu=self.hu[u, v, w], labels=self.labels[u, v, w], x=self.x[u], y=self.y[:, v], z=self.z[w])

    def turned(self, centre: Point, axes: Tensor) -> _Canvas:
        """This canvas in the local frame of `centre` with the given axes (rows)."""
        dx, dy, dz = self.x - centre[0], self.y - centre[1], self.z - centre[2]
        x, y, z = (a * dx + b * dy + c * dz for a, b, c in axes.tolist())
        return self._replace(x=x, y=y, z=z)

    def cover(self, distance: Tensor, most: float = 1.0) -> Tensor:
        """The share of each voxel inside the structure, at most `most`."""
        return (0.5 - distance / self.edge_mm).clamp_(0, most)

    def paint(self, distance: Tensor, hu: float | Tensor, label: Label, most: float = 1.0) -> None:
        """Mix `hu` in where `distance` is negative; `most` caps the share of structures thinner than a voxel."""
        cover = self.cover(distance, most)
        self.hu.add_((hu - self.hu).mul_(cover))
        self.labels.masked_fill_(cover > 0.5, int(label))


def _profile(knots: Knots, z: Tensor) -> Tensor:
    """The polyline through `knots` (position, value), smoothed over 40 mm and constant beyond its ends."""
    position, value = (torch.tensor(column, dtype=torch.float32) for column in zip(*knots, strict=True))
    at = (z[..., None] + torch.linspace(-20, 20, 9)).clamp(position[0], position[-1])
    right = torch.searchsorted(position, at).clamp(1, len(position) - 1)
    share = (at - position[right - 1]) / (position[right] - position[right - 1])
    return torch.lerp(value[right - 1], value[right], share).mean(-1)


def _trunk(canvas: _Canvas, width: Knots, depth: Knots, centre: Knots, power: float) -> Tensor:
    """Distance to a superellipse whose half width, half depth and centre vary with z."""
    a, b, y = _profile(width, canvas.z), _profile(depth, canvas.z), canvas.y - _profile(centre, canvas.z)
    level = ((canvas.x.abs() / a) ** power + (y.abs() / b) ** power) ** (1 / power)
    radius = torch.sqrt(canvas.x**2 + y**2)
    # radius / level is the radius of the surface in this direction; the offsets keep the axis itself finite.
    distance = radius - (radius + 1e-3) / (level + 1e-5)
    # Where the surface leans, the horizontal distance overstates the true one.
    slope = (_profile(width, canvas.z + 2) - _profile(width, canvas.z - 2)) / 4
    return distance / torch.sqrt(1 + slope**2)


def _capsule(canvas: _Canvas, start: Point, end: Point, radius: float) -> Tensor:
    """Distance to the segment from `start` to `end`, thickened by `radius`."""
    step = [e - s for s, e in zip(start, end, strict=True)]
    offset = [axis - s for axis, s in zip((canvas.x, canvas.y, canvas.z), start, strict=True)]
    along = sum(o * s for o, s in zip(offset, step, strict=True)) / max(sum(s * s for s in step), 1e-6)
    along = along.clamp_(0, 1)
    return torch.sqrt(sum((o - along * s) ** 2 for o, s in zip(offset, step, strict=True))) - radius


def _ovoid(canvas: _Canvas, centre: Point, axis: Point, half_length: float, radius: float) -> Tensor:
    """Distance (first order) to the ellipsoid of revolution about `axis`."""
    norm = math.hypot(*axis)
    offset = [a - c for a, c in zip((canvas.x, canvas.y, canvas.z), centre, strict=True)]
    along = sum(o * n / norm for o, n in zip(offset, axis, strict=True))
    square = sum(o * o for o in offset)
    return (torch.sqrt(square / radius**2 + along**2 * (half_length**-2 - radius**-2) + 1e-9) - 1) * radius


def _smooth_max(a: Tensor, b: Tensor, width: float) -> Tensor:
    """The maximum of two distances, with the crease rounded over `width` mm."""
    return torch.maximum(a, b) + (width - (a - b).abs()).clamp(min=0) ** 2 / (4 * width)


def _tube(canvas: _Canvas, points: Sequence[Point], radius: float, hu: float, label: Label) -> None:
    """Paint the polyline through `points`, thickened by `radius`."""
    # The cap is the area of the tube over that of a voxel: a thin tube stays faint on a coarse grid.
    most = min(1.0, math.pi * (radius / canvas.edge_mm) ** 2)
    for start, end in zip(points, points[1:], strict=False):
        part = canvas.near(start, end, margin=radius)
        part.paint(_capsule(part, start, end, radius), hu, label, most)


def _bone(canvas: _Canvas, distance: Tensor, patient: _Patient, label: Label, shell_mm: float = 1.5) -> None:
    """Paint a cortical shell filled with trabecular bone."""
    canvas.paint(distance, 680 * patient.bone, label)
    canvas.paint(distance + shell_mm, 190 * patient.bone, label)


def _mirrored(points: Sequence[Point]) -> list[list[Point]]:
    """The points on the patient's right, as given, and on the left."""
    return [[(side * x, y, z) for x, y, z in points] for side in (1, -1)]


def _noise(lattice: Tensor, cell_mm: float, canvas: _Canvas) -> Tensor:
    """Smooth noise of about unit variance: a periodic lattice of normals, spread by a Gaussian of 0.6 cells.

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


# ---------------------------------------------------------------------------------------------------------------------
# The trunk: knots (z, mm) of an average adult
# ---------------------------------------------------------------------------------------------------------------------

_WALL_WIDTH = ((-420, 168), (-320, 172), (-250, 165), (-170, 148), (-90, 135), (0, 142), (100, 152), (190, 158),
               (250, 168), (285, 160), (315, 105), (340, 62), (420, 54))  # fmt: skip
_WALL_DEPTH = ((-420, 92), (-320, 100), (-230, 102), (-100, 96), (0, 98), (120, 103), (200, 98), (250, 88), (300, 72),
               (340, 58), (420, 55))  # fmt: skip
_WALL_Y = ((-420, -6), (-250, -8), (-100, 2), (0, 0), (150, -2), (240, -10), (300, -14), (420, -6))

# The outer face of the ribs above, the abdominal and pelvic cavity below.
_CAGE_WIDTH = ((-350, 35), (-300, 66), (-230, 96), (-150, 116), (-90, 116), (-20, 126), (40, 132), (90, 133),
               (150, 128), (200, 118), (240, 101), (270, 80), (295, 54), (312, 30))  # fmt: skip
_CAGE_DEPTH = ((-350, 25), (-300, 52), (-230, 72), (-130, 80), (0, 87), (90, 91), (150, 88), (200, 80), (240, 67),
               (270, 54), (295, 40), (312, 25))  # fmt: skip
_CAGE_Y = ((-350, 0), (-200, 4), (-100, 8), (0, 4), (150, 1), (220, -3), (270, -10), (312, -18))
_RIB_MM = 7.0
_PELVIC_FLOOR_Z = -335.0


class _Fields(NamedTuple):
    """What several organs share, on the whole grid: distances, noise, and the height of the diaphragm [U, V, 1]."""

    body: Tensor
    wall: Tensor
    cage: Tensor
    cavity: Tensor
    diaphragm: Tensor
    wobble: Tensor

    @classmethod
    def of(cls, canvas: _Canvas, patient: _Patient, draw: _Draw) -> _Fields:
        wobble = _noise(draw.normal(20, 20, 20), 40.0, canvas)
        diaphragm = _diaphragm(canvas, patient, draw)
        belly = patient.belly_mm * _profile(((-230, 0), (-100, 0.5), (0, 0.4), (90, 0.05), (130, 0)), canvas.z)
        front = canvas._replace(y=canvas.y - belly * (canvas.y / 60).clamp(0, 1))
        back = _back(canvas, patient.spine)
        # The wall bulges where the spine leaves it, so that a curved back shows and every process stays covered.
        wall = -_smooth_max(-_trunk(front, _WALL_WIDTH, _WALL_DEPTH, _WALL_Y, 2.5) - wobble, -back, 25)
        # Below the pelvis a wedge of air parts the thighs.
        legs = (-0.12 * (canvas.z + 385)).clamp(max=25) - canvas.x.abs()
        body = torch.maximum(_skin_line(canvas, patient, wall), legs)
        cage = _trunk(front, _CAGE_WIDTH, _CAGE_DEPTH, _CAGE_Y, 2.3)
        cavity = _smooth_max(torch.maximum(cage + _RIB_MM + 2, _PELVIC_FLOOR_Z - canvas.z), -back, 14)
        return cls(body, torch.maximum(wall, legs + 8), cage, cavity, diaphragm, wobble)


def _skin_line(canvas: _Canvas, patient: _Patient, wall: Tensor) -> Tensor:
    """Distance to the skin: fat over the muscles, thicker over the abdomen and the hips, and the breasts."""
    share = _profile(((-400, 0.9), (-220, 1.3), (-80, 1.2), (60, 0.8), (200, 0.55), (300, 0.4)), canvas.z)
    body = wall - patient.fat_mm * share - 4.0
    if not patient.breast_mm:
        return body
    part = canvas._replace(x=canvas.x.abs())
    breast = _ovoid(part, (72, 82, 140), (0.2, 1, -0.2), patient.breast_mm + 14, 52)
    return -_smooth_max(-body, -breast, 20)


def _back(canvas: _Canvas, spine: _Spine) -> Tensor:
    """Distance to the column of muscle about the vertebral processes, which the sacrum lacks."""
    behind = _profile(((-260, 2), (-180, 30)), canvas.z)
    x, y = canvas.x - spine.x(canvas.z), canvas.y - spine.y(canvas.z) + behind
    return (torch.sqrt((x / 32) ** 2 + (y / 31) ** 2 + 1e-9) - 1) * 31


def _diaphragm(canvas: _Canvas, patient: _Patient, draw: _Draw) -> Tensor:
    """Height of the diaphragm [U, V, 1]: two domes, the right one higher, that fall to the recesses at the wall."""
    right = 88 - patient.inspiration_mm + draw.uniform(-4, 4)
    left = right - draw.uniform(6, 20)
    domes = []
    for x, top in ((58, right), (-62, left)):
        square = ((canvas.x - x) / 82) ** 2 + ((canvas.y - 14) / 100) ** 2
        domes.append(top - 72 * square**1.5)
    return _smooth_max(*domes, 15)


def _paint_wall(canvas: _Canvas, patient: _Patient, fields: _Fields) -> None:
    """Skin, subcutaneous fat, muscle, and the fat that fills the cavity."""
    canvas.paint(fields.body, 40.0, Label.SKIN)
    canvas.paint(fields.body + 2.5, -102.0, Label.FAT)
    canvas.paint(fields.wall, patient.muscle_hu, Label.SOFT_TISSUE)
    canvas.paint(fields.cavity, -95.0, Label.FAT)


# ---------------------------------------------------------------------------------------------------------------------
# Abdomen
# ---------------------------------------------------------------------------------------------------------------------


def _paint_abdomen(canvas: _Canvas, patient: _Patient, fields: _Fields, draw: _Draw) -> None:
    """Everything below the diaphragm that is not bone."""
    inside = _smooth_max(fields.cavity + 2, canvas.z - fields.diaphragm + 4, 8)
    _paint_bowel(canvas, inside, draw)
    _paint_psoas(canvas, patient)
    enhanced = 0.45 * patient.enhancement_hu
    _paint_stomach(canvas, inside, draw)
    for side in (1, -1):
        x, _, z = draw.near((side * 56, 0, -38 - 8 * side), 6)
        kidney = _ovoid(canvas, (x, patient.spine.at(z)[1] - 8, z), (-0.25 * side, 0.2, 1), draw.uniform(48, 58), 27)
        canvas.paint(torch.maximum(kidney, inside), 32 + 1.5 * enhanced, Label.KIDNEY)
    spleen = _ovoid(canvas, draw.near((-92, -40, 28), 6), (0.2, 0.7, -1), draw.uniform(45, 62), 32)
    canvas.paint(torch.maximum(spleen, inside), 48 + enhanced, Label.SPLEEN)
    # The liver fills the right dome; its lower edge rises to the left.
    rise, low = draw.uniform(0.5, 0.75), draw.uniform(-75, -45)
    edge = (low - canvas.z + rise * (115 - canvas.x)) * 0.85 + 4 * fields.wobble
    liver = _smooth_max(_smooth_max(inside, edge, 25), -canvas.x - draw.uniform(20, 55), 20)
    canvas.paint(liver, draw.uniform(45, 62) + 0.8 * enhanced, Label.LIVER)
    bladder = _ovoid(canvas, draw.near((0, 22, -280), 5), (1, 0, 0), draw.uniform(32, 46), draw.uniform(22, 34))
    canvas.paint(bladder, 8.0, Label.BLADDER)


def _paint_bowel(canvas: _Canvas, inside: Tensor, draw: _Draw) -> None:
    """Loops of small bowel from noise, and the colon that frames them, both with some gas."""
    loops, gas = _noise(draw.normal(24, 24, 24), 22.0, canvas), _noise(draw.normal(24, 24, 24), 22.0, canvas)
    front = torch.maximum(inside + 6, -canvas.y - 15)
    canvas.paint(torch.maximum((0.15 - loops) * 9, front), 38.0, Label.BOWEL)
    colon = [(78, -8, -150), (86, 2, -60), (78, 30, -25), (0, 62, -55), (-72, 35, -5), (-92, -8, -40), (-90, -12, -140),
             (-62, 5, -190), (-10, -15, -225), (0, -38, -270)]  # fmt: skip
    points = [draw.near(point, 10) for point in colon]
    for start, end in zip(points, points[1:], strict=False):
        _tube(canvas, [start, end], draw.uniform(15, 23), draw.uniform(10, 45), Label.BOWEL)
    # The patient lies supine: gas gathers in front.
    bubble = (1.35 - gas - 0.006 * canvas.y) * 9
    canvas.paint(torch.where(canvas.labels == Label.BOWEL, bubble, canvas.edge_mm), -900.0, Label.BOWEL)


def _paint_stomach(canvas: _Canvas, inside: Tensor, draw: _Draw) -> None:
    """The stomach under the left dome, with its gas bubble in front."""
    centre = draw.near((-55, 28, 30), 8)
    stomach = torch.maximum(_ovoid(canvas, centre, (-0.5, -0.4, 1), draw.uniform(52, 68), draw.uniform(28, 38)), inside)
    canvas.paint(stomach, draw.uniform(15, 50), Label.STOMACH)
    gas_level = centre[1] + draw.uniform(-5, 28)
    canvas.paint(torch.maximum(stomach + 3, gas_level - canvas.y), -950.0, Label.STOMACH)


def _paint_psoas(canvas: _Canvas, patient: _Patient) -> None:
    """The muscles on both sides of the lumbar spine, down to the hips."""
    top, low = patient.spine.at(-20), patient.spine.at(-160)
    psoas = [(24.0, top[1] - 4, -20.0), (40.0, low[1] + 6, -130.0), (62.0, 12.0, -220.0), (85.0, 30.0, -290.0)]
    for points in _mirrored(psoas):
        _tube(canvas, points, 20.0, patient.muscle_hu, Label.SOFT_TISSUE)


# ---------------------------------------------------------------------------------------------------------------------
# Chest
# ---------------------------------------------------------------------------------------------------------------------

_HILUM = (34.0, -6.0, 172.0)
_MEDIASTINUM = ((60, 30), (130, 26), (190, 27), (250, 32), (310, 26))


def _paint_lungs(canvas: _Canvas, patient: _Patient, fields: _Fields, draw: _Draw) -> None:
    """Two lungs between ribs, diaphragm and mediastinum, denser at the back, with their vessels."""
    half_width = _profile(_MEDIASTINUM, canvas.z)
    # In front of the great vessels the lungs come close to each other.
    half_width = half_width * (1 - 0.6 * ((canvas.y - 15) / 45).clamp(0, 1))
    lung = _smooth_max(fields.cavity, fields.diaphragm - canvas.z, 4)
    lung = _smooth_max(lung, half_width - canvas.x.abs() + 3 * fields.wobble, 10)
    canvas.paint(lung - 3, patient.muscle_hu, Label.SOFT_TISSUE)
    canvas.paint(lung, patient.lung_hu - 0.45 * canvas.y, Label.LUNG)
    _paint_lung_vessels(canvas, patient, lung, draw)


def _paint_lung_vessels(canvas: _Canvas, patient: _Patient, lung: Tensor, draw: _Draw) -> None:
    """Trees that fork from the hila; painted on a copy, of which the inside of the lungs is kept."""
    tree = canvas._replace(hu=canvas.hu.clone(), labels=canvas.labels.clone())
    hu = 40 + 0.6 * patient.enhancement_hu
    for side in (1, -1):
        root = (side * _HILUM[0], _HILUM[1], _HILUM[2])
        for _ in range(13):
            heading = (side * draw.uniform(0.1, 1.0), draw.uniform(-0.9, 0.9), draw.uniform(-1.3, 0.9))
            _grow(tree, root, heading, 34.0, 3.4, hu, draw)
    canvas.hu.lerp_(tree.hu, canvas.cover(lung + 2))


def _grow(canvas: _Canvas, start: Point, heading: Point, length: float, radius: float, hu: float, draw: _Draw) -> None:
    """One vessel and the two into which it forks."""
    norm = math.hypot(*heading)
    end = tuple(s + length * h / norm for s, h in zip(start, heading, strict=True))
    _tube(canvas, [start, end], radius, hu, Label.LUNG)
    if radius < 1.3:
        return
    for _ in range(2):
        branch = draw.near(tuple(h / norm for h in heading), 0.75)
        _grow(canvas, end, branch, 0.85 * length, 0.7 * radius, hu, draw)


def _paint_mediastinum(canvas: _Canvas, patient: _Patient, draw: _Draw) -> None:
    """The heart, the great vessels and the airways."""
    blood = draw.uniform(36, 48) + patient.enhancement_hu
    _paint_heart(canvas, patient, blood, draw)
    _paint_great_vessels(canvas, patient, blood, draw)
    carina = (2.0, patient.spine.at(190)[1] + 36, 192.0)
    neck = patient.spine.at(330)
    airway = [(0.0, neck[1] + 36, 420.0), (0.0, neck[1] + 36, 330.0), carina]
    bronchi = [[carina, (24.0, carina[1] - 2, 172.0), (44.0, -12.0, 160.0)],
               [carina, (-32.0, carina[1] - 5, 168.0), (-50.0, -16.0, 160.0)]]  # fmt: skip
    radius = draw.uniform(7.5, 9.5)
    tubes = [(airway, radius), *((bronchus, 0.68 * radius) for bronchus in bronchi)]
    for points, tube_radius in tubes:
        _tube(canvas, points, tube_radius + 2, 40.0, Label.SOFT_TISSUE)
    for points, tube_radius in tubes:
        _tube(canvas, points, tube_radius, -985.0, Label.TRACHEA)


def _paint_heart(canvas: _Canvas, patient: _Patient, blood: float, draw: _Draw) -> None:
    """An ovoid that points to the left, forward and down, with its two blood pools; it rests on the diaphragm."""
    size = draw.uniform(0.9, 1.1)
    centre = draw.near((-20, 25, 121 - 0.6 * patient.inspiration_mm), 4)
    axis = (-0.8, 0.42, draw.uniform(-0.6, -0.3))
    part = canvas.near(centre, margin=80 * size)
    heart = _ovoid(part, centre, axis, 71 * size, 50 * size)
    part.paint(heart - 3, -85.0, Label.FAT)
    part.paint(heart, 45 + 0.4 * patient.enhancement_hu, Label.HEART)
    left = (centre[0] - 16 * size, centre[1] - 8 * size, centre[2] - 4)
    right = (centre[0] + 20 * size, centre[1] + 10 * size, centre[2] - 2)
    for pool, half_length, radius in ((left, 36 * size, 21 * size), (right, 34 * size, 24 * size)):
        part.paint(torch.maximum(_ovoid(part, pool, axis, half_length, radius), heart + 4), blood, Label.HEART)


def _paint_great_vessels(canvas: _Canvas, patient: _Patient, blood: float, draw: _Draw) -> None:
    """Aorta, venae cavae and pulmonary arteries."""
    descending = [patient.spine.at(z) for z in (190, 140, 90, 40, -10, -60, -110)]
    lateral, forward = (-24, -25, -24, -19, -12, -8, -5), (14, 12, 13, 20, 27, 29, 30)
    aorta = [(x + dx, y + dy, z) for (x, y, z), dx, dy in zip(descending, lateral, forward, strict=True)]
    arch = [(4.0, 24.0, 148.0), (16.0, 22.0, 180.0), (12.0, 12.0, 203.0), (-8.0, -10.0, 212.0)]
    _tube(canvas, arch + aorta, draw.uniform(11, 15), blood, Label.VESSEL)
    cava = [(x + 16, y + 26, z) for x, y, z in (patient.spine.at(z) for z in (80, 20, -50, -110))]
    _tube(canvas, [(22.0, 10.0, 110.0), *cava], 11.0, blood, Label.VESSEL)
    _tube(canvas, [(26.0, 12.0, 135.0), (28.0, 6.0, 235.0), (34.0, 0.0, 275.0)], 9.0, blood, Label.VESSEL)
    fork = aorta[-1]
    for points in _mirrored([(32, fork[1] - 18, -180), (58, 20, -255), (70, 52, -320), (72, 40, -470)]):
        _tube(canvas, [fork, *points], 6.5, blood, Label.VESSEL)
    trunk = (-20.0, 10.0, 176.0)
    left, right = [(-14.0, 38.0, 145.0), trunk, (-48.0, -8.0, 174.0)], [trunk, (18.0, -4.0, 170.0), (42.0, -8.0, 166.0)]
    for points in (left, right):
        _tube(canvas, points, draw.uniform(10, 13), blood, Label.VESSEL)
    for points in _mirrored([(10.0, 8.0, 208.0), (22.0, 2.0, 270.0), (26.0, 2.0, 420.0)]):
        _tube(canvas, points, 6.0, blood, Label.VESSEL)


# For ribs 1…12, where bone ends and where cartilage ends, in turns of half a circle from the spine to the sternum.
_BONE_END = (0.80, 0.82, 0.80, 0.78, 0.75, 0.73, 0.70, 0.66, 0.62, 0.56, 0.42, 0.30)
_CARTILAGE_END = (0.96, 0.96, 0.96, 0.96, 0.96, 0.94, 0.92, 0.86, 0.78, 0.70, 0.0, 0.0)
_RIB_DROP_MM, _RIB_DROP_PER_MM = 170.0, 0.43


def _paint_cage(canvas: _Canvas, patient: _Patient, fields: _Fields) -> None:
    """Ribs, costal cartilage, sternum, scapulae and clavicles."""
    angle = torch.atan2(
        canvas.x.abs() / _profile(_CAGE_WIDTH, canvas.z),
        -(canvas.y - _profile(_CAGE_Y, canvas.z)) / _profile(_CAGE_DEPTH, canvas.z),
    )
    _paint_scapulae(canvas, patient, fields, angle)
    _paint_ribs(canvas, patient, fields, angle)
    _paint_sternum(canvas, patient, fields)
    clavicle = [(14.0, 52.0, 248.0), (60.0, 55.0, 262.0), (105.0, 22.0, 276.0), (150.0, -2.0, 274.0)]
    for points in _mirrored(clavicle):
        _tube(canvas, points, 6.0, 430 * patient.bone, Label.CLAVICLE)


def _paint_ribs(canvas: _Canvas, patient: _Patient, fields: _Fields, angle: Tensor) -> None:
    """All ribs at once, in the unrolled cage: depth below its surface, angle about it, and height at the spine.

    A rib that leaves the spine at height p has at angle t the height z = p - (c0 - c1 p) g(t), since lower ribs fall
    more; this is solved for p, and the nearest thoracic level tells which rib it is.
    """
    levels = torch.tensor([v.centre[2] + 0.4 * v.half_height for v in patient.spine.vertebrae if v.thoracic])
    turn = angle / math.pi
    fall = torch.sin(0.62 * math.pi * turn)
    stretch = 1 + _RIB_DROP_PER_MM * fall
    at_spine = (canvas.z + _RIB_DROP_MM * fall) / stretch
    rising = levels.flip(0)
    index = len(levels) - 1 - torch.bucketize(at_spine, (rising[1:] + rising[:-1]) / 2)
    across = (at_spine - levels[index]) * stretch * 0.85
    tube = (torch.sqrt((fields.cage / 3.6 + 1) ** 2 + (across / 6.2) ** 2) - 1) * 4.2
    from_spine = 0.085 - turn
    cartilage = torch.maximum(tube + 0.5, (turn - torch.tensor(_CARTILAGE_END)[index]) * 300)
    canvas.paint(torch.maximum(cartilage, from_spine * 300), 110.0, Label.CARTILAGE)
    bone = torch.maximum(tube, torch.maximum(turn - torch.tensor(_BONE_END)[index], from_spine) * 300)
    _bone(canvas, bone, patient, Label.RIB)


def _paint_sternum(canvas: _Canvas, patient: _Patient, fields: _Fields) -> None:
    """A plate in the front of the cage, wider at the manubrium."""
    half_width = _profile(((90, 8), (120, 18), (195, 15), (225, 24), (250, 28)), canvas.z)
    height = torch.maximum(canvas.z - 252, 92 - canvas.z)
    plate = torch.maximum((fields.cage + 4).abs() - 5.5, torch.maximum(canvas.x.abs() - half_width, height))
    _bone(canvas, torch.maximum(plate, -canvas.y), patient, Label.STERNUM, 1.2)


def _paint_scapulae(canvas: _Canvas, patient: _Patient, fields: _Fields, angle: Tensor) -> None:
    """Thin triangular plates behind the ribs, each with its glenoid."""
    breadth = 0.36 * ((canvas.z - 140) / 115).clamp(0, 1)
    outline = torch.maximum(((angle - 0.9).abs() - breadth) * 100, torch.maximum(canvas.z - 262, 140 - canvas.z))
    _bone(canvas, torch.maximum((fields.cage - 13).abs() - 2.4, outline), patient, Label.SCAPULA)
    for points in _mirrored([(92.0, -68.0, 236.0), (148.0, -28.0, 262.0)]):
        _tube(canvas, points, 7.0, 380 * patient.bone, Label.SCAPULA)


# ---------------------------------------------------------------------------------------------------------------------
# Spine, pelvis, metal, texture
# ---------------------------------------------------------------------------------------------------------------------


def _paint_vertebra(canvas: _Canvas, patient: _Patient, vertebra: _Vertebra) -> None:
    """One vertebra with its disc, canal and, in the chest, the necks of its ribs."""
    v, canal_y = vertebra, vertebra.canal_y
    local = canvas.near(v.centre, margin=62.0).turned(v.centre, v.axes)
    # Both sides at once: x is the distance from the sagittal plane.
    half = local._replace(x=local.x.abs())
    waist = 1 - 0.08 * (1 - (half.z / v.half_height) ** 2).clamp(min=0)
    side = (torch.sqrt((half.x / v.half_width) ** 2 + (half.y / v.half_depth) ** 2) / waist - 1) * v.half_depth
    disc = torch.maximum(side + 0.5, (half.z - v.half_height - v.half_disc).abs() - v.half_disc - 0.5)
    half.paint(disc, 80.0, Label.CARTILAGE)
    body = torch.maximum(side, half.z.abs() - v.half_height)
    _bone(half, torch.minimum(body, _posterior_elements(half, v)), patient, Label.VERTEBRA)
    canal = torch.sqrt((half.x / 1.2) ** 2 + (half.y - canal_y) ** 2) - 7.5
    canal = torch.maximum(canal, half.z.abs() - v.half_height - 2 * v.half_disc)
    half.paint(canal, 30.0, Label.SOFT_TISSUE)
    if v.thoracic:
        neck = _capsule(half, (v.half_width + 1, -0.6 * v.half_depth, 0.6 * v.half_height), (40, canal_y - 6, 4), 4.5)
        _bone(half, neck, patient, Label.RIB)


def _posterior_elements(half: _Canvas, v: _Vertebra) -> Tensor:
    """Distance to pedicles, laminae, articular, transverse and spinous processes; `half` holds |x|."""
    x, y, z = v.pedicle
    pedicle = _capsule(half, (x, -0.5 * v.half_depth, z), (x + 1, v.canal_y - 2, z), v.pedicle_radius)
    ring = (torch.sqrt((half.x / 1.15) ** 2 + (half.y - v.canal_y) ** 2) - 10.5).abs() - 2.5
    lamina = torch.maximum(ring, half.z.abs() - 0.7 * v.half_height)
    facet = (x + 3, v.canal_y - 7)
    articular = _capsule(half, (*facet, -v.half_height), (*facet, 1.1 * v.half_height), 4.5)
    reach = (1.75 * v.half_width, v.canal_y - 7.0) if v.lumbar else (1.3 * v.half_width + 9, v.canal_y - 15.0)
    transverse = _capsule(half, (x, v.canal_y - 4, 0.3 * v.half_height), (*reach, 0.3 * v.half_height), 4.0)
    # Lumbar spinous processes are tall blades, thoracic ones slope down: the height is squeezed, then drawn round.
    squeeze, drop = (0.35, 5.0) if v.lumbar else (0.7, 20.0 if v.thoracic else 8.0)
    blade = half._replace(z=half.z * squeeze)
    spinous = _capsule(blade, (0, v.canal_y - 11, 0), (0, v.canal_y - 30, -drop * squeeze), 3.4)
    parts = torch.minimum(torch.minimum(pedicle, lamina), torch.minimum(articular, transverse))
    return torch.minimum(parts, spinous)


_BOWL_WIDTH = ((-310, 80), (-250, 96), (-200, 114), (-150, 128), (-90, 134))
_BOWL_DEPTH = ((-310, 55), (-250, 68), (-200, 76), (-150, 80), (-90, 82))
_BOWL_Y = ((-310, -8), (-90, -4))


def _paint_pelvis(canvas: _Canvas, patient: _Patient) -> None:
    """Iliac wings, sacrum, the ring of pubis and ischium, and the proximal femora."""
    canvas = canvas.near((-200, -130, -470), (200, 130, -85), margin=0)
    _paint_iliac_wings(canvas, patient)
    _paint_sacrum(canvas, patient)
    half = canvas._replace(x=canvas.x.abs())
    hip = (87.0, -2.0, -282.0)
    ring = [
        ((84, 6, -258), (86, -8, -290), 20),
        ((72, 18, -285), (14, 46, -312), 8),
        ((14, 46, -312), (12, 42, -335), 9),
        ((14, 40, -335), (50, -18, -362), 7),
        ((80, -18, -292), (56, -30, -358), 13),
    ]
    bone = _capsule(half, *ring[0])
    for segment in ring[1:]:
        bone = torch.minimum(bone, _capsule(half, *segment))
    socket = torch.sqrt((half.x - hip[0]) ** 2 + (half.y - hip[1]) ** 2 + (half.z - hip[2]) ** 2) - 26.5
    _bone(canvas, torch.maximum(bone, -socket), patient, Label.PELVIS, 2.0)
    neck, shaft = _capsule(half, hip, (124, -8, -316), 14), _capsule(half, (133, -10, -305), (124, 0, -480), 15)
    femur = torch.minimum(socket + 3, torch.minimum(neck, shaft))
    _bone(canvas, femur, patient, Label.FEMUR, 3.0)


def _paint_iliac_wings(canvas: _Canvas, patient: _Patient) -> None:
    """Plates in the surface of a bowl, from the sacrum to the anterior spine, under the arc of the crest."""
    bowl = _trunk(canvas, _BOWL_WIDTH, _BOWL_DEPTH, _BOWL_Y, 2.2)
    angle = torch.atan2(
        canvas.x.abs() / _profile(_BOWL_WIDTH, canvas.z),
        -(canvas.y - _profile(_BOWL_Y, canvas.z)) / _profile(_BOWL_DEPTH, canvas.z),
    )
    arc = (angle - 1.15) ** 2
    height = torch.maximum(canvas.z + 108 + 110 * arc, -272 + 85 * arc - canvas.z)
    outline = torch.maximum(height, ((angle - 1.2).abs() - 0.78) * 100)
    half_thickness = 4.0 + 5.0 * (1.0 - angle).clamp(0, 0.5) * 2
    _bone(canvas, torch.maximum(bowl.abs() - half_thickness, outline), patient, Label.PELVIS)


def _paint_sacrum(canvas: _Canvas, patient: _Patient) -> None:
    """A curved wedge that narrows towards the coccyx."""
    y = canvas.y - patient.spine.y(canvas.z) + 4
    half_width = _profile(((-310, 6), (-285, 14), (-250, 34), (-200, 52), (-170, 54)), canvas.z)
    half_depth = _profile(((-310, 5), (-285, 7), (-250, 13), (-200, 20), (-170, 20)), canvas.z)
    wedge = (torch.sqrt((canvas.x / half_width) ** 2 + (y / half_depth) ** 2 + 1e-9) - 1) * half_depth
    ends = torch.maximum(canvas.z + 176 - 0.25 * canvas.y.abs(), -308 - canvas.z)
    _bone(canvas, torch.maximum(wedge, ends), patient, Label.PELVIS)


def _paint_metal(canvas: _Canvas, patient: _Patient, draw: _Draw) -> None:
    """Pedicle screws on both sides of two to five neighbouring vertebrae near the isocentre, and the two rods."""
    levels = [v for v in patient.spine.vertebrae if v.thoracic > 2 or v.lumbar]
    count = 2 + int(draw.uniform(0, 4))
    target = patient.isocentre[2] + draw.uniform(-50, 50)
    nearest = min(range(len(levels)), key=lambda i: abs(levels[i].centre[2] - target))
    first = min(max(nearest - count // 2, 0), len(levels) - count)
    hu, rods = draw.uniform(*METAL_HU), []
    for v in levels[first : first + count]:
        x, y, z = v.pedicle
        head, tip = (x + 4, v.canal_y - 16, z), (x - 3, 0.45 * v.half_depth, z - 1)
        local = canvas.near(v.centre, margin=62.0).turned(v.centre, v.axes)
        half = local._replace(x=local.x.abs())
        screw = _capsule(half, head, tip, 2.8)
        tulip = _capsule(half, head, (head[0], head[1] - 8, head[2]), 6.0)
        half.paint(torch.minimum(screw, tulip), hu, Label.METAL)
        rods.append([v.to_anatomy((side * head[0], head[1] - 6, head[2])) for side in (1, -1)])
    for rod in zip(*rods, strict=True):
        _tube(canvas, rod, 2.8, hu, Label.METAL)


def _add_texture(canvas: _Canvas, fields: _Fields, draw: _Draw) -> None:
    """Correlated low-contrast noise inside the body."""
    texture = 7 * _noise(draw.normal(32, 32, 32), 7.0, canvas) + 4 * fields.wobble
    canvas.hu.add_(texture.mul_(canvas.cover(fields.body + canvas.edge_mm / 2)))
