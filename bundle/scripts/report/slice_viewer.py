"""Slice viewer of a page: the embedded volumes and the data for its template and script."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from scripts.report.document import packed
from scripts.report.planes import ERROR_HU, PLANES, Plane
from scripts.report.scales import GREY, SIGNED, SPREAD, SUPPORT, Legend, legend

LARGEST_AXIS = 256
"""Largest number of voxels along each axis in a page; larger volumes are subsampled to every second, third, …"""
STD_HU = 200.0
"""Upper end of the colour scale of the standard deviation, the same in every page so that pages are comparable."""
SUPPORT_WORDS = "Share of the deviation from the mean patient that the films can see (%)"
SIDES = (("L", "R"), ("P", "A"), ("I", "S"))
"""Letters at the low and high end of each volume axis."""
_INT16 = np.iinfo(np.int16)


class PlaneView(NamedTuple):
    """A direction of cut: its name, and the letter at each side of its pictures."""

    name: str
    letters: Mapping[str, str]


class Overlay(NamedTuple):
    """Volume whose colours can be laid over the reconstruction: its name for a list, and its legend."""

    name: str
    legend: Legend


class Slices(NamedTuple):
    """Content of ``slices.html``.

    Attributes:
        planes: directions of cut.
        parts: titles of the pictures by content: ``ct``, ``truth``, ``error``.
        legends: legends of ``ct`` and ``error``.
        overlays: what can be laid over the reconstruction, by volume.
        every: subsampling step along each axis.
        state: data read by ``page.js``.
        volumes: packed volumes by name, see :func:`packed_volume`.
    """

    planes: Sequence[PlaneView]
    parts: Mapping[str, str]
    legends: Mapping[str, Legend]
    overlays: Mapping[str, Overlay]
    every: int
    state: Mapping[str, Any]
    volumes: Mapping[str, str]


def slices(volumes: Mapping[str, np.ndarray], affine: np.ndarray, std_words: str) -> Slices:
    """Prepare axial, sagittal and coronal slices.

    Args:
        volumes: ``ct``, and if known ``std``, ``truth`` and ``support``: ``[U, V, W]`` in HU and per cent, finite.
        affine: RAS voxel-to-mm ``[4, 4]``.
        std_words: description of ``std`` for its legend.

    Raises:
        ValueError: a volume has HU that do not fit into 16 bits.
    """
    prepared = chosen_slices(volumes["ct"].shape, affine, "truth" in volumes, step_hu=1)
    overlays = {
        "std": Overlay("uncertainty", legend(std_words, SPREAD, "0", f"≥ {STD_HU:g}")),
        "support": Overlay("support by the films", legend(SUPPORT_WORDS, SUPPORT, "0", "100")),
    }
    texts = {name: packed_volume(name, volume, step_hu=1) for name, volume in volumes.items()}
    return prepared._replace(overlays={name: overlays[name] for name in overlays if name in volumes}, volumes=texts)


def chosen_slices(shape: Sequence[int], affine: np.ndarray, with_truth: bool, step_hu: int) -> Slices:
    """Prepare slices without volumes, for a page on which readers choose them; see :func:`packed_volume`.

    Args:
        shape: shape of every volume, (U, V, W).
        affine: RAS voxel-to-mm ``[4, 4]``.
        with_truth: whether the true CT and the error are shown beside the reconstruction.
        step_hu: unit of the packed volumes.
    """
    every = _every(shape)
    state = {
        "shape": [-(-count // every) for count in shape],
        "affine": (affine @ np.diag([every, every, every, 1.0])).tolist(),
        "step": step_hu,
        "sides": SIDES,
        "planes": [plane._asdict() for plane in PLANES],
        "error": {"limit": ERROR_HU, "colours": SIGNED.ravel().tolist()},
        "overlays": {
            "std": {"limit": STD_HU, "colours": SPREAD.ravel().tolist()},
            "support": {"limit": 100, "colours": SUPPORT.ravel().tolist()},
        },
    }
    legends = {
        "ct": legend("CT number (HU)", GREY, "", ""),  # page.js writes the ends of the window that the reader chooses
        "error": legend("Error: reconstruction − truth (HU)", SIGNED, f"≤ −{ERROR_HU:g}", f"≥ {ERROR_HU:g}"),
    }
    parts = {"ct": "Reconstruction"} | ({"truth": "Truth", "error": "Error"} if with_truth else {})
    return Slices([_plane_view(plane) for plane in PLANES], parts, legends, {}, every, state, {})


def packed_volume(name: str, volume: np.ndarray, step_hu: int) -> str:
    """Pack a volume ``[U, V, W]`` in HU, in whole steps of ``step_hu``; a large one loses voxels, see ``LARGEST_AXIS``.

    The text is base64 of gzip of all low bytes, then all high bytes: high bytes hardly change from voxel to voxel;
    apart from the low ones they compress a fifth better.

    Raises:
        ValueError: the HU do not fit into 16 bits.
    """
    every = _every(volume.shape)
    whole = np.rint(volume[::every, ::every, ::every] / step_hu)
    if (whole * step_hu).min() < _INT16.min or (whole * step_hu).max() > _INT16.max:
        raise ValueError(
            f"{name!r} spans {volume.min():g} to {volume.max():g}, which does not fit into 16 bits; "
            "pass Hounsfield units"
        )
    halves = np.ascontiguousarray(whole.astype("<i2")).view(np.uint8).reshape(-1, 2).T
    return packed(halves.tobytes())


def _every(shape: Sequence[int]) -> int:
    return max(1, math.ceil(max(shape) / LARGEST_AXIS))


def _plane_view(plane: Plane) -> PlaneView:
    """Place the letters: high indices are at the left and top; see ``planes.as_displayed``."""
    (right, left), (bottom, top) = SIDES[plane.across], SIDES[plane.up]
    return PlaneView(plane.name, {"left": left, "right": right, "top": top, "bottom": bottom})
