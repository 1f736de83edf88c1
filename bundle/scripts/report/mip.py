"""The skeleton in maximum-intensity projections (MIP) along the directions of the two radiographs."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

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
