"""The skeleton at a glance: maximum-intensity projections (MIP) along the directions of the two radiographs."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

BONE_WINDOW = (100.0, 700.0)
"""HU from black to white: soft tissue is black, and a rib of one voxel of 5 mm, which is bone in part, still shows."""


class Projection(NamedTuple):
    """A direction of view: the axis looked along, the axes across and up the picture, and its left edge's letter."""

    name: str
    along: int
    across: int
    up: int
    left: str

    def of(self, volume: np.ndarray) -> np.ndarray:
        """The largest value on every line of sight through ``volume`` ``[U, V, W]``, in parallel, ``[across, up]``."""
        return volume.max(axis=self.along)


PROJECTIONS = (Projection("frontal", 1, 0, 2, "R"), Projection("lateral", 0, 1, 2, "A"))
