"""The uncertainty of a reconstructed volume as a DICOM Parametric Map, by highdicom, an optional requirement."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.utils import optional_import
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from scripts.dicom.identity import NOTICE, plain, uid
from scripts.dicom.write_ct import CtDescription, slices_of

highdicom, has_highdicom = optional_import("highdicom")
_TITLE = "Standard deviation in HU"
_NUMBER_OFFSET = 3
"""Number of the series after that of the CT, its uncertainty and its captures."""


def require_highdicom() -> None:
    """Raise a ValueError if highdicom is not installed."""
    if not has_highdicom:
        raise ValueError("--outputs: parametric_map needs highdicom, which is not installed; pip install highdicom")


def write_parametric_map(
    folder: Path, std_hu: np.ndarray, affine: np.ndarray, ct: Sequence[Dataset], description: CtDescription
) -> Path:
    """Write the voxel-wise standard deviation in HU as one multi-frame file of 32-bit floating-point numbers.

    It refers to a CT series and has its patient, study, frame of reference and grid.

    Args:
        folder: existing folder for this file alone.
        std_hu: standard deviation ``[U, V, W]``.
        affine: RAS voxel-to-mm ``[4, 4]``, without shear, in any orientation.
        ct: the slices that :func:`~scripts.dicom.write_ct.write_ct_series` wrote of the volume on the same grid.
        description: provenance of the volume.

    Raises:
        ValueError: the affine is sheared.
    """
    frames = slices_of(folder, std_hu, affine).astype(np.float32)
    series = uid("parametric map", ct[0].SeriesInstanceUID, hashlib.sha256(frames.tobytes()).hexdigest())
    parametric_map = highdicom.pm.ParametricMap(
        source_images=ct,
        pixel_array=frames,
        series_instance_uid=series,
        series_number=description.series_number + _NUMBER_OFFSET,
        sop_instance_uid=uid(series, "0"),
        instance_number=1,
        manufacturer=plain(description.software, 64),
        manufacturer_model_name=plain(description.software, 64),
        software_versions=plain(description.version, 64),
        device_serial_number=description.weights_sha256[:16],
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[_mapping(float(frames.max()))],
        voi_lut_transformations=[highdicom.VOILUTTransformation(window_center=150, window_width=300)],
        content_label="UNCERTAINTY",
        content_description=f"SD in HU, not a CT, {NOTICE}",
        content_qualification="RESEARCH",
        derived_pixel_contrast="STD_DEVIATION",
    )
    parametric_map.SeriesDescription = f"UNCERTAINTY (SD in HU), parametric map, {NOTICE}"
    for keyword in ("SyntheticData", "BodyPartExamined"):
        parametric_map[keyword] = ct[0][keyword]
    parametric_map.DerivationDescription = plain(
        f"Not a CT: {description.uncertainty}, in HU, of: {ct[0].DerivationDescription}", 1024
    )
    path = folder / "0001.dcm"
    parametric_map.save_as(path)
    return path


def _mapping(largest: float) -> Any:
    return highdicom.pm.RealWorldValueMapping(
        lut_label="SD",
        lut_explanation=_TITLE,
        unit=Code("[hnsf'U]", "UCUM", "Hounsfield unit"),
        value_range=(0.0, largest),
        slope=1.0,
        intercept=0.0,
        quantity_definition=Code("386136009", "SCT", "Standard Deviation"),
    )
