"""The report of one reconstruction: a single HTML file that opens from disk, without a network."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scripts.report.document import Html, document, filled, joined, tag
from scripts.report.figure import as_displayed
from scripts.report.panel import checked_volumes
from scripts.report.scales import GREY, SIGNED, coloured, legend, picture
from scripts.report.viewer import viewer

PAGE_FILE = "report.html"
"""What the page is called in the folder of a result."""
FILM_PIXELS = 512
"""A film is shown with at most so many pixels along a side."""
_EDGES = {"frontal": ("R", "L"), "lateral": ("A", "P")}
"""What is at the left and the right of a radiograph."""
_PLACED = ("notice", "exam", "warnings", "reprojection_error", "reprojection_error_is", "metrics", "inputs")
_PLACED += ("geometry", "inputs_sha256")
"""Entries of a record that have a place of their own; the others are provenance."""
_UNITS = {"mm": "mm", "deg": "°", "hu": "HU", "db": "dB"}
_SPELLINGS = {"psnr": "PSNR", "psnr2d": "PSNR 2D", "psnr3d": "PSNR 3D", "ssim2d": "SSIM 2D", "ssim3d": "SSIM 3D"}
_SPELLINGS |= {"ssim": "SSIM", "mae": "MAE", "sha256": "SHA-256", "x2ct": "X2CT", "std": "SD", "amp": "mixed precision"}
_SPELLINGS |= {"dice": "Dice"}


def write_page(
    folder: str | Path,
    record: Mapping[str, Any],
    images: Mapping[str, np.ndarray],
    volumes: Mapping[str, np.ndarray],
    affine: np.ndarray,
) -> None:
    """Write the page, :data:`PAGE_FILE`; equal arguments give equal bytes.

    Superior is up; the patient's right is on the left of frontal, axial and coronal pictures, anterior on the left of
    lateral and sagittal ones.

    Args:
        folder: where to write it.
        record: what ``result.json`` says. ``metrics``, ``{name: number or None}``, is that of a reconstruction whose
            truth is known; a list ``steps`` in one of ``inputs`` is how that film was processed. Entries this page does
            not know are listed as provenance.
        images: ``measured`` and ``reprojected``, line integrals ``[2, N, N]`` with axes (u, w) and (v, w), the first 0
            everywhere for a view that was not given; of films also ``frontal_film`` and ``lateral_film``, the pixels
            ``[rows, columns]`` as they were read.
        volumes: ``ct`` ``[U, V, W]`` in HU, and if there are any ``std`` (standard deviation of the samples, in HU) and
            ``truth``, likewise. The page shows whole HU.
        affine: RAS voxel-to-mm ``[4, 4]``.

    Raises:
        ValueError: an array of another shape, with NaN or infinity, or with HU beyond 16 bits; an affine that turns or
            mirrors the patient's axes.
    """
    volumes, affine = checked_volumes(volumes), _checked_affine(affine)
    samples, factor = record.get("samples", "several"), record.get("std_temperature", 1)
    std_words = f"Standard deviation of {samples} samples{f', times {factor:g}' if factor != 1 else ''} (HU)"
    body = filled(
        "page.html",
        exam=record["exam"],
        notice=record.get("notice", "CT estimated from radiographs."),
        warnings=_warnings(record.get("warnings", ())),
        facts=_facts(record, volumes["ct"].shape, affine),
        viewer=viewer(volumes, affine, std_words),
        radiographs=_radiographs(_checked_images(images)),
        tables=_tables(record),
    )
    Path(folder, PAGE_FILE).write_bytes(document(f"{record['exam']}: CT from radiographs", body, "page.js"))


def _warnings(warnings: Sequence[str]) -> Html:
    if not warnings:
        return tag("p", "No warnings.")
    title = tag("h2", "1 warning" if len(warnings) == 1 else f"{len(warnings)} warnings")
    return tag("section", title, _list("ul", warnings), class_="warnings")


def _facts(record: Mapping[str, Any], shape: tuple[int, ...], affine: np.ndarray) -> Html:
    """What a reader wants to know first."""
    spacing = _spacing_mm(affine)
    facts = {
        "Volume": f"{_times(shape)} voxels",
        "Voxel": f"{_times(spacing)} mm",
        "Field of view": f"{_times(shape * spacing)} mm",
        "Samples": record.get("samples", 1),
    }
    facts |= {f"Re-projection error, {view}": f"{e:.1%}" for view, e in record.get("reprojection_error", {}).items()}
    return tag("dl", *(tag("div", tag("dt", name), tag("dd", value)) for name, value in facts.items()), class_="facts")


def _radiographs(images: Mapping[str, np.ndarray]) -> Html:
    """For each view the film, the line integrals the network saw, those of the result, and their difference."""
    given = images["measured"].any(axis=(1, 2))
    difference = (images["reprojected"] - images["measured"]) * given[:, None, None]
    brightest = max(float(images["measured"].max()), 1e-6)
    spread = max(float(np.abs(difference).max()), 1e-6)
    shown = (
        ("network input", images["measured"], GREY, 0.0, brightest, "tile"),
        ("re-projection", images["reprojected"], GREY, 0.0, brightest, "tile"),
        ("difference", difference, SIGNED, -spread, spread, "tile light"),
    )
    rows = []
    for view, (name, edges) in enumerate(_EDGES.items()):
        if not given[view]:
            rows.append(tag("p", f"{name} radiograph: not given.".capitalize(), class_="note"))
            continue
        tiles = [
            _radiograph(f"{name} {what}", coloured(as_displayed(image[view]), scale, low, high), edges, kind)
            for what, image, scale, low, high, kind in shown
        ]
        if f"{name}_film" in images:
            tiles.insert(0, _radiograph(f"{name} film as read", _film(images[f"{name}_film"])))
        rows.append(tag("div", *tiles, class_="radiographs"))
    legends = (
        legend("Line integral", GREY, "0", f"{brightest:.3g}"),
        legend("Re-projection − input (line integral)", SIGNED, f"−{spread:.2g}", f"{spread:.2g}"),
    )
    return joined(*rows, tag("div", *legends, class_="legends"))


def _radiograph(words: str, pixels: np.ndarray, edges: Sequence[str] = (), kind: str = "tile") -> Html:
    marks = (tag("span", letter, class_=f"mark {side}") for side, letter in zip(("left", "right"), edges, strict=False))
    words = words.capitalize()
    return tag("figure", tag("div", picture(pixels, words), *marks, class_=kind), tag("figcaption", words))


def _film(pixels: np.ndarray) -> np.ndarray:
    """A film in grey from its darkest to its brightest percent, no larger than :data:`FILM_PIXELS`."""
    every = math.ceil(max(pixels.shape) / FILM_PIXELS)
    low, high = np.percentile(pixels, (1, 99))
    return coloured(pixels[::every, ::every], GREY, low, max(high, low + 1e-6))


def _tables(record: Mapping[str, Any]) -> Html:
    """Metrics, inputs, geometry and provenance, as far as the record has them."""
    metrics = {k: math.nan if v is None else float(f"{v:.4g}") for k, v in record.get("metrics", {}).items()}
    parts = {"Agreement with the truth": metrics}
    parts |= {f"{view} radiograph".capitalize(): facts for view, facts in record.get("inputs", {}).items()}
    parts |= {"Geometry": record.get("geometry", {}), "SHA-256 of the inputs": record.get("inputs_sha256", {})}
    parts |= {"Provenance": {key: value for key, value in record.items() if key not in _PLACED}}
    return joined(*(tag("section", tag("h2", title), _table(facts)) for title, facts in parts.items() if facts))


def _table(facts: Mapping[str, Any]) -> Html:
    rows = (tag("tr", tag("th", label, scope="row"), tag("td", value)) for label, value in _flat(facts))
    return tag("table", tag("tbody", *rows), class_="details")


def _flat(facts: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    """Names and values of a record and of the records in it."""
    for name, value in facts.items():
        label = above + (_label(name) if name.isidentifier() else name)
        if isinstance(value, Mapping):
            yield from _flat(value, f"{label}: ")
        elif name == "steps" and isinstance(value, Sequence):
            yield "Processing", _list("ol", value)
        else:
            yield label, _text(value)


def _label(name: str) -> str:
    """``source_to_detector_mm`` as "Source to detector (mm)"."""
    *words, last = name.split("_")
    unit = f" ({_UNITS[last]})" if words and last in _UNITS else ""
    label = " ".join(_SPELLINGS.get(word, word) for word in (words if unit else [*words, last]))
    return label[:1].upper() + label[1:] + unit


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return "–" if math.isnan(value) else f"{value:.6g}".replace("inf", "∞").replace("-", "−")
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(_text, value)) or "none"
    return "not stated" if value is None else str(value)


def _list(kind: str, texts: Sequence[str]) -> Html:
    return tag(kind, *(tag("li", text) for text in texts))


def _times(numbers: Sequence[float]) -> str:
    return " × ".join(f"{number:g}" for number in numbers)


def _spacing_mm(affine: np.ndarray) -> np.ndarray:
    return np.linalg.norm(affine[:3, :3], axis=0)


def _checked_affine(affine: np.ndarray) -> np.ndarray:
    affine = np.asarray(affine, dtype=float)
    if affine.shape != (4, 4) or not np.isfinite(affine).all():
        raise ValueError(f"affine must be [4, 4] and finite, got {affine.tolist()}; pass RAS voxel-to-mm")
    # Beyond 45 degrees, or mirrored, the letters at the edges of the slices would lie.
    if (np.diag(affine)[:3] <= _spacing_mm(affine) / math.sqrt(2)).any():
        raise ValueError(
            f"affine turns or mirrors the axes: {affine[:3, :3].tolist()}; reorder the volume to right, anterior, "
            "superior"
        )
    return affine


def _checked_images(images: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    arrays = {name: np.asarray(image, dtype=np.float32) for name, image in images.items()}
    shape = arrays["measured"].shape
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise ValueError(f"{name!r} holds {np.sum(~np.isfinite(array))} NaN or infinite values; pass finite ones")
        if name.endswith("_film"):
            if array.ndim != 2 or array.size == 0:
                raise ValueError(f"{name!r} must be [rows, columns], got {list(array.shape)}; pass one film")
        elif array.ndim != 3 or len(array) != 2 or array.shape != shape or array.size == 0:
            raise ValueError(
                f"{name!r} must be [2, N, N] as 'measured' ({list(shape)}), got {list(array.shape)}; pass the frontal "
                "and the lateral image"
            )
    return arrays
