"""Pelvis and the proximal femora."""

from __future__ import annotations

import torch

from scripts.phantom.canvas import Canvas, Label, capsule
from scripts.phantom.patient import Patient
from scripts.phantom.shapes import angle_about, profile, trunk

_BOWL_WIDTH = ((-310, 84), (-250, 102), (-200, 117), (-150, 126), (-90, 127))
_BOWL_DEPTH = ((-310, 55), (-250, 68), (-200, 76), (-150, 80), (-90, 82))
_BOWL_Y = ((-310, -8), (-90, -4))
HIP = (87.0, -2.0, -282.0)


def paint_pelvis(canvas: Canvas, patient: Patient) -> None:
    """Paint iliac wings, sacrum, the ring of pubis and ischium, and the femora."""
    canvas = canvas.near((-200, -140, -470), (200, 130, -85), margin=0)
    if canvas.is_empty:
        return
    wide = canvas._replace(x=canvas.x / patient.pelvis_width)
    _paint_iliac_wings(wide, patient)
    _paint_sacrum(wide, patient)
    low = canvas.near((-200, -140, -470), (200, 130, -215), margin=0)
    if not low.is_empty:
        _paint_ring(low._replace(x=low.x / patient.pelvis_width).folded(), patient)


def _paint_ring(half: Canvas, patient: Patient) -> None:
    """Paint acetabulum, pubis and ischium, and the femur in its socket."""
    ring = [
        ((84, 6, -258), (86, -8, -290), 20),
        ((72, 18, -285), (14, 46, -312), 8),
        ((14, 46, -312), (12, 42, -335), 9),
        ((14, 40, -335), (50, -18, -362), 7),
        ((80, -18, -292), (56, -30, -358), 13),
    ]
    bone = capsule(half, *ring[0])
    for segment in ring[1:]:
        bone = torch.minimum(bone, capsule(half, *segment))
    socket = torch.sqrt((half.x - HIP[0]) ** 2 + (half.y - HIP[1]) ** 2 + (half.z - HIP[2]) ** 2) - 26.5
    patient.bone.paint(half, torch.maximum(bone, -socket), Label.PELVIS, 1.8)
    neck, shaft = capsule(half, HIP, (124, -8, -316), 14), capsule(half, (133, -10, -305), (124, 0, -480), 15)
    # The head is spongy, the shaft a thick pipe.
    proximal = torch.minimum(socket + 3, neck)
    inner = torch.minimum(proximal + 1.5, shaft + 5.0 * patient.bone.thickness)
    patient.bone.paint_filled(half, torch.minimum(proximal, shaft), inner, Label.FEMUR)


def _paint_iliac_wings(canvas: Canvas, patient: Patient) -> None:
    """Paint plates in the surface of a bowl, from the sacrum to the anterior spine, under the arc of the crest.

    They are thick at their rims, at the sacrum and above the hip, and thin between.
    """
    bowl = trunk(canvas, _BOWL_WIDTH, _BOWL_DEPTH, _BOWL_Y, 2.2)
    angle = angle_about(canvas, _BOWL_WIDTH, _BOWL_DEPTH, _BOWL_Y)
    crest = -108 - 75 * (angle - 0.85) ** 2
    # At the back, the lower edge rises to the greater sciatic notch.
    notch = -272 + 85 * (angle - 1.15) ** 2 + 40 * (0.95 - angle).clamp(0, 0.4)
    height = torch.maximum(canvas.z - crest, notch - canvas.z)
    outline = torch.maximum(height, ((angle - 1.2).abs() - 0.78) * 100)
    rim = (1 + outline / 16).clamp(0, 1)
    roof = ((-canvas.z - 205) / 50).clamp(0, 1)
    half_thickness = 2.2 + 4.0 * torch.maximum(rim, roof) + 10 * (1.0 - angle).clamp(0, 0.5)
    patient.bone.paint(canvas, torch.maximum(bowl.abs() - half_thickness, outline), Label.PELVIS, 1.5)


def _paint_sacrum(canvas: Canvas, patient: Patient) -> None:
    """Paint a curved wedge that narrows towards the coccyx, with its foramina."""
    y = canvas.y - patient.spine.y(canvas.z) + 4
    half_width = profile(((-310, 6), (-285, 14), (-250, 32), (-200, 52), (-170, 54)), canvas.z)
    half_depth = profile(((-310, 4), (-285, 6), (-250, 10), (-200, 17), (-170, 20)), canvas.z)
    wedge = (torch.sqrt((canvas.x / half_width) ** 2 + (y / half_depth) ** 2 + 1e-9) - 1) * half_depth
    ends = torch.maximum(canvas.z + 176 - 0.25 * canvas.y.abs(), -308 - canvas.z)
    # Four holes on each side, 24 mm apart, on a line that converges downwards.
    rung = (canvas.z + 192) / 24
    height = (rung - rung.round().clamp(-3, 0)) * 24
    hole = torch.sqrt((canvas.x.abs() - 24 + 5 * (-rung).clamp(0, 3)) ** 2 + height**2) - 5.5
    patient.bone.paint(canvas, torch.maximum(torch.maximum(wedge, ends), -hole), Label.PELVIS, 0.9)
