"""Metal and plastic in the patient: spinal instrumentation and other devices."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from scripts.phantom.canvas import Canvas, Label, capsule
from scripts.phantom.draw import Draw, Point
from scripts.phantom.patient import Device, Patient
from scripts.phantom.pelvis import HIP
from scripts.phantom.shapes import ovoid
from scripts.phantom.trunk import front, skin_mm

METAL_HU = (3000.0, 3071.0)
_TITANIUM_HU, _TUBING_HU = 2800.0, 900.0
_ATRIUM, _VENTRICLE = (26.0, 14.0, 140.0), (-20.0, 45.0, 100.0)


def paint_spinal_metal(canvas: Canvas, patient: Patient, draw: Draw) -> None:
    """Paint pedicle screws on both sides of two to five neighbouring vertebrae near the isocentre, and two rods."""
    levels = [v for v in patient.spine.vertebrae if v.thoracic > 2 or v.lumbar]
    count = draw.whole(2, 5)
    target = patient.isocentre[2] + draw.uniform(-50, 50)
    nearest = min(range(len(levels)), key=lambda i: abs(levels[i].centre[2] - target))
    first = min(max(nearest - count // 2, 0), len(levels) - count)
    hu, rods = draw.uniform(*METAL_HU), []
    for v in levels[first : first + count]:
        x, y, z = v.pedicle
        head, tip = (x + 4, v.canal_y - 16, z), (x - 3, 0.45 * v.half_depth, z - 1)
        half = canvas.near(v.centre, margin=62.0).turned(v.centre, v.axes).folded()
        screw = capsule(half, head, tip, 2.8)
        tulip = capsule(half, head, (head[0], head[1] - 8, head[2]), 6.0)
        half.paint(torch.minimum(screw, tulip), hu, Label.METAL)
        rods.append([v.to_anatomy((side * head[0], head[1] - 6, head[2])) for side in (1, -1)])
    for rod in zip(*rods, strict=True):
        canvas.tube(rod, 2.8, hu, Label.METAL)


def paint_devices(canvas: Canvas, patient: Patient, draw: Draw) -> None:
    """Paint all of the patient's devices."""
    for device in Device:
        if device in patient.devices:
            _PAINTERS[device](canvas, patient, draw)


def _paint_disc(canvas: Canvas, centre: Point, radius: float, half_thickness: float, hu: float) -> None:
    """Paint a flat disc parallel to the front of the chest."""
    part = canvas.near(centre, margin=radius)
    if not part.is_empty:
        axis = (math.copysign(0.25, centre[0]), 1, 0.2)
        part.paint(ovoid(part, centre, axis, half_thickness, radius), hu, Label.DEVICE)


def _paint_port(canvas: Canvas, patient: Patient, draw: Draw) -> None:
    """Paint a titanium chamber in front of the upper ribs, with a catheter over the clavicle to the right atrium."""
    side = draw.side()
    chamber = front(patient, side * draw.uniform(65, 85), draw.uniform(200, 225), 2.0)
    _paint_disc(canvas, chamber, 13.0, 6.5, _TITANIUM_HU)
    canvas.tube([chamber, (side * 45.0, 48.0, 268.0), (26.0, 6.0, 235.0), _ATRIUM], 1.3, _TUBING_HU, Label.DEVICE)


def _paint_pacemaker(canvas: Canvas, patient: Patient, draw: Draw) -> None:
    """Paint a generator below the clavicle with a lead to the right ventricle and, optionally, one to the atrium."""
    side = draw.side()
    generator = front(patient, side * draw.uniform(70, 88), draw.uniform(195, 215), -3.0)
    _paint_disc(canvas, generator, draw.uniform(22, 27), 6.0, draw.uniform(2200, 3071))
    vein = [generator, (side * 80.0, 30.0, 262.0), (side * 30.0, 16.0, 250.0), (27.0, 6.0, 225.0), _ATRIUM]
    tips = [_VENTRICLE] if draw.chance(0.4) else [_VENTRICLE, (20.0, 38.0, 135.0)]
    for tip in tips:
        canvas.tube([*vein, draw.near(tip, 6)], 1.1, 2500.0, Label.DEVICE)


def _paint_sternal_wires(canvas: Canvas, patient: Patient, draw: Draw) -> None:
    """Paint loops of steel around the sternum."""
    for i in range(draw.whole(5, 7)):
        x, y, z = front(patient, draw.uniform(-3, 3), 232.0 - 20 * i + draw.uniform(-3, 3), -12.0)
        turns = [2 * math.pi * k / 8 for k in range(9)]
        canvas.tube([(x + 16 * math.cos(t), y + 9 * math.sin(t), z) for t in turns], 0.8, 3071.0, Label.DEVICE)


def _paint_central_line(canvas: Canvas, patient: Patient, draw: Draw) -> None:
    """Paint a catheter from the neck or the armpit to the superior vena cava."""
    side = draw.side()
    start = (side * 32.0, 14.0, 400.0) if draw.chance(0.5) else (side * 160.0, 5.0, 235.0)
    tip = (26.0, 10.0, draw.uniform(145, 200))
    canvas.tube([start, (side * 36.0, 18.0, 258.0), (27.0, 6.0, 230.0), tip], 1.2, _TUBING_HU, Label.DEVICE)


def _paint_gastric_tube(canvas: Canvas, patient: Patient, draw: Draw) -> None:
    """Paint a tube from the throat along the oesophagus, in front of the spine, to the stomach."""
    course = [(x - 4, y + 22, z) for x, y, z in (patient.spine.at(z) for z in (420, 330, 260, 190, 120, 80))]
    canvas.tube([*course, draw.near((-50, 25, 40), 12)], 2.2, draw.uniform(500, 1200), Label.DEVICE)


def _paint_electrodes(canvas: Canvas, patient: Patient, draw: Draw) -> None:
    """Paint discs on the skin of the chest."""
    for _ in range(draw.whole(2, 5)):
        x, z = draw.uniform(-100, 100), draw.uniform(60, 245)
        _paint_disc(canvas, front(patient, x, z, skin_mm(patient, z)), 6.0, 3.0, 2000.0)


def _paint_clips(canvas: Canvas, patient: Patient, draw: Draw) -> None:
    """Paint titanium clips where an organ was removed: the gallbladder, or elsewhere."""
    place = draw.one([(30.0, 15.0, 5.0), (-75.0, -5.0, 20.0), (70.0, 20.0, -40.0), (30.0, 0.0, 175.0)], [3, 1, 1, 1])
    for _ in range(draw.whole(2, 6)):
        start = draw.near(place, 12)
        canvas.tube([start, draw.near(start, 5)], 1.2, _TITANIUM_HU, Label.DEVICE)


def _paint_hip_prosthesis(canvas: Canvas, patient: Patient, draw: Draw) -> None:
    """Paint cup, head, neck and stem in place of the head of a femur."""
    side, hu = draw.side(), draw.uniform(*METAL_HU)
    x, y, z = (side * patient.pelvis_width * HIP[0], *HIP[1:])
    part = canvas.near((x, y, z), (side * 128.0, -8.0, -450.0), margin=30.0)
    if part.is_empty:
        return
    ball, collar = (x, y, z), (side * 122.0, -8.0, -312.0)
    cup = torch.maximum(capsule(part, ball, ball, 27.0), -capsule(part, ball, ball, 23.0))
    cup = torch.maximum(cup, (z - 2 - part.z + 0.6 * (side * part.x - abs(x))))
    stem = torch.minimum(capsule(part, ball, collar, 7.0), capsule(part, collar, (side * 127.0, -3.0, -430.0), 8.0))
    metal = torch.minimum(torch.minimum(cup, capsule(part, ball, ball, 16.0)), stem)
    part.paint(metal, hu, Label.DEVICE)


_PAINTERS: dict[Device, Callable[[Canvas, Patient, Draw], None]] = {
    Device.PORT: _paint_port,
    Device.PACEMAKER: _paint_pacemaker,
    Device.STERNAL_WIRES: _paint_sternal_wires,
    Device.CENTRAL_LINE: _paint_central_line,
    Device.GASTRIC_TUBE: _paint_gastric_tube,
    Device.ELECTRODES: _paint_electrodes,
    Device.CLIPS: _paint_clips,
    Device.HIP_PROSTHESIS: _paint_hip_prosthesis,
}
