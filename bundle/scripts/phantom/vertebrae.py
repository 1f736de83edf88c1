"""Vertebrae with their discs, the canal and, in the chest, the necks of the ribs."""

from __future__ import annotations

import torch
from torch import Tensor

from scripts.phantom.canvas import Canvas, Label, capsule
from scripts.phantom.patient import Patient
from scripts.phantom.spine import Vertebra


def paint_vertebra(canvas: Canvas, patient: Patient, vertebra: Vertebra) -> None:
    """Paint one vertebra; its processes have a thicker cortex than the body."""
    v, canal_y, bone = vertebra, vertebra.canal_y, patient.bone
    part = canvas.near(v.centre, margin=62.0)
    if part.is_empty:
        return
    half = part.turned(v.centre, v.axes).folded()
    rim = (half.z / v.half_height) ** 2
    waist = 1 - 0.1 * (1 - rim).clamp(min=0) + v.osteophyte * rim.clamp(max=1.5) ** 3
    radius = torch.sqrt((half.x / v.half_width) ** 2 + (half.y / v.half_depth) ** 2)
    side = (radius / waist - 1) * v.half_depth
    disc = torch.maximum(side + 0.5, (half.z - v.half_height - v.half_disc).abs() - v.half_disc - 0.5)
    half.paint(disc, 85.0, Label.CARTILAGE)
    # Endplates are concave, and the front may have collapsed.
    lost = 1 - v.wedge * (half.y / v.half_depth).clamp(-1, 1).add(1) / 2 - 0.1 * (1 - radius).clamp(min=0)
    body = torch.maximum(side, half.z.abs() - v.half_height * lost)
    processes = _posterior_elements(half, v)
    inner = torch.minimum(body + 0.9 * bone.thickness, processes + 2.2 * bone.thickness)
    bone.paint_filled(half, torch.minimum(body, processes), inner, Label.VERTEBRA)
    canal = torch.sqrt((half.x / 1.2) ** 2 + (half.y - canal_y) ** 2) - 7.5
    canal = torch.maximum(canal, half.z.abs() - v.half_height - 2 * v.half_disc)
    half.paint(canal, 30.0, Label.SOFT_TISSUE)
    if v.thoracic:
        start, end = (v.half_width + 1, -0.6 * v.half_depth, 0.6 * v.half_height), (40, canal_y - 8, 4)
        bone.paint(half, capsule(half, start, end, 5.0 * patient.cage.thickness), Label.RIB)


def _posterior_elements(half: Canvas, v: Vertebra) -> Tensor:
    """Return the distance to pedicles, laminae, articular, transverse and spinous processes; `half` holds |x|."""
    x, y, z = v.pedicle
    pedicle = capsule(half, (x, -0.5 * v.half_depth, z), (x + 1, v.canal_y - 2, z), v.pedicle_radius)
    ring = (torch.sqrt((half.x / 1.15) ** 2 + (half.y - v.canal_y) ** 2) - 11).abs() - 3.0
    lamina = torch.maximum(ring, half.z.abs() - 0.75 * v.half_height)
    facet = (x + 3, v.canal_y - 7)
    articular = capsule(half, (*facet, -v.half_height), (*facet, 1.1 * v.half_height), 5.0)
    reach = (1.75 * v.half_width, v.canal_y - 7.0) if v.lumbar else (1.3 * v.half_width + 9, v.canal_y - 15.0)
    transverse = capsule(half, (x, v.canal_y - 4, 0.3 * v.half_height), (*reach, 0.3 * v.half_height), 3.4)
    # Lumbar spinous processes are tall blades, thoracic ones slope down: round capsules in a compressed height.
    squeeze, drop = (0.42, 5.0) if v.lumbar else (0.7, 22.0 if v.thoracic else 8.0)
    blade = half._replace(z=half.z * squeeze)
    spinous = capsule(blade, (0, v.canal_y - 11, 0), (0, v.canal_y - 31, -drop * squeeze), 3.5)
    parts = torch.minimum(torch.minimum(pedicle, lamina), torch.minimum(articular, transverse))
    return torch.minimum(parts, spinous)
