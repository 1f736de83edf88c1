"""Arms that hang at the sides of the trunk."""

from __future__ import annotations

import torch
from torch import Tensor

from scripts.phantom.canvas import Canvas, Label, capsule
from scripts.phantom.patient import Patient

_SHOULDER, _ELBOW, _WRIST = (166.0, -12.0, 248.0), (194.0, -22.0, -30.0), (206.0, 8.0, -270.0)


def arms_distance(canvas: Canvas) -> Tensor:
    """Return the distance to the muscles of both arms, which touch the trunk."""
    half = canvas.folded()
    return torch.minimum(capsule(half, _SHOULDER, _ELBOW, 38.0), capsule(half, _ELBOW, _WRIST, 30.0))


def paint_arms(canvas: Canvas, patient: Patient) -> None:
    """Paint humeri with their heads, radii and ulnae."""
    shaft = ((168.0, -12.0, 225.0), (194.0, -22.0, -22.0))
    for side in (1, -1):
        corners = [(side * x, y, z) for x, y, z in (_SHOULDER, _ELBOW, _WRIST)]
        half = canvas.near(*corners, margin=45.0).folded()
        if half.is_empty:
            continue
        humerus = torch.minimum(capsule(half, (158, -12, 250), (166, -12, 240), 23), capsule(half, *shaft, 11.0))
        humerus = torch.minimum(humerus, capsule(half, (180, -22, -20), (208, -22, -20), 12.0))
        patient.bone.paint(half, humerus, Label.HUMERUS, 3.2)
        radius = capsule(half, (206, -12, -42), (216, 8, -265), 7.5)
        ulna = capsule(half, (188, -30, -22), (196, 8, -265), 7.5)
        patient.bone.paint(half, torch.minimum(radius, ulna), Label.FOREARM, 2.4)
