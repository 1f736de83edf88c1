"""The trunk: skin, fat, muscles, the cavities, and distances shared by its organs."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from scripts.phantom.arms import arms_distance
from scripts.phantom.canvas import Canvas, Label
from scripts.phantom.draw import Draw, Point
from scripts.phantom.patient import Patient
from scripts.phantom.shapes import noise, ovoid, profile, smooth_max, trunk
from scripts.phantom.spine import Spine

# Knots (z, mm) of an average adult.
_WALL_WIDTH = ((-420, 168), (-320, 172), (-250, 165), (-170, 152), (-90, 141), (0, 142), (100, 152), (190, 158),
               (250, 168), (285, 160), (315, 105), (340, 62), (420, 54))  # fmt: skip
_WALL_DEPTH = ((-420, 92), (-320, 100), (-230, 102), (-100, 96), (0, 98), (120, 103), (200, 98), (250, 88), (300, 72),
               (340, 58), (420, 55))  # fmt: skip
_WALL_Y = ((-420, -6), (-250, -8), (-100, 2), (0, 0), (150, -2), (240, -10), (300, -14), (420, -6))
_WALL_POWER = 2.5

# The outer face of the ribs above, the abdominal and pelvic cavity below.
CAGE_WIDTH = ((-350, 35), (-300, 66), (-230, 96), (-150, 116), (-90, 116), (-20, 126), (40, 132), (90, 133),
              (150, 128), (200, 118), (240, 101), (270, 80), (295, 54), (312, 30))  # fmt: skip
CAGE_DEPTH = ((-350, 25), (-300, 52), (-230, 72), (-130, 80), (0, 87), (90, 91), (150, 88), (200, 80), (240, 67),
              (270, 54), (295, 40), (312, 25))  # fmt: skip
CAGE_Y = ((-350, 0), (-200, 4), (-100, 8), (0, 4), (150, 1), (220, -3), (270, -10), (312, -18))
_RIB_MM = 7.0
_PELVIC_FLOOR_Z = -335.0
SKIN_MM = 2.5


class Fields(NamedTuple):
    """Fields shared by several organs, on the whole grid: distances, noise, and diaphragm height [U, V, 1].

    `bent` is the canvas in coordinates in which the trunk is straight, whatever the shape of spine and belly.
    """

    body: Tensor
    wall: Tensor
    cage: Tensor
    cavity: Tensor
    diaphragm: Tensor
    wobble: Tensor
    bent: Canvas

    @classmethod
    def of(cls, canvas: Canvas, patient: Patient, draw: Draw) -> Fields:
        """Compute the fields of one patient."""
        wobble = noise(draw.normal(20, 20, 20), 40.0, canvas)
        diaphragm = _diaphragm(canvas, patient, draw)
        bent = _bent(canvas, patient)
        back = _back(canvas, patient.spine)
        # The wall bulges where the spine leaves it, so that a curved back is visible and every process stays covered.
        wall = -smooth_max(-trunk(bent, _WALL_WIDTH, _WALL_DEPTH, _WALL_Y, _WALL_POWER) - wobble, -back, 25)
        # Below the pelvis a wedge of air separates the thighs.
        legs = (-0.12 * (canvas.z + 385)).clamp(max=25) - canvas.x.abs()
        body = torch.maximum(_skin_line(canvas, patient, wall), legs)
        wall = torch.maximum(wall, legs + 8)
        if patient.arms_down:
            arms = arms_distance(canvas)
            fat_mm = 3 + 0.3 * patient.fat_mm
            body, wall = torch.minimum(body, arms - fat_mm), torch.minimum(wall, arms)
        cage = trunk(bent, CAGE_WIDTH, CAGE_DEPTH, CAGE_Y, 2.3)
        # Below the ribs the wall is thinner in front than at the sides.
        abdomen = profile(((-220, 0), (-140, 1), (-20, 1), (60, 0)), canvas.z)
        wall_mm = abdomen * (patient.muscle_mm - 5 * (bent.y / 60).clamp(0, 1))
        lining = cage + _RIB_MM + 2 + wall_mm
        cavity = smooth_max(torch.maximum(lining, _PELVIC_FLOOR_Z - canvas.z), -back, 14)
        return cls(body, wall, cage, cavity, diaphragm, wobble, bent)

    def slab(self, w: slice) -> Fields:
        """Return the fields in a range of heights."""
        body, wall, cage, cavity, wobble = (
            f[..., w] for f in (self.body, self.wall, self.cage, self.cavity, self.wobble)
        )
        return Fields(body, wall, cage, cavity, self.diaphragm, wobble, self.bent.slab(w))


def front(patient: Patient, x: float, z: float, depth_mm: float) -> Point:
    """Return the point on the front of the chest that lies `depth_mm` in front of the muscles."""
    height = torch.tensor([float(z)])
    width, depth, y = (profile(knots, height).item() for knots in (_WALL_WIDTH, _WALL_DEPTH, _WALL_Y))
    straight_y = y + depth * max(1 - abs(x / width) ** _WALL_POWER, 0) ** (1 / _WALL_POWER)
    return x, straight_y + (_sway(patient, height) - _skew(patient, height) * x).item() + depth_mm, z


def skin_mm(patient: Patient, z: float) -> float:
    """Return the distance from muscles to skin at a height, without the breasts."""
    return _cover_mm(patient, torch.tensor([float(z)])).item()


def _sway(patient: Patient, z: Tensor) -> Tensor:
    """Return how far the trunk follows the spine forwards."""
    return patient.spine.sway(z) * profile(((-120, 0), (60, 0.7), (250, 0.7), (330, 1)), z)


def _skew(patient: Patient, z: Tensor) -> Tensor:
    """Return how far the right side of the chest lies behind the left, per mm of x, due to scoliosis."""
    return torch.tan(patient.spine.twist(z)) * profile(((-60, 0), (80, 0.7)), z)


def _cover_mm(patient: Patient, z: Tensor) -> Tensor:
    """Return the thickness of fat and skin, which is larger over the abdomen and the hips."""
    share = profile(((-400, 0.9), (-220, 1.3), (-80, 1.2), (60, 0.8), (200, 0.55), (300, 0.4)), z)
    return patient.fat_mm * share + 4.0


def _bent(canvas: Canvas, patient: Patient) -> Canvas:
    """Straighten the canvas: scoliosis shifts and skews the cage, kyphosis pulls it back, and the belly bulges."""
    spine, z = patient.spine, canvas.z
    belly = patient.belly_mm * profile(((-230, 0), (-100, 0.5), (0, 0.4), (90, 0.05), (130, 0)), z)
    skew = _skew(patient, z) * canvas.x
    y = canvas.y - _sway(patient, z) - belly * (canvas.y / 60).clamp(0, 1) + skew
    return canvas._replace(x=canvas.x - 0.5 * spine.x(z), y=y)


def _skin_line(canvas: Canvas, patient: Patient, wall: Tensor) -> Tensor:
    """Return the distance to the skin: fat over the muscles, and the breasts."""
    body = wall - _cover_mm(patient, canvas.z)
    if not patient.breast_mm:
        return body
    breast = ovoid(canvas.folded(), (72, 82, 140), (0.2, 1, -0.2), patient.breast_mm + 14, 52)
    return -smooth_max(-body, -breast, 20)


def _back(canvas: Canvas, spine: Spine) -> Tensor:
    """Return the distance to the column of muscle around the vertebral processes, which the sacrum lacks."""
    behind = profile(((-260, 2), (-180, 30)), canvas.z)
    x, y = canvas.x - spine.x(canvas.z), canvas.y - spine.y(canvas.z) + behind
    return (torch.sqrt((x / 32) ** 2 + (y / 31) ** 2 + 1e-9) - 1) * 31


def _diaphragm(canvas: Canvas, patient: Patient, draw: Draw) -> Tensor:
    """Return diaphragm heights [U, V, 1]: two domes, the right one higher, that descend to the recesses at the wall."""
    right = 88 - patient.inspiration_mm + draw.uniform(-4, 4)
    left = right - draw.uniform(6, 20)
    return smooth_max(_dome(canvas, 58, right), _dome(canvas, -62, left), 15)


def _dome(canvas: Canvas, x: float, top: float) -> Tensor:
    """Return heights [U, V, 1] of one dome of the diaphragm with its top at `x`."""
    square = ((canvas.x - x) / 82) ** 2 + ((canvas.y - 14) / 100) ** 2
    return top - 72 * square**1.5


def paint_wall(canvas: Canvas, patient: Patient, fields: Fields, draw: Draw) -> None:
    """Paint skin, subcutaneous fat, muscles with the fat between and within them, and the fat that fills the cavity."""
    tissue = patient.tissue
    canvas.paint(fields.body, tissue.skin_hu, Label.SKIN)
    canvas.paint(fields.body + SKIN_MM, tissue.fat_hu, Label.FAT)
    canvas.paint(fields.wall, tissue.muscle_hu, Label.SOFT_TISSUE)
    _paint_muscle_fat(canvas, patient, fields, draw.normal(24, 24, 24), draw.uniform(1.0, 4.0))
    canvas.paint(fields.cavity, tissue.fat_hu + 6, Label.FAT)


def _paint_muscle_fat(canvas: Canvas, patient: Patient, fields: Fields, lattice: Tensor, plane_mm: float) -> None:
    """Paint the fat plane between the muscles of the cage and those over it, and streaks along the body."""
    streaks = noise(lattice, 12.0, canvas._replace(z=0.4 * canvas.z))
    plane = (fields.cage - 11 - 2 * fields.wobble).abs() - plane_mm
    # A standard normal exceeds 1.3 with probability 1/10, 2 with probability 1/50.
    fat = torch.minimum(plane, (2.2 - 5 * patient.tissue.marbling - streaks) * 5)
    canvas.paint(torch.maximum(fat, fields.wall + 3), patient.tissue.fat_hu, Label.FAT, 0.8)
