"""The skeleton in maximum-intensity projections (MIP) along the directions of the two radiographs."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from scripts.report.planes import as_displayed

BONE_WINDOW = (100.0, 700.0)
"""HU from black to white: soft tissue is black, and a rib still shows in voxels of 5 mm that are only partly bone."""


class Projection(NamedTuple):
    """A line of sight: the axis it runs along, the axes across and up the picture, and the letter at the left edge."""

    name: str
    along: int
    across: int
    up: int
    left: str

    def of(self, volume: np.ndarray) -> np.ndarray:
        """Return the largest value ``[across, up]`` on every line of sight through ``volume`` ``[U, V, W]``."""
        return volume.max(axis=self.along)


PROJECTIONS = (Projection("frontal", 1, 0, 2, "R"), Projection("lateral", 0, 1, 2, "A"))


def skeleton_pictures(hu: np.ndarray) -> dict[str, np.ndarray]:
    """Return the skeleton of a volume ``[U, V, W]`` in HU as grey bytes ``[rows, columns]`` by view, superior up."""
    low, high = BONE_WINDOW
    grey = {view.name: (as_displayed(view.of(hu)) - low) / (high - low) * 255 for view in PROJECTIONS}
    return {name: np.rint(values.clip(0, 255)).astype(np.uint8) for name, values in grey.items()}
