"""Volume in three dimensions on a page: what its template and script need, and the still pictures of the skeleton."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from scripts.report.mip import BONE_WINDOW, PROJECTIONS, Projection
from scripts.report.planes import as_displayed
from scripts.report.radiographs import LETTERS, Tile
from scripts.report.raycasting import BONE, SKIN
from scripts.report.scales import GREY, Legend, Picture, coloured, legend, picture

PARTS = {"ct": "Reconstruction", "truth": "Truth"}
"""Titles of the volumes side by side."""
STATE = {"bone": BONE._asdict(), "skin": SKIN._asdict(), "window": BONE_WINDOW}
"""Data read by ``volume.js``: the surfaces with their colours, and the window of the projection."""


class VolumeView(NamedTuple):
    """Content of ``volume.html``.

    Attributes:
        parts: titles of the volumes side by side, see :data:`PARTS`.
        stills: maximum-intensity projections of the skeleton, for paper and for browsers without WebGL.
        legend: scale of the stills; None without stills.
        state: data read by ``volume.js``.
    """

    parts: Mapping[str, str] = PARTS
    stills: Sequence[Tile] = ()
    legend: Legend | None = None
    state: Mapping[str, Any] = STATE


def volume_view(volumes: Mapping[str, np.ndarray], spacing_mm: np.ndarray) -> VolumeView:
    """Prepare the volume in three dimensions.

    Args:
        volumes: ``ct``, and if known ``truth``: ``[U, V, W]`` in HU, finite.
        spacing_mm: voxel spacing, ``[3]``.
    """
    parts = {name: words for name, words in PARTS.items() if name in volumes}
    stills = [
        Tile(f"{words}, {along.name}", skeleton(volumes[name], along, spacing_mm), LETTERS[along.name], "tile")
        for name, words in parts.items()
        for along in PROJECTIONS
    ]
    low, high = BONE_WINDOW
    scale = legend("Skeleton: maximum-intensity projection (HU)", GREY, f"≤ {low:g}", f"≥ {high:g}")
    return VolumeView(parts, stills, scale)


def skeleton(hu: np.ndarray, projection: Projection, spacing_mm: np.ndarray) -> Picture:
    """Draw the maximum-intensity projection of a volume ``[U, V, W]`` with square pixels."""
    pixels = coloured(as_displayed(projection.of(hu)), GREY, *BONE_WINDOW)
    across, up = (round(hu.shape[axis] * spacing_mm[axis] / spacing_mm.min()) for axis in projection[2:4])
    return picture(np.asarray(Image.fromarray(pixels).resize((across, up), Image.Resampling.BILINEAR)))
