"""Soft tissue below the diaphragm."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from scripts.phantom.canvas import Canvas, Label
from scripts.phantom.draw import Draw
from scripts.phantom.patient import Patient
from scripts.phantom.shapes import mirrored, noise, ovoid, smooth_max
from scripts.phantom.trunk import Fields

_BOWEL_AIR_HU = -930.0
_ABDOMEN_TOP_MM = 130.0  # above the highest diaphragm


def paint_abdomen(canvas: Canvas, patient: Patient, fields: Fields, draw: Draw) -> None:
    """Paint bowel, psoas, stomach, kidneys, spleen, liver with its gallbladder, and urinary bladder."""
    below = canvas.heights(-math.inf, _ABDOMEN_TOP_MM)
    canvas, fields = canvas.slab(below), fields.slab(below)
    inside = smooth_max(fields.cavity + 2, canvas.z - fields.diaphragm + 4, 8)
    _paint_small_bowel(canvas, patient, inside, draw)
    _paint_colon(canvas, patient, draw)
    _paint_psoas(canvas, patient)
    _paint_stomach(canvas, patient, inside, draw)
    for side in (1, -1):
        _paint_kidney(canvas, patient, inside, side, draw)
    spleen = ovoid(canvas, draw.near((-92, -40, 28), 6), (0.2, 0.7, -1), draw.uniform(42, 70), draw.uniform(27, 38))
    canvas.paint(torch.maximum(spleen, inside), patient.tissue.spleen_hu, Label.SPLEEN)
    _paint_liver(canvas, patient, fields, inside, draw)
    _paint_bladder(canvas, patient, draw)


def _paint_small_bowel(canvas: Canvas, patient: Patient, inside: Tensor, draw: Draw) -> None:
    """Paint loops cut from noise, some with gas or oral contrast medium."""
    loops, content = (noise(draw.normal(24, 24, 24), 22.0, canvas) for _ in range(2))
    front = torch.maximum(inside + 6, -canvas.y - 15)
    filled, gassy = draw.uniform(-0.1, 0.35), draw.uniform(1.2, 2.2)
    loop = torch.maximum((filled - loops) * 9, front)
    canvas.paint(loop, 38.0, Label.BOWEL)
    if patient.tissue.oral_hu is not None:
        canvas.paint(torch.maximum(loop + 3, (content + 0.4) * 9), patient.tissue.oral_hu, Label.BOWEL)
    # The patient lies supine: gas gathers in front.
    canvas.paint(torch.maximum(loop + 2, (gassy - content - 0.006 * canvas.y) * 9), _BOWEL_AIR_HU, Label.BOWEL)


def _paint_colon(canvas: Canvas, patient: Patient, draw: Draw) -> None:
    """Paint the colon around the small bowel; every segment holds fluid, gas, faeces or contrast medium."""
    course = [(78, -8, -150), (86, 2, -60), (78, 30, -25), (0, 62, -55), (-72, 35, -5), (-92, -8, -40),
              (-90, -12, -140), (-62, 5, -190), (-10, -15, -225), (0, -38, -270)]  # fmt: skip
    points = [draw.near(point, 12) for point in course]
    crumbs = draw.normal(32, 32, 32)
    oral_hu = patient.tissue.oral_hu
    for start, end in zip(points, points[1:], strict=False):
        radius = draw.uniform(14, 25)
        content = draw.one(("fluid", "gas", "faeces", "contrast"), (0.3, 0.25, 0.35, 0.1 if oral_hu is None else 0.6))
        canvas.tube([start, end], radius, 40.0, Label.BOWEL)
        inner = canvas.near(start, end, margin=radius)
        if content == "gas":
            canvas.tube([start, end], radius - 3, _BOWEL_AIR_HU, Label.BOWEL)
        elif content == "contrast":
            canvas.tube([start, end], radius - 3, oral_hu or 180.0, Label.BOWEL)
        elif content == "faeces" and not inner.is_empty:
            canvas.tube([start, end], radius - 3, -30.0, Label.BOWEL)
            bubbles = (0.9 - noise(crumbs, 5.0, inner)) * 3
            inner.paint(torch.where(inner.labels == Label.BOWEL, bubbles, inner.edge_mm), -600.0, Label.BOWEL, 0.7)


def _paint_stomach(canvas: Canvas, patient: Patient, inside: Tensor, draw: Draw) -> None:
    """Paint the stomach under the left dome, with its gas bubble in front."""
    centre = draw.near((-55, 28, 30), 8)
    stomach = torch.maximum(ovoid(canvas, centre, (-0.5, -0.4, 1), draw.uniform(48, 72), draw.uniform(22, 40)), inside)
    content, gas_y = draw.uniform(5, 50), centre[1] + draw.uniform(-8, 30)
    canvas.paint(stomach, 42.0, Label.STOMACH)
    canvas.paint(stomach + 4, content if patient.tissue.oral_hu is None else patient.tissue.oral_hu, Label.STOMACH)
    canvas.paint(torch.maximum(stomach + 3, gas_y - canvas.y), -950.0, Label.STOMACH)


def _paint_kidney(canvas: Canvas, patient: Patient, inside: Tensor, side: int, draw: Draw) -> None:
    """Paint a bean; its hilum, towards the spine, holds fat and the renal pelvis."""
    x, _, z = draw.near((side * 56, 0, -38 - 8 * side), 8)
    y = patient.spine.at(z)[1] - 8
    axis, half_length, radius = (-0.25 * side, 0.2, 1), draw.uniform(46, 60), draw.uniform(24, 29)
    kidney = torch.maximum(ovoid(canvas, (x, y, z), axis, half_length, radius), inside)
    canvas.paint(kidney, patient.tissue.kidney_hu, Label.KIDNEY)
    sinus = (x - 0.45 * side * radius, y + 4, z)
    part = canvas.near((x, y, z), margin=half_length)
    part.paint(ovoid(part, sinus, axis, 0.45 * half_length, 11.0), patient.tissue.fat_hu + 20, Label.FAT)
    part.paint(ovoid(part, sinus, axis, 0.35 * half_length, 6.5), patient.tissue.urine_hu, Label.KIDNEY)


def _paint_liver(canvas: Canvas, patient: Patient, fields: Fields, inside: Tensor, draw: Draw) -> None:
    """Paint the liver, which fills the right dome; its lower edge rises to the left and carries the gallbladder."""
    rise, low = draw.uniform(0.45, 0.8), draw.uniform(-85, -40)
    edge = (low - canvas.z + rise * (115 - canvas.x)) * 0.85 + 4 * fields.wobble
    liver = smooth_max(smooth_max(inside, edge, 25), -canvas.x - draw.uniform(15, 60), 20)
    canvas.paint(liver, patient.tissue.liver_hu, Label.LIVER)
    gallbladder, removed = draw.near((48, 38, -5), 10), draw.chance(0.2)
    half_length, radius = draw.uniform(25, 40), draw.uniform(10, 18)
    if not removed:
        part = canvas.near(gallbladder, margin=half_length)
        part.paint(ovoid(part, gallbladder, (0.3, 0.5, -1), half_length, radius), 10.0, Label.SOFT_TISSUE)


def _paint_bladder(canvas: Canvas, patient: Patient, draw: Draw) -> None:
    """Paint the urinary bladder; excreted contrast medium sinks to its back."""
    centre = draw.near((0, 22, -280), 5)
    bladder = ovoid(canvas, centre, (1, 0, 0), draw.uniform(28, 48), draw.uniform(20, 36))
    canvas.paint(bladder, 8.0, Label.BLADDER)
    layer = torch.maximum(bladder + 2, canvas.y - centre[1] + draw.uniform(0, 10))
    canvas.paint(layer, patient.tissue.urine_hu, Label.BLADDER)


def _paint_psoas(canvas: Canvas, patient: Patient) -> None:
    """Paint the muscles on both sides of the lumbar spine, down to the hips."""
    top, low = patient.spine.at(-20), patient.spine.at(-160)
    psoas = [(24.0, top[1] - 4, -20.0), (40.0, low[1] + 6, -130.0), (62.0, 12.0, -220.0), (85.0, 30.0, -290.0)]
    for points in mirrored(psoas):
        canvas.tube(points, 20.0, patient.tissue.muscle_hu, Label.SOFT_TISSUE)
