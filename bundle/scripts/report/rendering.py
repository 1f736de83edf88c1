"""Skin, bone and metal of several volumes in three dimensions, beside each other.

A small ray caster of our own: each volume is resampled along parallel rays, and each surface lies where a ray first
meets its threshold. Tried beside it, off-screen on the CPU at 64³: VTK (through PyVista) draws bone as well, but no
faster, and is 0.6 GB with OpenGL for one picture; marching cubes (scikit-image) with matplotlib's ``Poly3DCollection``
need nothing new, but are slower and shaded flat, and sort triangles, which mixes up translucent skin and bone. The rays
need numpy and scipy, no display and half a second per volume and view, and blend exactly.

Networks yield at most 1500 HU, below the threshold of metal: metal shows in a true CT, never in a reconstruction.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from scipy.ndimage import affine_transform, gaussian_filter, map_coordinates

from scripts.report.panel import (
    NOTICE,
    Sheet,
    checked_spacing,
    checked_suffix,
    checked_volumes,
    mark,
    save_whole,
    wrapped,
)

AIR_HU = -1000.0


class Surface(NamedTuple):
    """Where a ray first meets ``threshold_hu``, in an RGB colour with a highlight as strong as ``gloss``."""

    threshold_hu: float
    colour: tuple[float, float, float]
    gloss: float


SKIN = Surface(-300.0, (0.93, 0.70, 0.58), 0.1)
BONE = Surface(200.0, (0.95, 0.89, 0.77), 0.15)
METAL = Surface(2500.0, (0.90, 0.08, 0.06), 0.3)
VIEWS = {"frontal": 0.0, "oblique": 40.0}
"""Degrees by which the eye moves from the front of the patient to the patient's left."""
PIXELS = 256
"""Pixels along the longest edge of a volume."""

COLUMNS = 7
"""Volumes side by side; more start a new band."""

# Inches: the longest edge of a volume, the white between pictures, and a line of text.
TILE, GAP, LINE = 1.7, 0.12, 0.16


def draw_rendering(path: str | Path, volumes: Mapping[str, np.ndarray], spacing_mm: float | Sequence[float]) -> None:
    """Save a picture with a column per volume and a row per view, as PNG, PDF or SVG by the suffix of ``path``.

    Superior is up; the patient's right is on the left. Skin is translucent, and metal shines through bone. All
    volumes have the same scale in mm. A surface that a volume lacks is left out.

    Args:
        path: file to write; it appears whole or not at all.
        volumes: ``[U, V, W]`` in HU, by the name that stands above.
        spacing_mm: voxel spacing, one number or three (u, v, w).

    Raises:
        ValueError: a suffix, shape, value or spacing that cannot be drawn.
    """
    path = checked_suffix(path)
    save_whole(rendering(volumes, spacing_mm), path)


def rendering(volumes: Mapping[str, np.ndarray], spacing_mm: float | Sequence[float]) -> Figure:
    """The figure of :func:`draw_rendering`; the label of each axes tells what it shows, e.g. ``"oblique, truth"``."""
    if not volumes:
        raise ValueError(f"a rendering needs at least one volume, got {volumes!r}; pass {{name: volume}}")
    volumes, spacing = checked_volumes(volumes), checked_spacing(spacing_mm)
    views = [_trimmed([render(hu, spacing, degrees) for hu in volumes.values()]) for degrees in VIEWS.values()]
    heads = [wrapped(name) for name in volumes]
    bands = -(-len(heads) // COLUMNS)
    columns = -(-len(heads) // bands)
    inch, head = TILE / PIXELS, (1.5 + max(head.count("\n") for head in heads)) * LINE
    height, column = views[0][0].shape[0] * inch, max(TILE, *(row[0].shape[1] * inch for row in views))
    width, band = 2 * LINE + columns * (column + GAP), head + len(views) * (height + GAP)
    key = (
        f"Skin (translucent): {SKIN.threshold_hu:g} HU. Bone: {BONE.threshold_hu:g} HU. Metal (red): "
        f"{METAL.threshold_hu:g} HU, more than a reconstruction can reach. R: patient's right."
    )
    notes = textwrap.wrap(key, int(18 * width)) + textwrap.wrap(NOTICE, int(18 * width))
    sheet = Sheet(width, bands * band + (len(notes) + 0.5) * LINE)
    sheet.text(LINE, bands * band, "\n".join(notes), 7, ha="left", va="top")
    for i, name in enumerate(volumes):
        top, middle = i // columns * band + head, 2 * LINE + i % columns * (column + GAP) + column / 2
        sheet.text(middle, top - LINE / 4, heads[i], 9)
        for row, (view, pictures) in enumerate(zip(VIEWS, views, strict=True)):
            y, across = top + row * (height + GAP), pictures[i].shape[1] * inch
            axes = sheet.axes(middle - across / 2, y, across, height, f"{view}, {name}")
            axes.imshow(pictures[i], aspect="auto")
            axes.set_axis_off()
            mark(axes, 0.03, 0.5, "R", "black", "white")
            if i % columns == 0:
                sheet.text(1.5 * LINE, y + height / 2, view, 9, rotation=90, ha="right", va="center")
    return sheet.figure


def render(hu: np.ndarray, spacing: np.ndarray, degrees: float) -> np.ndarray:
    """A volume ``[U, V, W]`` seen from ``degrees`` to the left of its front, on white: RGB ``[rows, columns, 3]``."""
    field, step = _along_rays(hu, spacing, degrees)
    # Half a voxel of blur hides the grid of the interpolation. It would hide thin metal too, which therefore has none.
    across = spacing[:2].min()
    smooth = gaussian_filter(field, 0.5 * np.array([spacing[2], across, across]) / step, truncate=2.5)
    skin, bone = (_first_hit(smooth, surface.threshold_hu) for surface in (SKIN, BONE))
    metal = _first_hit(field, METAL.threshold_hu)
    light = _lit(_normals(smooth, bone, step), BONE) * _depth_cue(bone, field.shape[2], step[2])
    picture = _over(np.ones_like(light), light, np.isfinite(bone))
    picture = _over(picture, _lit(_normals(field, metal, step), METAL), np.isfinite(metal) * 0.8)
    normals = _normals(smooth, skin, step)
    grazing = 1 - np.abs(normals[..., 2])
    picture = _over(picture, _lit(normals, SKIN), np.isfinite(skin) * (0.2 + 0.5 * grazing**2))
    return picture.clip(0, 1)


def _along_rays(hu: np.ndarray, spacing: np.ndarray, degrees: float) -> tuple[np.ndarray, np.ndarray]:
    """The volume resampled on ``[rows, columns, depth]``, down, right and away from the eye, and its steps in mm."""
    pixel = (hu.shape * spacing).max() / PIXELS
    step = np.array([pixel, pixel, min(2 * pixel, *spacing[:2])])
    # Air all around, so that every ray starts outside the body and every surface is closed.
    hu = np.pad(hu, 1, constant_values=AIR_HU)
    angle, size = np.deg2rad(degrees), hu.shape * spacing
    turn = np.array([[-np.cos(angle), np.sin(angle)], [-np.sin(angle), -np.cos(angle)]])
    columns, depth = np.ceil(np.abs(turn.T) @ size[:2] / step[1:]).astype(int)
    # A view turns about w alone: the slices, from superior to inferior, are turned first, then rows put between them.
    matrix = np.zeros((3, 3))
    matrix[2, 0], matrix[:2, 1:] = -1, turn * step[1:] / spacing[:2, None]
    slices = hu.shape[2], columns, depth
    offset = (np.array(hu.shape) - 1 - matrix @ (np.array(slices) - 1)) / 2
    field = affine_transform(hu, matrix, offset, slices, order=1, cval=AIR_HU)
    at = np.arange(0, len(field) - 1, pixel / spacing[2])
    share = np.float32(at % 1)[:, None, None]
    return field[at.astype(int)] * (1 - share) + field[at.astype(int) + 1] * share, step


def _first_hit(field: np.ndarray, threshold_hu: float) -> np.ndarray:
    """Depth in steps ``[rows, columns]`` where each ray first meets the threshold; infinite where it never does."""
    inside = field >= threshold_hu
    after = inside.argmax(axis=2, keepdims=True).clip(1)
    high, low = (np.take_along_axis(field, at, axis=2) for at in (after, after - 1))
    depth = after - 1 + (threshold_hu - low) / np.where(high > low, high - low, 1.0)
    return np.where(inside.any(axis=2), depth[..., 0], np.inf)


def _normals(field: np.ndarray, depth: np.ndarray, step: np.ndarray) -> np.ndarray:
    """Unit vectors ``[rows, columns, 3]`` that point out of a surface; zero where there is none."""
    hit = np.isfinite(depth)
    at = np.array([*np.nonzero(hit), depth[hit]])
    ahead, behind = (
        [map_coordinates(field, at + sign * axis[:, None], order=1, mode="nearest") for axis in np.eye(3)]
        for sign in (1, -1)
    )
    outwards = np.subtract(behind, ahead).T / step
    normals = np.zeros((*depth.shape, 3))
    normals[hit] = outwards / np.linalg.norm(outwards, axis=1, keepdims=True).clip(1e-6)
    return normals


def _lit(normals: np.ndarray, surface: Surface) -> np.ndarray:
    """Colours ``[rows, columns, 3]`` under a light from the eye's upper left (Blinn and Phong's model)."""
    light = np.array([-0.5, -0.45, -0.75])
    light /= np.linalg.norm(light)
    halfway = light + (0.0, 0.0, -1.0)
    halfway /= np.linalg.norm(halfway)
    diffuse, highlight = (normals @ light).clip(0), (normals @ halfway).clip(0) ** 24
    return (0.28 + 0.78 * diffuse[..., None]) * surface.colour + surface.gloss * highlight[..., None]


def _depth_cue(depth: np.ndarray, steps: int, step_mm: float) -> np.ndarray:
    """Factors ``[rows, columns, 1]`` that darken what is far away, and what lies behind something near it."""
    depth_mm = depth.clip(max=steps) * step_mm
    behind_mm = depth_mm - gaussian_filter(depth_mm, PIXELS / 40)
    far = depth_mm / (steps * step_mm)
    return ((1 - 0.35 * far) * (1 - 0.6 * (behind_mm / 60).clip(0, 1)))[..., None]


def _over(picture: np.ndarray, colour: np.ndarray, opacity: np.ndarray) -> np.ndarray:
    return picture + opacity[..., None] * (colour - picture)


def _trimmed(pictures: list[np.ndarray]) -> list[np.ndarray]:
    """The pictures without the columns that are white in all of them."""
    used = np.flatnonzero((np.array(pictures) < 1).any(axis=(0, 1, 3)))
    return [picture[:, used[0] : used[-1] + 1] for picture in pictures] if len(used) else pictures
