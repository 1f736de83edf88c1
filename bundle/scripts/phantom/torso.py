"""A seeded, procedural human torso in Hounsfield units, with labels.

The anatomy is a set of implicit functions in millimetres, drawn once per seed and then evaluated on any grid, so the
same seed gives the same patient at every shape and spacing. It serves to test and to train without patient data: its
layout (lungs, spine, ribs, heart, diaphragm, pelvis) follows an adult CT and varies like one in build, age, posture,
bone, contrast medium, disease and devices; its detail does not replace one.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from scripts.phantom.abdomen import paint_abdomen
from scripts.phantom.arms import paint_arms
from scripts.phantom.cage import paint_cage
from scripts.phantom.canvas import Canvas
from scripts.phantom.chest import paint_lungs, paint_mediastinum
from scripts.phantom.draw import Draw
from scripts.phantom.implants import paint_devices, paint_spinal_metal
from scripts.phantom.patient import Patient
from scripts.phantom.pelvis import paint_pelvis
from scripts.phantom.texture import add_texture
from scripts.phantom.trunk import Fields, paint_wall
from scripts.phantom.vertebrae import paint_vertebra

# Range of twelve bits, at which a scanner, and therefore metal, saturates.
HU_RANGE = (-1024.0, 3071.0)


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
    head. The arms hang by the sides of the trunk in three of ten patients; the others have raised them out of view.

    Args:
        seed: non-negative integer that determines the patient, whatever the grid. Metal leaves the patient unchanged.
        shape: number of voxels (U, V, W).
        spacing_mm: edge of the cubic voxel. Boundaries are soft over a voxel and the blur of a scanner.
        metal: whether pedicle screws and rods instrument a few vertebrae near the centre of the field of view. Other
            devices, from ports to hip prostheses, belong to the patient: some carry them.
        centre_mm: height of the isocentre above the T12/L1 disc, in mm of an average adult (mid-chest about 160,
            pelvis about -220); drawn from [-200, 200] when None.

    Returns:
        The phantom. Beyond the soft edge of the skin the air is exactly -1000 HU; all values lie in [-1024, 3071].

    Raises:
        ValueError: the seed, shape, spacing or centre is out of range.
    """
    _check(seed, shape, spacing_mm, centre_mm)
    draw = Draw(seed)
    patient = Patient.drawn(draw, centre_mm)
    canvas = Canvas.blank(shape, spacing_mm, patient.scale, patient.isocentre)

    # The order of painting is the order of occlusion; no draw may depend on the grid.
    fields = Fields.of(canvas, patient, draw)
    paint_wall(canvas, patient, fields, draw)
    paint_abdomen(canvas, patient, fields, draw)
    paint_lungs(canvas, patient, fields, draw)
    paint_mediastinum(canvas, patient, draw)
    paint_cage(canvas, patient, fields, draw)
    paint_pelvis(canvas, patient)
    for vertebra in patient.spine.vertebrae:
        paint_vertebra(canvas, patient, vertebra)
    if patient.arms_down:
        paint_arms(canvas, patient)
    paint_devices(canvas, patient, draw)
    add_texture(canvas, patient, fields, draw)
    if metal:
        paint_spinal_metal(canvas, patient, draw)
    return Phantom(canvas.hu.clamp_(*HU_RANGE), canvas.labels)


def _check(seed: int, shape: Sequence[int], spacing_mm: float, centre_mm: float | None) -> None:
    """Raise ValueError for invalid arguments, with the rule, the value and the remedy."""
    if not _is_integer(seed) or not 0 <= seed < 2**32:  # the limit of a generator
        raise ValueError(f"seed must be an integer in [0, 2**32), got {seed!r}; pass for instance 0.")
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
