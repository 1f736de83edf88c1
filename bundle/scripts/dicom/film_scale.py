"""Meaning and direction of the pixel values of a DICOM radiograph."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut, apply_voi
from pydicom.uid import (
    DigitalXRayImageStorageForProcessing,
    XRayAngiographicImageStorage,
    XRayRadiofluoroscopicImageStorage,
)

from scripts.dicom.attributes import text
from scripts.dicom.pixels import PixelFormat, rescaled

_FLUOROSCOPIC = ("XA", "RF")
"""Modalities in which bone is dark."""
_XRAY_IMAGE = (XRayAngiographicImageStorage, XRayRadiofluoroscopicImageStorage)
"""SOP classes where PixelIntensityRelationship, not PhotometricInterpretation, gives the direction of the values."""
_LEVELS = 257
"""Number of values sampled to decide whether a VOI LUT rises."""


class _Meaning(NamedTuple):
    """Scale of the values, whether they are inverted to grow with attenuation, and notes on each of the two."""

    scale: str
    is_inverted: bool
    on_scale: tuple[str, ...] = ()
    on_direction: tuple[str, ...] = ()


class FilmScale(NamedTuple):
    """Pixels ``[rows, columns]`` float32, their scale in :class:`~scripts.io.radiograph.Radiograph`, and warnings."""

    scale: str
    pixels: np.ndarray
    warnings: tuple[str, ...]


def scaled(
    path: Path, dataset: Dataset, form: PixelFormat, stored: np.ndarray, intensity: str | None = None
) -> FilmScale:
    """Apply the modality LUT, and make display values grow with attenuation.

    A relationship of opposite sign, MONOCHROME1 and a falling VOI LUT all act on the output of the modality LUT
    (PS3.4 N.2). They are undone there by exchanging the lowest and the highest value that the declared bits allow.

    Args:
        path: file, for messages.
        dataset: the header.
        form: storage format of the pixels.
        stored: stored values ``[rows, columns]``.
        intensity: scale by the user's account, which overrides the file's.

    Raises:
        ValueError: the modality LUT cannot be applied.
    """
    try:
        if dataset.get("ModalityLUTSequence"):
            values = apply_modality_lut(stored, dataset)
            extremes = np.array([0, (1 << dataset.ModalityLUTSequence[0].LUTDescriptor[2]) - 1])
        else:
            values, extremes = rescaled(stored, dataset), rescaled(form.extremes, dataset)
    except Exception as error:  # on hostile bytes pydicom raises errors of any kind
        raise ValueError(f"{path}: its modality LUT cannot be applied ({error}); export it again") from error
    is_plain = not form.is_signed and np.array_equal(extremes, form.extremes) and not dataset.get("ModalityLUTSequence")
    meaning = _meaning(path, dataset, is_plain, values)
    if intensity is not None:
        meaning = _told(intensity, meaning, is_plain and dataset.get("PixelIntensityRelationshipSign") == -1)
    pixels = extremes.sum() - values if meaning.is_inverted else values
    return FilmScale(meaning.scale, pixels.astype(np.float32), meaning.on_scale + meaning.on_direction)


def _told(intensity: str, stated: _Meaning, is_falling: bool) -> _Meaning:
    """Return the meaning of values whose scale the user tells.

    Counts and line integrals are the values as they are, however the film is shown; only a sign by which they fall with
    the X-ray intensity is undone for counts. The other scales have no direction of their own and take the file's.
    """
    if intensity in ("counts", "line_integral"):
        return _Meaning(intensity, intensity == "counts" and is_falling)
    is_inverted = stated.is_inverted != (stated.scale == "counts")  # counts fall with attenuation
    return _Meaning(intensity, is_inverted, on_direction=stated.on_direction)


def _meaning(path: Path, dataset: Dataset, is_plain: bool, values: np.ndarray) -> _Meaning:
    """Return the meaning that the file states.

    PS3.3 C.8.11.3.1.2: stored values grow with the X-ray intensity if PixelIntensityRelationshipSign is 1, and fall if
    it is -1. This concerns stored values, and so applies only without a modality LUT, which DX never has.

    XA and RF images have no sign and are always MONOCHROME2: by C.8.7.1.1.2, LIN and LOG refer to the intensity, so
    bone is dark, and DISP is stored as angiograms are displayed, where bone is dark too. Elsewhere
    PhotometricInterpretation and the VOI LUT define what appears bright: bone, except in fluoroscopic images.
    """
    sop_class = text(dataset, "SOPClassUID")
    is_raw = (
        sop_class == DigitalXRayImageStorageForProcessing
        and text(dataset, "PresentationIntentType") == "FOR PROCESSING"
    )
    relationship, sign = text(dataset, "PixelIntensityRelationship"), dataset.get("PixelIntensityRelationshipSign")
    stated = f"PixelIntensityRelationship {relationship or 'not stated'}, sign {sign or 'not stated'}"
    if is_raw and is_plain and relationship in ("LIN", "LOG") and sign in (1, -1):
        return _Meaning("counts", sign == -1) if relationship == "LIN" else _Meaning("log", sign == 1)
    modality = text(dataset, "Modality")
    if sop_class in _XRAY_IMAGE:
        shade = "bright" if sign == -1 else "dark"
        why = f"{path}: {modality} does not state how it was processed; bone taken as {shade} in it"
        return _Meaning("display", sign != -1, on_direction=(why,))
    falls, voi_warnings = _voi_falls(path, dataset, values)
    photometric = text(dataset, "PhotometricInterpretation")
    is_inverted = (photometric == "MONOCHROME1") != falls
    if modality in _FLUOROSCOPIC:
        why = f"{path}: an image of {modality} as it was shown: bone taken as dark in it"
        return _Meaning("display", not is_inverted, on_direction=(why, *voi_warnings))
    reason = f"for processing, but {stated} or a modality LUT" if is_raw else "post-processed for display"
    by_order = f"{path}: {reason}: its values tell attenuation only by their order"
    contradiction: tuple[str, ...] = ()
    if sign == (-1 if is_inverted else 1):
        shown = photometric + " with a falling VOI LUT" * falls
        contradiction = (f"{path}: {stated} contradicts {shown}, by which bone is bright; the latter is followed",)
    return _Meaning("display", is_inverted, (by_order,), (*voi_warnings, *contradiction))


def _voi_falls(path: Path, dataset: Dataset, values: np.ndarray) -> tuple[bool, tuple[str, ...]]:
    """Return whether the first VOI LUT shows a film's high values darker than its low ones, and warnings."""
    if not dataset.get("VOILUTSequence"):
        return False, ()
    try:
        levels = np.unique(np.quantile(values, np.linspace(0, 1, _LEVELS)).round().astype(np.int64))
        shown = apply_voi(levels, dataset).astype(float)
    except Exception as error:  # on hostile bytes pydicom raises errors of any kind
        return False, (
            f"{path}: its VOI LUT cannot be read ({error}) and is taken to rise: is bone bright in the film?",
        )
    falls = float((levels - levels.mean()) @ (shown - shown.mean())) < 0
    return falls, (f"{path}: its VOI LUT falls, so bone is stored dark; undone",) * falls
