"""Conversion of one CT to one case: the body, the standard volume around its centre, and two radiographs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import torch

from scripts.cases.body import body_mask, bounding_box
from scripts.cases.ct import CtVolume
from scripts.cases.resample import block_mean, cut, grid_affine, isotropic_grid, resample_hu, resample_labels
from scripts.geometry import BiplanarGeometry
from scripts.intensity import AIR_HU, hu_to_mu
from scripts.io.case import Volume
from scripts.io.options import require_number
from scripts.physics.separable import SeparableProjector

PADDING_BELOW_HU = -1024.0
"""HU of air; lower values mark voxels outside the scanner's field of view."""
MASK_SPACING_MM = 2.5
"""Spacing at which the body is segmented: fine enough for skin, coarse enough to be fast."""
SOURCE_MARGIN_MM = 10.0
"""Margin of air around the body in the source volume."""
SOURCE_SIZE_CAP_MM = 450.0
"""Largest side of the source volume."""


class PreparedVolume(NamedTuple):
    """Result of :func:`prepare_volume`."""

    ct: Volume
    source: Volume
    line_integrals: np.ndarray
    labels: Volume | None


@dataclass(frozen=True)
class Settings:
    """Settings shared by all cases of one output folder.

    Attributes:
        geometry: the exam to simulate; its volume is the standard volume.
        source_spacing_mm: isotropic spacing of the whole-body source volume.

    Raises:
        ValueError: the spacing is not positive.
    """

    geometry: BiplanarGeometry
    source_spacing_mm: float

    def __post_init__(self) -> None:
        require_number(source_spacing_mm=self.source_spacing_mm)
        if not self.source_spacing_mm > 0:
            raise ValueError(f"source_spacing_mm must be positive, got {self.source_spacing_mm!r}")

    def to_dict(self) -> dict[str, Any]:
        """Return a flat, JSON-ready dictionary with one entry per setting."""
        return {**json.loads(self.geometry.to_json()), "source_spacing_mm": self.source_spacing_mm}


def prepare_volume(ct: CtVolume, settings: Settings, name: str = "CT") -> PreparedVolume:
    """Isolate the body, cut out the standard volume around its centre and project it.

    The standard volume is centred on the bounding box of the body, to within half a source voxel. Everything outside
    the body and the data becomes air. HU are never clipped, so that metal shows in the radiographs.

    Args:
        ct: the CT, in any orientation.
        settings: geometry and source spacing.
        name: name of the CT, for messages.

    Returns:
        ``ct`` of the geometry's shape and ``source``, both int16 HU, RAS+; ``line_integrals``
        ``[2, N, N]`` float32 of ``ct``; ``labels`` on the grid of ``ct`` if the CT has them.

    Raises:
        ValueError: there is no body in the CT.
    """
    spacing_mm = settings.source_spacing_mm
    unpadded = np.where(ct.hu < PADDING_BELOW_HU, np.float32(AIR_HU), ct.hu)
    shape, affine = isotropic_grid(ct.hu.shape, ct.affine, spacing_mm)
    hu = resample_hu(unpadded, ct.affine, shape, affine)
    mask = _mask(hu, affine, name)
    body = np.where(mask, hu, np.float32(AIR_HU))
    low, high = bounding_box(mask)
    standard = _standard_volume(body, affine, (low + high) / 2, settings)
    labels = None
    if ct.labels is not None:
        grid = (settings.geometry.volume_shape, standard.affine)
        labels = Volume(resample_labels(ct.labels, ct.affine, *grid), standard.affine)
    source = _source_volume(body, affine, low, high, spacing_mm)
    return PreparedVolume(standard, source, radiographs(standard.voxels, settings), labels)


def radiographs(hu: np.ndarray, settings: Settings) -> np.ndarray:
    """Return line integrals ``[2, N, N]`` float32 of a standard volume ``[U, V, W]`` in HU."""
    mu = hu_to_mu(torch.as_tensor(hu, dtype=torch.float32))
    return SeparableProjector(settings.geometry)(mu[None, None])[0].numpy()


def _mask(hu: np.ndarray, affine: np.ndarray, name: str) -> np.ndarray:
    """Return the body mask on the grid of ``hu``, segmented at a fixed spacing to be independent of it."""
    shape, mask_affine = isotropic_grid(hu.shape, affine, MASK_SPACING_MM)
    mask = body_mask(resample_hu(hu, affine, shape, mask_affine), MASK_SPACING_MM, name)
    return resample_labels(mask, mask_affine, hu.shape, affine) > 0


def _standard_volume(body: np.ndarray, affine: np.ndarray, centre: np.ndarray, settings: Settings) -> Volume:
    """Return the geometry's volume around ``centre``, which is given in voxel edges of ``body``."""
    geometry = settings.geometry
    ratio = geometry.volume_spacing_mm / settings.source_spacing_mm
    factor = round(ratio)
    if factor < 1 or abs(ratio - factor) > 1e-6:
        centre_mm = nib.affines.apply_affine(affine, centre - 0.5)
        grid = grid_affine(centre_mm, geometry.volume_shape, geometry.volume_spacing_mm)
        return Volume(_to_int16(resample_hu(body, affine, geometry.volume_shape, grid)), grid)
    fine_shape = np.array(geometry.volume_shape) * factor
    start = np.floor(centre - fine_shape / 2).astype(int)
    centre_mm = nib.affines.apply_affine(affine, start + fine_shape / 2 - 0.5)
    grid = grid_affine(centre_mm, geometry.volume_shape, geometry.volume_spacing_mm)
    return Volume(_to_int16(block_mean(cut(body, start, fine_shape), factor)), grid)


def _source_volume(
    body: np.ndarray, affine: np.ndarray, low: np.ndarray, high: np.ndarray, spacing_mm: float
) -> Volume:
    """Return the body with a margin, with sides up to the limit."""
    margin, cap = round(SOURCE_MARGIN_MM / spacing_mm), int(SOURCE_SIZE_CAP_MM / spacing_mm)
    shape = np.minimum(high - low + 2 * margin, cap)
    start = (low + high - shape) // 2
    centre_mm = nib.affines.apply_affine(affine, start + shape / 2 - 0.5)
    return Volume(_to_int16(cut(body, start, shape)), grid_affine(centre_mm, shape, spacing_mm))


def _to_int16(hu: np.ndarray) -> np.ndarray:
    limits = np.iinfo(np.int16)
    return np.rint(hu).clip(limits.min, limits.max).astype(np.int16)
