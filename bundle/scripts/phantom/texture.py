"""Correlated noise inside the body, coarser in bone and bowel than in muscle."""

from __future__ import annotations

import torch

from scripts.phantom.canvas import Canvas, Label
from scripts.phantom.draw import Draw
from scripts.phantom.patient import Patient
from scripts.phantom.shapes import noise
from scripts.phantom.trunk import Fields

_GRAIN_HU, _BONE_GRAIN_HU = 7.0, 30.0
_GRAINS = {
    **dict.fromkeys((Label.VERTEBRA, Label.RIB, Label.PELVIS, Label.STERNUM), _BONE_GRAIN_HU),
    **dict.fromkeys((Label.SCAPULA, Label.CLAVICLE, Label.FEMUR, Label.HUMERUS, Label.FOREARM), _BONE_GRAIN_HU),
    **dict.fromkeys((Label.METAL, Label.DEVICE), 0.0),
    Label.LUNG: 18.0,
    Label.BOWEL: 16.0,
    Label.STOMACH: 12.0,
}


def add_texture(canvas: Canvas, patient: Patient, fields: Fields, draw: Draw) -> None:
    """Add noise with a strength that depends on the tissue and the patient."""
    grains = torch.tensor([_GRAINS.get(label, _GRAIN_HU) for label in Label]) * patient.tissue.grain
    fine = noise(draw.normal(32, 32, 32), 7.0, canvas)
    texture = fine.mul_(grains[canvas.labels.int()]).add_(fields.wobble, alpha=4)
    canvas.hu.add_(texture.mul_(canvas.cover(fields.body + canvas.edge_mm / 2)))
