"""Segmentation of the patient's body, without table, clothes and padding."""

from __future__ import annotations

import numpy as np
from monai.transforms.utils import get_largest_connected_component_mask
from scipy.ndimage import binary_fill_holes
from skimage.morphology import isotropic_closing, isotropic_opening

TISSUE_ABOVE_HU = -400.0
"""Threshold between lung (about -800) and fat (about -100); foam and blankets lie below."""
OPENING_RADIUS_MM = 6.0
"""Radius of the opening: objects thinner than twice this (table shells, tubes, wires) separate from the body."""
CLOSING_RADIUS_MM = 15.0
"""Radius of the closing of gaps: the opening breaks thin chest walls, through which the lungs would leak out."""
MIN_BODY_LITRES = 0.5
"""Smallest volume of tissue that can be a trunk."""


def body_mask(hu: np.ndarray, spacing_mm: float, name: str = "CT") -> np.ndarray:
    """Return the mask of the patient in a CT: the largest piece of tissue with everything inside, including lungs.

    The image border never counts as outside, so a body cut by the field of view is not eroded there.

    Args:
        hu: ``[U, V, W]`` in RAS+ order, isotropic.
        spacing_mm: voxel spacing.
        name: name of the CT, for messages.

    Returns:
        Boolean mask ``[U, V, W]``.

    Raises:
        ValueError: there is no piece of tissue as large as a trunk.
    """
    tissue = isotropic_opening(hu > TISSUE_ABOVE_HU, OPENING_RADIUS_MM, spacing=spacing_mm)
    body = get_largest_connected_component_mask(tissue, connectivity=1).astype(bool)
    litres = body.sum() * spacing_mm**3 / 1e6
    if litres < MIN_BODY_LITRES:
        raise ValueError(
            f"{name}: no body found: the largest piece of tissue above {TISSUE_ABOVE_HU:g} HU has {litres:.2f} litres, "
            f"expected at least {MIN_BODY_LITRES}; check the spacing and the HU"
        )
    return _solid(body, spacing_mm)


def bounding_box(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the first index and one past the last index, each ``[3]``, of the true voxels of a non-empty mask."""
    spans = [np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    return np.array([s[0] for s in spans]), np.array([s[-1] + 1 for s in spans])


def _solid(body: np.ndarray, spacing_mm: float) -> np.ndarray:
    """Close gaps in the body and fill everything inside."""
    low, high = bounding_box(body)
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    room = int(np.ceil(CLOSING_RADIUS_MM / spacing_mm)) + 1
    closed = isotropic_closing(np.pad(body[box], room), CLOSING_RADIUS_MM, spacing=spacing_mm)
    axial = _fill_slices(closed[room:-room, room:-room, room:-room], axis=2)
    solid = np.zeros_like(body)
    solid[box] = _fill_slices(axial, axis=0)  # sagittal: closes a lung cut open by the side of the field of view
    return solid


def _fill_slices(mask: np.ndarray, axis: int) -> np.ndarray:
    return np.stack([binary_fill_holes(plane) for plane in np.moveaxis(mask, axis, 0)], axis=axis)
