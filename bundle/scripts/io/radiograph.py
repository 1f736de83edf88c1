"""A radiograph as its file states it, before anything is assumed about it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from pydicom.dataset import Dataset

SCALES = ("line_integral", "counts", "log", "display")
"""What pixels can mean; see :class:`Radiograph`."""
MAX_PIXELS = 8192 * 8192
"""A larger radiograph is refused before it is decoded: the largest flat panels have a fifth of this."""


@dataclass(frozen=True, eq=False)
class Radiograph:
    """Pixels and what the file says about them; None where it says nothing.

    Attributes:
        path: the file, for messages.
        sha256: of the file.
        pixels: ``[rows, columns]`` float32, the modality LUT applied, no VOI LUT. By ``scale``:
            ``"line_integral"``: line integrals of attenuation, dimensionless;
            ``"counts"``: proportional to the intensity that reached the detector, so falling with attenuation;
            ``"log"``: an affine function of the line integral with unknown factor and offset, growing with it;
            ``"display"``: an unknown monotone function of the line integral, growing with it (bone is bright).
        scale: one of :data:`SCALES`.
        shown: bool ``[rows, columns]``, the pixels that the file does not call shutter or padding; None if all are.
        modality: DICOM's, e.g. ``"DX"``.
        view: ``"frontal"`` or ``"lateral"``.
        source_side: where the tube stood: ``"anterior"``, ``"posterior"``, ``"right"`` or ``"left"``.
        orientation: two letters of patient directions (of L, R, A, P, H, F) in which rows and columns run, as in
            DICOM's Patient Orientation: ``"LF"`` is the usual frontal film.
        pixel_spacing_mm: pitch on the detector between rows and between columns.
        object_spacing_mm: pitch that is calibrated to a plane in the patient already, likewise; never magnified again.
        source_to_detector_mm: distance from the source to the detector.
        source_to_patient_mm: DICOM's Distance Source to Patient; what it is measured to depends on the modality.
        primary_angle_deg: positioner angle towards the patient's left.
        secondary_angle_deg: positioner angle towards the head.
        is_lossy: whether compression has altered the pixels.
        header: identity of patient, study and image; empty for a file that is not DICOM.
        warnings: what a reader of the result should know about the file.
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
