"""Skin, bone and metal of a volume in three dimensions.

This is a small ray caster: it resamples each volume along parallel rays, and finds each surface where a ray first meets
the surface's threshold. It needs numpy and scipy, no display and half a second per volume and view, and it blends
translucent surfaces exactly. Two libraries were tried at 64³ voxels, off-screen on the CPU. VTK (through PyVista) draws
bone as well, but no faster, and is 0.6 GB with OpenGL. Marching cubes (scikit-image) with matplotlib's
``Poly3DCollection`` is slower, shades flatly, and sorts triangles, which mixes up skin and bone.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.ndimage import affine_transform, gaussian_filter, map_coordinates

AIR_HU = -1000.0


class Surface(NamedTuple):
    """Surface at the first crossing of ``threshold_hu``, with an RGB colour and a highlight of strength ``gloss``."""

    threshold_hu: float
    colour: tuple[float, float, float]
    gloss: float


SKIN = Surface(-300.0, (0.93, 0.70, 0.58), 0.1)
BONE = Surface(200.0, (0.95, 0.89, 0.77), 0.15)
METAL = Surface(2500.0, (0.90, 0.08, 0.06), 0.3)


def render(hu: np.ndarray, spacing_mm: np.ndarray, degrees: float, pixels: int) -> np.ndarray:
    """Render a volume on white, RGB ``[rows, columns, 3]`` in [0, 1].

    Args:
        hu: the volume ``[U, V, W]``.
        spacing_mm: voxel spacing, ``[3]``.
        degrees: angle of the eye from the front of the patient towards the patient's left.
        pixels: pixels along the longest edge of the volume.
    """
    field, step = _along_rays(hu, spacing_mm, degrees, pixels)
    # Half a voxel of blur hides the grid of the interpolation; metal is not blurred, because blur hides thin metal.
    across = spacing_mm[:2].min()
    smooth = gaussian_filter(field, 0.5 * np.array([spacing_mm[2], across, across]) / step, truncate=2.5)
    skin, bone = (_first_hit(smooth, surface.threshold_hu) for surface in (SKIN, BONE))
    metal = _first_hit(field, METAL.threshold_hu)
    light = _lit(_normals(smooth, bone, step), BONE) * _depth_cue(bone, field.shape[2], step[2], pixels / 40)
    picture = _over(np.ones_like(light), light, np.isfinite(bone))
    picture = _over(picture, _lit(_normals(field, metal, step), METAL), np.isfinite(metal) * 0.8)
    normals = _normals(smooth, skin, step)
    grazing = 1 - np.abs(normals[..., 2])
    picture = _over(picture, _lit(normals, SKIN), np.isfinite(skin) * (0.2 + 0.5 * grazing**2))
    return picture.clip(0, 1)


def _along_rays(hu: np.ndarray, spacing_mm: np.ndarray, degrees: float, pixels: int) -> tuple[np.ndarray, np.ndarray]:
    """Resample a volume on ``[rows, columns, depth]``, down, right and away from the eye; also its steps in mm."""
    pixel = np.multiply(hu.shape, spacing_mm).max() / pixels
    step = np.array([pixel, pixel, min(2 * pixel, *spacing_mm[:2])])
    # Add air all around, so that every ray starts outside the body and every surface is closed.
    hu = np.pad(hu, 1, constant_values=AIR_HU)
    angle, size = np.deg2rad(degrees), hu.shape * spacing_mm
    turn = np.array([[-np.cos(angle), np.sin(angle)], [-np.sin(angle), -np.cos(angle)]])
    columns, depth = np.ceil(np.abs(turn.T) @ size[:2] / step[1:]).astype(int)
    # A view turns about w alone, so turn the slices, from superior to inferior, then interpolate rows between them.
    matrix = np.zeros((3, 3))
    matrix[2, 0], matrix[:2, 1:] = -1, turn * step[1:] / spacing_mm[:2, None]
    slices = hu.shape[2], columns, depth
    offset = (np.array(hu.shape) - 1 - matrix @ (np.array(slices) - 1)) / 2
    field = affine_transform(hu, matrix, offset, slices, order=1, cval=AIR_HU)
    at = np.arange(0, len(field) - 1, pixel / spacing_mm[2])
    share = (at % 1).astype(np.float32)[:, None, None]
    return field[at.astype(int)] * (1 - share) + field[at.astype(int) + 1] * share, step


def _first_hit(field: np.ndarray, threshold_hu: float) -> np.ndarray:
    """Return the depth in steps ``[rows, columns]`` where each ray first meets the threshold, or infinity."""
    inside = field >= threshold_hu
    after = inside.argmax(axis=2, keepdims=True).clip(1)
    high, low = (np.take_along_axis(field, at, axis=2) for at in (after, after - 1))
    depth = after - 1 + (threshold_hu - low) / np.where(high > low, high - low, 1.0)
    return np.where(inside.any(axis=2), depth[..., 0], np.inf)


def _normals(field: np.ndarray, depth: np.ndarray, step: np.ndarray) -> np.ndarray:
    """Return unit vectors ``[rows, columns, 3]`` that point out of a surface, zero where there is none."""
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
    """Return colours ``[rows, columns, 3]`` under a light from the eye's upper left (Blinn and Phong's model)."""
    light = np.array([-0.5, -0.45, -0.75])
    light /= np.linalg.norm(light)
    halfway = light + (0.0, 0.0, -1.0)
    halfway /= np.linalg.norm(halfway)
    diffuse, highlight = (normals @ light).clip(0), (normals @ halfway).clip(0) ** 24
    return (0.28 + 0.78 * diffuse[..., None]) * surface.colour + surface.gloss * highlight[..., None]


def _depth_cue(depth: np.ndarray, steps: int, step_mm: float, nearby: float) -> np.ndarray:
    """Darken what is far away, and what lies behind its surroundings: return factors ``[rows, columns, 1]``.

    Surroundings reach about ``nearby`` pixels.
    """
    depth_mm = depth.clip(max=steps) * step_mm
    behind_mm = depth_mm - gaussian_filter(depth_mm, nearby)
    far = depth_mm / (steps * step_mm)
    return ((1 - 0.35 * far) * (1 - 0.6 * (behind_mm / 60).clip(0, 1)))[..., None]


def _over(picture: np.ndarray, colour: np.ndarray, opacity: np.ndarray) -> np.ndarray:
    return picture + opacity[..., None] * (colour - picture)
