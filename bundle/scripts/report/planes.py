"""The planes shown in pictures, their orientation on the screen, and their HU windows."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

HU_WINDOW = (-1000.0, 600.0)
"""HU from black to white in every picture file; on a page, readers choose the window."""
ERROR_HU = 500.0
"""Error maps span ±ERROR_HU everywhere, so that readers can compare them."""


class Plane(NamedTuple):
    """A direction of cut: the axis it cuts, the axes across and up the picture, and the letter at the left edge."""

    name: str
    cut: int
    across: int
    up: int
    left: str

    def of(self, volume: np.ndarray) -> np.ndarray:
        """Return the plane ``[across, up]`` through the centre of ``volume`` ``[U, V, W]``."""
        return volume.take(volume.shape[self.cut] // 2, axis=self.cut)


PLANES = (Plane("axial", 2, 0, 1, "R"), Plane("sagittal", 0, 1, 2, "A"), Plane("coronal", 1, 0, 2, "R"))


def as_displayed(plane: np.ndarray) -> np.ndarray:
    """Turn a plane or radiograph ``[a, b]`` into rows and columns: b runs upwards, a from right to left."""
    return plane.T[::-1, ::-1]
