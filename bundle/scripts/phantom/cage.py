"""Ribs, costal cartilage, sternum, scapulae and clavicles."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from scripts.phantom.canvas import Canvas, Label
from scripts.phantom.draw import Draw
from scripts.phantom.patient import Patient
from scripts.phantom.shapes import angle_about, mirrored, noise, profile
from scripts.phantom.trunk import CAGE_DEPTH, CAGE_WIDTH, CAGE_Y, Fields

# Ends of bone and cartilage of ribs 1…13, as fractions of the half circle from the spine to the sternum.
_BONE_END = (0.80, 0.82, 0.80, 0.78, 0.75, 0.73, 0.70, 0.66, 0.62, 0.56, 0.42, 0.30, 0.18)
_CARTILAGE_END = (0.96, 0.96, 0.96, 0.96, 0.96, 0.94, 0.92, 0.86, 0.78, 0.70, 0.0, 0.0, 0.0)
_RIB_START = 0.075
_RIB_DROP_MM, _RIB_DROP_PER_MM = 165.0, 0.33
_CAGE_LOW_MM = -150.0
_LAYER_MM = (-16.0, 22.0)
_STERNUM_WIDTH = ((90, 8), (120, 18), (195, 15), (225, 24), (250, 28))


def paint_cage(canvas: Canvas, patient: Patient, fields: Fields, draw: Draw) -> None:
    """Paint everything attached to the thoracic spine, in the coordinates in which the trunk is straight."""
    chalk = draw.normal(24, 24, 24)
    turn, breadth = draw.uniform(0.8, 1.05), draw.uniform(0.32, 0.4)
    above = canvas.heights(_CAGE_LOW_MM, math.inf)
    straight, cage = fields.bent.slab(above), fields.cage[..., above]
    # All of it lies in a thin layer around the surface of the cage, so only that layer is computed.
    layer = (cage > _LAYER_MM[0]) & (cage < _LAYER_MM[1])

    def pick(values: Tensor) -> Tensor:
        return values.expand(layer.shape)[layer]

    thin = straight._replace(
        hu=pick(straight.hu), labels=pick(straight.labels), x=pick(straight.x), y=pick(straight.y), z=pick(straight.z)
    )
    cage = cage[layer]
    angle = pick(angle_about(straight, CAGE_WIDTH, CAGE_DEPTH, CAGE_Y))
    _paint_scapulae(thin, patient, cage, angle, turn, breadth)
    _paint_ribs(thin, patient, cage, angle, pick(noise(chalk, 9.0, canvas.slab(above))))
    _paint_sternum(thin, patient, cage, pick(profile(_STERNUM_WIDTH, straight.z)))
    straight.hu[layer], straight.labels[layer] = thin.hu, thin.labels
    _paint_girdle(canvas, patient)


def _fall(turn: Tensor) -> Tensor:
    """Return how far a rib has descended at `turn`, as a fraction of its descent from back to front.

    A rib lies nearly in a plane that leans forward; towards the sternum the cartilage rises again.
    """
    return (1 - torch.cos(math.pi * turn)) / 2 - 3.2 * (turn - 0.7).clamp(min=0) ** 2


def _paint_ribs(canvas: Canvas, patient: Patient, cage: Tensor, angle: Tensor, chalk: Tensor) -> None:
    """Paint all ribs at once, in the unrolled cage: depth below its surface, angle about it, and height at the spine.

    At turn t, a rib that leaves the spine at height p has the height z = p - (c0 - c1 p) fall(t), since lower ribs
    descend more; this is solved for p, and the nearest level identifies the rib.
    """
    shape = patient.cage
    bearing = [v for v in patient.spine.vertebrae if v.thoracic or v.lumbar][: shape.pairs]
    levels = torch.tensor([v.centre[2] + 0.4 * v.half_height for v in bearing])
    turn = angle / math.pi
    fall = shape.slope * _fall(turn)
    stretch = 1 + _RIB_DROP_PER_MM * fall
    at_spine = (canvas.z + _RIB_DROP_MM * fall) / stretch
    rising = levels.flip(0)
    index = len(levels) - 1 - torch.bucketize(at_spine, (rising[1:] + rising[:-1]) / 2, out_int32=True)
    sided = levels + shape.shift_mm[:, : shape.pairs]
    own_level = sided.flatten()[index + shape.pairs * (canvas.x > 0)]
    across = (at_spine - own_level) * stretch * 0.85
    thickness = shape.thickness
    tube = (torch.sqrt((cage / (3.6 * thickness) + 1) ** 2 + (across / (5.3 * thickness)) ** 2) - 1) * 4.2
    from_spine = _RIB_START - turn
    cartilage = torch.maximum(tube + 0.5, (turn - torch.tensor(_CARTILAGE_END)[index]) * 300)
    hu = 100 + shape.calcified_hu * chalk.clamp(min=0)
    canvas.paint(torch.maximum(cartilage, from_spine * 300), hu, Label.CARTILAGE)
    bone = torch.maximum(tube, torch.maximum(turn - torch.tensor(_BONE_END)[index], from_spine) * 300)
    patient.bone.paint(canvas, bone, Label.RIB, 1.2)


def _paint_sternum(canvas: Canvas, patient: Patient, cage: Tensor, half_width: Tensor) -> None:
    """Paint a plate in the front of the cage, wider at the manubrium."""
    height = torch.maximum(canvas.z - 252, 92 - canvas.z)
    plate = torch.maximum((cage + 4).abs() - 5.5, torch.maximum(canvas.x.abs() - half_width, height))
    patient.bone.paint(canvas, torch.maximum(plate, -canvas.y), Label.STERNUM, 1.0)


def _paint_scapulae(canvas: Canvas, patient: Patient, cage: Tensor, angle: Tensor, turn: float, breadth: float) -> None:
    """Paint thin triangular plates behind the ribs, with thicker rims and the spine of the scapula."""
    half = breadth * ((canvas.z - 140) / 115).clamp(0, 1)
    outline = torch.maximum(((angle - turn).abs() - half) * 100, torch.maximum(canvas.z - 262, 140 - canvas.z))
    rim_mm = 2.2 * (1 + outline / 12).clamp(0, 1)
    patient.bone.paint(canvas, torch.maximum((cage - 13).abs() - 1.8 - rim_mm, outline), Label.SCAPULA)


def _paint_girdle(canvas: Canvas, patient: Patient) -> None:
    """Paint the spines of the scapulae with their glenoids, and the clavicles."""
    spine = [(82.0, -78.0, 226.0), (125.0, -58.0, 244.0), (150.0, -24.0, 266.0)]
    for points in mirrored(spine):
        canvas.tube(points, 6.0, 0.45 * patient.bone.cortical_hu, Label.SCAPULA)
    for points in mirrored([(140.0, -34.0, 236.0), (142.0, -24.0, 254.0)]):
        canvas.tube(points, 10.0, 0.3 * patient.bone.cortical_hu, Label.SCAPULA)
    for points in mirrored([(14.0, 52.0, 248.0), (60.0, 55.0, 262.0), (105.0, 22.0, 276.0), (150.0, -2.0, 274.0)]):
        canvas.tube(points, 6.0, 0.6 * patient.bone.cortical_hu, Label.CLAVICLE)
        canvas.tube(points, 3.0, patient.bone.spongy_hu, Label.CLAVICLE)
