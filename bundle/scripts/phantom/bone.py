"""Bone: a cortical shell around spongy bone, with one patient's density."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from scripts.phantom.canvas import Canvas, Label
from scripts.phantom.draw import Draw


@dataclass(frozen=True)
class Bone:
    """Density of a skeleton.

    Attributes:
        cortical_hu: HU of the shell.
        spongy_hu: HU of the bone inside it.
        thickness: thickness of the shell, relative to the average adult.
    """

    cortical_hu: float
    spongy_hu: float
    thickness: float

    @classmethod
    def drawn(cls, draw: Draw, age_years: float, wide: bool) -> Bone:
        """Draw bone that thins with age, from dense to osteoporotic; `wide` bone exceeds any patient's range."""
        loss = (age_years - 20) / 70
        factor = draw.uniform(0.6, 1.6) if wide else 1.0
        return cls(
            cortical_hu=factor * (draw.uniform(610, 1110) - 120 * loss),
            spongy_hu=factor * (draw.uniform(190, 320) - draw.uniform(40, 150) * loss),
            thickness=draw.uniform(0.85, 1.35) - 0.3 * loss,
        )

    def paint(self, canvas: Canvas, distance: Tensor, label: Label, shell_mm: float = 1.3) -> None:
        """Paint a shell, `shell_mm` thick in the average adult, and its filling."""
        self.paint_filled(canvas, distance, distance + shell_mm * self.thickness, label)

    def paint_filled(self, canvas: Canvas, distance: Tensor, inner: Tensor, label: Label) -> None:
        """Paint bone with its spongy part where `inner` is negative."""
        canvas.paint(distance, self.cortical_hu, label)
        # In a voxel that holds background, shell and filling, the filling replaces only the shell.
        canvas.hu.add_(canvas.cover(inner).mul_(self.spongy_hu - self.cortical_hu))
