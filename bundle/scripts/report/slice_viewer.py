"""Slice viewer of a page: the embedded volumes and the data for its template and script."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from scripts.report.document import packed
from scripts.report.planes import ERROR_HU, PLANES, Plane
from scripts.report.scales import GREY, SIGNED, SPREAD, Legend, legend

LARGEST_AXIS = 256
"""Largest number of voxels along each axis in a page; larger volumes are subsampled to every second, third, …"""
STD_HU = 200.0
"""Upper end of the colour scale of the standard deviation, the same in every page so that pages are comparable."""
SIDES = (("L", "R"), ("P", "A"), ("I", "S"))
"""Letters at the low and high end of each volume axis."""
_INT16 = np.iinfo(np.int16)


class PlaneView(NamedTuple):
    """A direction of cut: its name, and the letter at each side of its pictures."""

    name: str
    letters: Mapping[str, str]


class Slices(NamedTuple):
    """Content of ``slices.html``.

    Attributes:
        planes: directions of cut.
        parts: titles of the pictures by content: ``ct``, ``truth``, ``error``.
        legends: legends of ``ct``, ``std`` and ``error``.
        every: subsampling step along each axis.
        state: data read by ``page.js``.
        volumes: packed volumes by name, see :func:`_packed`.
    """

    planes: Sequence[PlaneView]
    parts: Mapping[str, str]
    legends: Mapping[str, Legend]
    every: int
    state: Mapping[str, Any]
    volumes: Mapping[str, str]


def slices(volumes: Mapping[str, np.ndarray], affine: np.ndarray, std_words: str) -> Slices:
    """Prepare axial, sagittal and coronal slices.

    Args:
        volumes: ``ct``, and if known ``std`` and ``truth``: ``[U, V, W]`` in HU, finite.
        affine: RAS voxel-to-mm ``[4, 4]``.
        std_words: description of ``std`` for its legend.

    Raises:
        ValueError: a volume has HU that do not fit into 16 bits.
    """
    every = max(1, math.ceil(max(volumes["ct"].shape) / LARGEST_AXIS))
    carried = {name: _whole_hu(name, volume[::every, ::every, ::every]) for name, volume in volumes.items()}
    state = {
        "shape": carried["ct"].shape,
        "affine": (affine @ np.diag([every, every, every, 1.0])).tolist(),
        "sides": SIDES,
        "planes": [plane._asdict() for plane in PLANES],
        "error": {"limit": ERROR_HU, "colours": SIGNED.ravel().tolist()},
        "std": {"limit": STD_HU, "colours": SPREAD.ravel().tolist()},
    }
    legends = {
        "ct": legend("CT number (HU)", GREY, "", ""),  # page.js writes the ends of the window that the reader chooses
        "std": legend(std_words, SPREAD, "0", f"≥ {STD_HU:g}"),
        "error": legend("Error: reconstruction − truth (HU)", SIGNED, f"≤ −{ERROR_HU:g}", f"≥ {ERROR_HU:g}"),
    }
    parts = {"ct": "Reconstruction"} | ({"truth": "Truth", "error": "Error"} if "truth" in volumes else {})
    texts = {name: _packed(volume) for name, volume in carried.items()}
    return Slices([_plane_view(plane) for plane in PLANES], parts, legends, every, state, texts)


def _plane_view(plane: Plane) -> PlaneView:
    """Place the letters: high indices are at the left and top; see ``planes.as_displayed``."""
    (right, left), (bottom, top) = SIDES[plane.across], SIDES[plane.up]
    return PlaneView(plane.name, {"left": left, "right": right, "top": top, "bottom": bottom})


def _whole_hu(name: str, volume: np.ndarray) -> np.ndarray:
    whole = np.rint(volume)
    if whole.min() < _INT16.min or whole.max() > _INT16.max:
        raise ValueError(
            f"{name!r} spans {whole.min():g} to {whole.max():g}, which does not fit into 16 bits; pass Hounsfield units"
        )
    return whole.astype("<i2")


def _packed(volume: np.ndarray) -> str:
    """Return base64 of gzip of all low bytes, then all high bytes.

    High bytes hardly change from voxel to voxel; apart from the low ones they compress a fifth better.
    """
    halves = np.ascontiguousarray(volume).view(np.uint8).reshape(-1, 2).T
    return packed(halves.tobytes())
