"""Bone: a cortical shell about spongy bone, of one patient's density."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from scripts.phantom.canvas import Canvas, Label
from scripts.phantom.draw import Draw


@dataclass(frozen=True)
class Bone:
    """Density of a skeleton.

    Attributes:
        cortical_hu: of the shell.
        spongy_hu: of what it encloses.
        thickness: of the shell, relative to the average adult's.
    """

    cortical_hu: float
    spongy_hu: float
    thickness: float

    @classmethod
    def drawn(cls, draw: Draw, age_years: float, wide: bool) -> Bone:
        """Bone that thins with age, from dense to osteoporotic; a `wide` one is denser or thinner than any."""
        loss = (age_years - 20) / 70
        factor = draw.uniform(0.6, 1.6) if wide else 1.0
        return cls(
            cortical_hu=factor * (draw.uniform(610, 1110) - 120 * loss),
            spongy_hu=factor * (draw.uniform(190, 320) - draw.uniform(40, 150) * loss),
            thickness=draw.uniform(0.85, 1.35) - 0.3 * loss,
        )

    def paint(self, canvas: Canvas, distance: Tensor, label: Label, shell_mm: float = 1.3) -> None:
        """Paint a shell of `shell_mm` in the average adult, and its filling."""
        self.paint_filled(canvas, distance, distance + shell_mm * self.thickness, label)

    def paint_filled(self, canvas: Canvas, distance: Tensor, inner: Tensor, label: Label) -> None:
        """Paint bone with its spongy part where `inner` is negative."""
        canvas.paint(distance, self.cortical_hu, label)
        # In a voxel that holds background, shell and filling, the filling takes the place of the shell alone.
        canvas.hu.add_(canvas.cover(inner).mul_(self.spongy_hu - self.cortical_hu))
