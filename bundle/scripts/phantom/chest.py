"""Lungs, heart, great vessels and airways."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from scripts.phantom.canvas import Canvas, Label
from scripts.phantom.draw import Draw, Point
from scripts.phantom.patient import Patient
from scripts.phantom.shapes import mirrored, noise, ovoid, profile, smooth_max
from scripts.phantom.trunk import Fields
from scripts.phantom.vessels import paint_lung_vessels

_MEDIASTINUM = ((60, 30), (130, 26), (190, 27), (250, 32), (310, 26))
_EMPHYSEMA_HU = -965.0
_RECESS_MM = -120.0  # below the deepest recess of the lungs


def paint_lungs(canvas: Canvas, patient: Patient, fields: Fields, draw: Draw) -> None:
    """Paint two lungs between ribs, diaphragm and mediastinum, denser at the back, with vessels and pathologies."""
    lungs = patient.lungs
    above = canvas.heights(_RECESS_MM, math.inf)
    canvas, fields = canvas.slab(above), fields.slab(above)
    half_width = profile(_MEDIASTINUM, canvas.z)
    # In front of the great vessels the lungs nearly meet.
    half_width = half_width * (1 - 0.6 * ((canvas.y - 15) / 45).clamp(0, 1))
    lung = smooth_max(fields.cavity, fields.diaphragm - canvas.z, 4)
    lung = smooth_max(lung, half_width - canvas.x.abs() + 3 * fields.wobble, 10)
    canvas.paint(lung - 3, patient.tissue.muscle_hu, Label.SOFT_TISSUE)
    canvas.paint(lung, lungs.hu - lungs.gradient_hu_per_mm * canvas.y, Label.LUNG)
    _paint_emphysema(canvas, patient, lung, draw.normal(24, 24, 24))
    paint_lung_vessels(canvas, patient, lung, draw)
    _paint_opacities(canvas, patient, lung, draw)
    _paint_effusions(canvas, patient, lung, draw)


def _paint_emphysema(canvas: Canvas, patient: Patient, lung: Tensor, lattice: Tensor) -> None:
    """Paint holes of almost pure air, more of them towards the apices."""
    if not patient.lungs.emphysema:
        return
    holes = (1.6 - 3 * patient.lungs.emphysema - 0.004 * (canvas.z - 150) - noise(lattice, 14.0, canvas)) * 8
    canvas.paint(torch.maximum(holes, lung + 3), _EMPHYSEMA_HU, Label.LUNG, 0.8)


def _paint_opacities(canvas: Canvas, patient: Patient, lung: Tensor, draw: Draw) -> None:
    """Paint nodules and occasional consolidations where they fall inside the lungs."""
    for _ in range(patient.lungs.opacities):
        centre = draw.near((draw.side() * 75, -5, 140), 45)
        large = draw.chance(0.3)
        radius, hu = draw.uniform(20, 42) if large else draw.uniform(3, 13), draw.uniform(-550, 40)
        axis, half_length = draw.near((0, 0, 1), 1), radius * draw.uniform(1, 1.5)
        window = canvas.window(centre, margin=half_length)
        part = canvas.near(centre, margin=half_length)
        if not part.is_empty:
            opacity = ovoid(part, centre, axis, half_length, radius)
            part.paint(torch.maximum(opacity, lung[window] + 1), hu, Label.LUNG)


def _paint_effusions(canvas: Canvas, patient: Patient, lung: Tensor, draw: Draw) -> None:
    """Paint fluid behind a lung in a supine patient: a crescent that thins upwards."""
    for side, depth_mm in zip((1, -1), patient.lungs.effusion_mm, strict=True):
        hu = draw.uniform(0, 25)
        if depth_mm:
            level = canvas.y + 86 - depth_mm + 0.18 * (canvas.z - 60).clamp(min=0) - 0.1 * canvas.x.abs()
            canvas.paint(torch.maximum(torch.maximum(level, lung), -side * canvas.x), hu, Label.EFFUSION)


def paint_mediastinum(canvas: Canvas, patient: Patient, draw: Draw) -> None:
    """Paint the heart, the great vessels and the airways."""
    _paint_heart(canvas, patient, draw)
    _paint_great_vessels(canvas, patient, draw)
    carina = (2.0, patient.spine.at(190)[1] + 36, 192.0)
    neck = patient.spine.at(330)
    airway = [(0.0, neck[1] + 36, 420.0), (0.0, neck[1] + 36, 330.0), carina]
    bronchi = [[carina, (24.0, carina[1] - 2, 172.0), (44.0, -12.0, 160.0)],
               [carina, (-32.0, carina[1] - 5, 168.0), (-50.0, -16.0, 160.0)]]  # fmt: skip
    radius = draw.uniform(7.0, 10.0)
    tubes = [(airway, radius), *((bronchus, 0.68 * radius) for bronchus in bronchi)]
    for points, tube_radius in tubes:
        canvas.tube(points, tube_radius + 2, 40.0, Label.SOFT_TISSUE)
    for points, tube_radius in tubes:
        canvas.tube(points, tube_radius, -985.0, Label.TRACHEA)


def _paint_heart(canvas: Canvas, patient: Patient, draw: Draw) -> None:
    """Paint an ovoid on the diaphragm that points left, forward and down, with its two blood pools."""
    tissue = patient.tissue
    size = draw.uniform(0.85, 1.2)
    centre = draw.near((-20, 25, 121 - 0.6 * patient.inspiration_mm), 4)
    axis = (-0.8, 0.42, draw.uniform(-0.7, -0.25))
    part = canvas.near(centre, margin=80 * size)
    heart = ovoid(part, centre, axis, 71 * size, 50 * size)
    part.paint(heart - 3, tissue.fat_hu + 12, Label.FAT)
    part.paint(heart, 0.6 * tissue.muscle_hu + 0.4 * tissue.artery_hu, Label.HEART)
    left = (centre[0] - 16 * size, centre[1] - 8 * size, centre[2] - 4)
    right = (centre[0] + 20 * size, centre[1] + 10 * size, centre[2] - 2)
    pools = ((left, 36 * size, 21 * size, tissue.artery_hu), (right, 34 * size, 24 * size, tissue.pulmonary_hu))
    for pool, half_length, radius, blood in pools:
        part.paint(torch.maximum(ovoid(part, pool, axis, half_length, radius), heart + 4), blood, Label.HEART)


def _paint_great_vessels(canvas: Canvas, patient: Patient, draw: Draw) -> None:
    """Paint the aorta with its plaques, the venae cavae and the pulmonary arteries."""
    artery, vein = patient.tissue.artery_hu, patient.tissue.vein_hu
    descending = [patient.spine.at(z) for z in (190, 140, 90, 40, -10, -60, -110)]
    lateral, forward = (-24, -25, -24, -19, -12, -8, -5), (14, 12, 13, 20, 27, 29, 30)
    aorta = [(x + dx, y + dy, z) for (x, y, z), dx, dy in zip(descending, lateral, forward, strict=True)]
    arch = [(4.0, 24.0, 148.0), (16.0, 22.0, 180.0), (12.0, 12.0, 203.0), (-8.0, -10.0, 212.0)]
    radius = draw.uniform(9, 14) + 0.04 * patient.age_years
    canvas.tube(arch + aorta, radius, artery, Label.VESSEL)
    _paint_plaques(canvas, patient, aorta, radius, draw)
    cava = [(x + 16, y + 26, z) for x, y, z in (patient.spine.at(z) for z in (80, 20, -50, -110))]
    canvas.tube([(22.0, 10.0, 110.0), *cava], 11.0, vein, Label.VESSEL)
    canvas.tube([(26.0, 12.0, 135.0), (28.0, 6.0, 235.0), (34.0, 0.0, 275.0)], 9.0, vein, Label.VESSEL)
    fork = aorta[-1]
    for points in mirrored([(32, fork[1] - 18, -180), (58, 20, -255), (70, 52, -320), (72, 40, -470)]):
        canvas.tube([fork, *points], 6.5, artery, Label.VESSEL)
    trunk = (-20.0, 10.0, 176.0)
    left, right = [(-14.0, 38.0, 145.0), trunk, (-48.0, -8.0, 174.0)], [trunk, (18.0, -4.0, 170.0), (42.0, -8.0, 166.0)]
    for points in (left, right):
        canvas.tube(points, draw.uniform(10, 13), patient.tissue.pulmonary_hu, Label.VESSEL)
    for points in mirrored([(10.0, 8.0, 208.0), (22.0, 2.0, 270.0), (26.0, 2.0, 420.0)]):
        canvas.tube(points, 6.0, artery, Label.VESSEL)


def _paint_plaques(canvas: Canvas, patient: Patient, aorta: list[Point], radius: float, draw: Draw) -> None:
    """Paint upright calcifications in the wall of the aorta."""
    for _ in range(patient.plaques):
        below = draw.whole(1, len(aorta) - 1)
        share, turn = draw.uniform(0, 1), draw.uniform(0, 2 * math.pi)
        x, y, z = (a + share * (b - a) for a, b in zip(aorta[below - 1], aorta[below], strict=True))
        plaque = (x + radius * math.cos(turn), y + radius * math.sin(turn))
        length = draw.uniform(2, 12)
        canvas.tube([(*plaque, z), (*plaque, z + length)], draw.uniform(1, 2.5), draw.uniform(400, 900), Label.VESSEL)
