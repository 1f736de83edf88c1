"""Skin, bone and metal of several volumes in three dimensions, beside each other.

This is a small ray caster: it resamples each volume along parallel rays, and finds each surface where a ray first meets
the surface's threshold. It needs numpy and scipy, no display and half a second per volume and view, and it blends
translucent surfaces exactly. Two libraries were tried at 64³ voxels, off-screen on the CPU. VTK (through PyVista) draws
bone as well, but no faster, and is 0.6 GB with OpenGL. Marching cubes (scikit-image) with matplotlib's
``Poly3DCollection`` is slower, shades flatly, and sorts triangles, which mixes up skin and bone.

Networks yield at most 1500 HU, which is below the threshold of metal: only true CTs show metal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.ndimage import affine_transform, gaussian_filter, map_coordinates

from scripts.report.checks import checked_spacing, checked_volumes
from scripts.report.grid import Tile, grid
from scripts.report.saving import save_whole
from scripts.report.sheet import NOTICE, mark

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
EDGE = 1.7
"""Inches of the longest edge of a volume."""


def draw_rendering(path: str | Path, volumes: Mapping[str, np.ndarray], spacing_mm: float | Sequence[float]) -> None:
    """Save a picture with a column per volume and a row per view.

    Superior is up; the patient's right is on the left. Skin is translucent, and metal shines through bone. All volumes
    have the same scale in mm. A volume that lacks a surface is drawn without it.

    Args:
        path: file to write, PNG, PDF or SVG by its suffix; it appears whole or not at all.
        volumes: ``[U, V, W]`` in HU, by the name that stands above.
        spacing_mm: voxel spacing, one number or three (u, v, w).

    Raises:
        ValueError: a suffix, shape, value or spacing cannot be drawn.
    """
    save_whole(rendering(volumes, spacing_mm), path)


def rendering(volumes: Mapping[str, np.ndarray], spacing_mm: float | Sequence[float]) -> Figure:
    """Return the figure of :func:`draw_rendering`; axes have labels such as ``"oblique, truth"``."""
    volumes, spacing = checked_volumes(volumes), checked_spacing(spacing_mm)
    columns: dict[str, dict[str, Tile]] = {name: {} for name in volumes}
    for view, degrees in VIEWS.items():
        pictures = _trimmed([render(hu, spacing, degrees) for hu in volumes.values()])
        for tiles, picture in zip(columns.values(), pictures, strict=True):
            tiles[view] = _tile(picture)
    key = (
        f"Skin (translucent): −{-SKIN.threshold_hu:g} HU. Bone: {BONE.threshold_hu:g} HU. Metal (red): "
        f"{METAL.threshold_hu:g} HU, more than a reconstruction can reach. R: patient's right."
    )
    return grid(columns, [key, NOTICE])


def _tile(picture: np.ndarray) -> Tile:
    height, width = np.array(picture.shape[:2]) * EDGE / PIXELS
    return Tile(width, height, partial(_draw, picture=picture))


def _draw(axes: Axes, picture: np.ndarray) -> None:
    axes.imshow(picture, aspect="auto")
    axes.set_axis_off()
    mark(axes, 0.03, 0.5, "R", "black", "white")


def render(hu: np.ndarray, spacing: np.ndarray, degrees: float) -> np.ndarray:
    """Render a volume on white, RGB ``[rows, columns, 3]`` in [0, 1].

    Args:
        hu: the volume ``[U, V, W]``.
        spacing: of its voxels in mm, ``[3]``.
        degrees: by which the eye moves from the front of the patient to the patient's left.
    """
    field, step = _along_rays(hu, spacing, degrees)
    # Half a voxel of blur hides the grid of the interpolation; metal is not blurred, because blur hides thin metal.
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
    # A view turns about w alone, so turn the slices, from superior to inferior, then interpolate rows between them.
    matrix = np.zeros((3, 3))
    matrix[2, 0], matrix[:2, 1:] = -1, turn * step[1:] / spacing[:2, None]
    slices = hu.shape[2], columns, depth
    offset = (np.array(hu.shape) - 1 - matrix @ (np.array(slices) - 1)) / 2
    field = affine_transform(hu, matrix, offset, slices, order=1, cval=AIR_HU)
    at = np.arange(0, len(field) - 1, pixel / spacing[2])
    share = (at % 1).astype(np.float32)[:, None, None]
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
