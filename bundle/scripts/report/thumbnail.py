"""Thumbnail of a result, for the index of a batch: the frontal radiograph, the skeleton, and the mid-sagittal plane."""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np
from PIL import Image

from scripts.report.mip import BONE_WINDOW, PROJECTIONS
from scripts.report.planes import HU_WINDOW, PLANES, as_displayed

THUMBNAIL_FILE = "thumbnail.jpg"
"""Name of the thumbnail in the folder of a result."""
EDGE = 96
"""Rows and columns of each of the three pictures."""
WIDTH = 3 * EDGE
"""Columns of the thumbnail."""
_FRONTAL, _SAGITTAL = PROJECTIONS[0], PLANES[1]


def thumbnail(images: Mapping[str, np.ndarray], volumes: Mapping[str, np.ndarray], spacing_mm: np.ndarray) -> bytes:
    """Draw the thumbnail, three squares side by side, as a grey JPEG.

    Args:
        images: see :func:`scripts.report.page.write_page`; a view that is not given is black.
        volumes: ``ct`` ``[U, V, W]`` in HU.
        spacing_mm: voxel spacing, ``[3]``.
    """
    hu, frontal = volumes["ct"], images["measured"][0]
    parts = (
        (frontal, 0.0, float(frontal.max(initial=1e-6)), (1, 1)),
        (_FRONTAL.of(hu), *BONE_WINDOW, (spacing_mm[_FRONTAL.across], spacing_mm[_FRONTAL.up])),
        (_SAGITTAL.of(hu), *HU_WINDOW, (spacing_mm[_SAGITTAL.across], spacing_mm[_SAGITTAL.up])),
    )
    sheet = Image.new("L", (WIDTH, EDGE))
    for index, (plane, low, high, pixel_mm) in enumerate(parts):
        grey = ((as_displayed(plane) - low) / (high - low) * 255).clip(0, 255).astype(np.uint8)
        size = np.multiply(plane.shape, pixel_mm)
        columns, rows = np.rint(size / size.max() * EDGE).astype(int).clip(1).tolist()
        small = Image.fromarray(grey).resize((columns, rows), Image.Resampling.BILINEAR)
        sheet.paste(small, (index * EDGE + (EDGE - columns) // 2, (EDGE - rows) // 2))
    file = io.BytesIO()
    sheet.save(file, "jpeg", quality=80)
    return file.getvalue()
