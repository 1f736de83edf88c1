"""A radiograph as its file states it, without any assumptions."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from pydicom.dataset import Dataset

SCALES = ("line_integral", "counts", "log", "display")
"""Possible meanings of pixels; see :class:`Radiograph`."""
MAX_PIXELS = 8192 * 8192
"""Largest radiograph that is decoded; the largest flat panels have a fifth of this."""


@dataclass(frozen=True, eq=False)
class Radiograph:
    """Pixels and the statements of the file about them; None for what it does not state.

    Attributes:
        path: the file, for messages.
        sha256: digest of the file.
        pixels: ``[rows, columns]`` float32, with the modality LUT but no VOI LUT. By ``scale``:
            ``"line_integral"``: line integrals of attenuation, dimensionless;
            ``"counts"``: proportional to the intensity at the detector, so decreasing with attenuation;
            ``"log"``: an affine function of the line integral with unknown factor and offset, growing with it;
            ``"display"``: an unknown monotone function of the line integral, growing with it (bone is bright).
        scale: one of :data:`SCALES`.
        shown: bool mask ``[rows, columns]`` of pixels not declared as shutter or padding; None if all are shown.
        modality: DICOM's, e.g. ``"DX"``.
        view: ``"frontal"`` or ``"lateral"``.
        source_side: side of the tube: ``"anterior"``, ``"posterior"``, ``"right"`` or ``"left"``.
        orientation: patient directions (two of L, R, A, P, H, F) in which rows and columns run, as in DICOM's Patient
            Orientation: ``"LF"`` is the usual frontal film.
        pixel_spacing_mm: pitch on the detector between rows and between columns.
        object_spacing_mm: pitch, already calibrated to a plane in the patient, so never scaled by the magnification.
        source_to_detector_mm: distance from the source to the detector.
        source_to_patient_mm: DICOM's Distance Source to Patient; its end point depends on the modality.
        primary_angle_deg: positioner angle towards the patient's left.
        secondary_angle_deg: positioner angle towards the head.
        is_lossy: whether compression has altered the pixels.
        header: identity of patient, study and image; empty for a file that is not DICOM.
        warnings: notes on the file for readers of the result.
    """

    path: str
    sha256: str
    pixels: np.ndarray
    scale: str
    shown: np.ndarray | None = None
    modality: str | None = None
    view: str | None = None
    source_side: str | None = None
    orientation: str | None = None
    pixel_spacing_mm: tuple[float, float] | None = None
    object_spacing_mm: tuple[float, float] | None = None
    source_to_detector_mm: float | None = None
    source_to_patient_mm: float | None = None
    primary_angle_deg: float | None = None
    secondary_angle_deg: float | None = None
    is_lossy: bool = False
    header: Dataset = field(default_factory=Dataset)
    warnings: tuple[str, ...] = ()
