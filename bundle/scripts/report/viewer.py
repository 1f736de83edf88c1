"""The slices of a report: volumes that travel inside the page, and what its script needs to draw them."""

from __future__ import annotations

import base64
import gzip
import math
from collections.abc import Mapping

import numpy as np

from scripts.report.document import Html, filled, joined, json_text, tag
from scripts.report.panel import ERROR_HU, PLANES, Plane
from scripts.report.scales import GREY, SIGNED, SPREAD, legend

LARGEST_AXIS = 256
"""Voxels that travel along each axis; of a larger volume every second, third, ... does."""
STD_HU = 200.0
"""Where the colours of the standard deviation end, in every page, so that pages can be compared."""
SIDES = (("L", "R"), ("P", "A"), ("I", "S"))
"""Letters of the low and the high end of the volume axes."""
_INT16 = np.iinfo(np.int16)


def viewer(volumes: Mapping[str, np.ndarray], affine: np.ndarray, std_words: str) -> Html:
    """Axial, coronal and sagittal slices with their controls.

    Args:
        volumes: ``ct``, and if there are any ``std`` and ``truth``: ``[U, V, W]`` in HU, finite.
        affine: RAS voxel-to-mm ``[4, 4]``.
        std_words: what ``std`` is, for its legend.

    Raises:
        ValueError: HU that 16 bits do not hold.
    """
    every = max(1, math.ceil(max(volumes["ct"].shape) / LARGEST_AXIS))
    volumes = {name: _whole_hu(name, volume[::every, ::every, ::every]) for name, volume in volumes.items()}
    affine = affine @ np.diag([every, every, every, 1.0])
    parts = {"ct": "Reconstruction"}
    if "truth" in volumes:
        parts |= {"truth": "Truth", "error": "Error"}
    state = {
        "shape": volumes["ct"].shape,
        "affine": affine.tolist(),
        "sides": SIDES,
        "planes": [plane._asdict() for plane in PLANES],
        "error": {"limit": ERROR_HU, "colours": SIGNED.ravel().tolist()},
        "std": {"limit": STD_HU, "colours": SPREAD.ravel().tolist()},
    }
    return filled(
        "viewer.html",
        note=f"One voxel in {every} along each axis is shown; the files beside this page have all." * (every > 1),
        without_std="" if "std" in volumes else "hidden",
        planes=joined(*(_plane(plane, parts, "std" in volumes) for plane in PLANES)),
        without_truth="" if "truth" in volumes else "hidden",
        grey_legend=legend("CT number (HU)", GREY, "", ""),
        std_legend=legend(std_words, SPREAD, "0", f"≥ {STD_HU:g}"),
        error_legend=legend("Error: reconstruction − truth (HU)", SIGNED, f"≤ −{ERROR_HU:g}", f"≥ {ERROR_HU:g}"),
        state=json_text(state),
        volumes=joined(*(_embedded(name, volume) for name, volume in volumes.items())),
    )


def _plane(plane: Plane, parts: Mapping[str, str], with_std: bool) -> Html:
    """The slider of one direction of cut, above a canvas for each part."""
    name = plane.name.capitalize()
    position = tag("output", for_=f"{plane.name}-slice", aria_live="off")
    label = tag("label", tag("strong", name), position, for_=f"{plane.name}-slice")
    slider = tag("input", id=f"{plane.name}-slice", type="range", min=0, value=0, step=1)
    low, high = ([SIDES[axis][end] for axis in (plane.across, plane.up)] for end in (0, 1))
    letters = zip(("left", "right", "top", "bottom"), (high[0], low[0], high[1], low[1]), strict=True)
    marks = joined(*(tag("span", letter, class_=f"mark {side}") for side, letter in letters))
    tiles = []
    for part, words in parts.items():
        canvas = tag("canvas", role="img", aria_label=f"{name} slice, {words}", data_part=part)
        spread = tag("canvas", class_="spread", aria_hidden="true", data_part="std")
        title = tag("span", words, class_="mark title") if len(parts) > 1 else ""
        kind = "tile light" if part == "error" else "tile"
        tiles.append(tag("div", canvas, spread if with_std and part == "ct" else "", marks, title, class_=kind))
    return tag("section", tag("div", label, slider, class_="slider"), *tiles, class_="plane", data_plane=plane.name)


def _whole_hu(name: str, volume: np.ndarray) -> np.ndarray:
    whole = np.rint(volume)
    if whole.min() < _INT16.min or whole.max() > _INT16.max:
        raise ValueError(
            f"{name!r} spans {whole.min():g} to {whole.max():g}, which 16 bits do not hold; pass Hounsfield units"
        )
    return whole.astype("<i2")


def _embedded(name: str, volume: np.ndarray) -> Html:
    """A script element that is no script: base64 of gzip of all low bytes, then all high bytes.

    High bytes hardly change from voxel to voxel: apart from the low ones they compress a fifth better.
    """
    halves = np.ascontiguousarray(volume).view(np.uint8).reshape(-1, 2).T
    packed = base64.b64encode(gzip.compress(halves.tobytes(), compresslevel=6, mtime=0)).decode()
    return tag("script", Html(packed), type="application/octet-stream", data_volume=name)
