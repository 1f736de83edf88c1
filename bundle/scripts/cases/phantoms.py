"""Phantoms as scans, drawn instead of read from files."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scripts.cases.ct import CtVolume
from scripts.geometry import BiplanarGeometry
from scripts.io.options import require_number, require_whole
from scripts.phantom.torso import torso

PHANTOM_SIZE_MM = (450.0, 350.0, 450.0)
"""The phantom's field of view along (u, v, w): the whole trunk, cut at neck and thighs."""


@dataclass(frozen=True)
class PhantomScan:
    """Patient drawn by :func:`scripts.phantom.torso.torso`.

    Attributes:
        seed: seed of the patient.
        spacing_mm: voxel spacing.
        metal: whether the spine is instrumented.
        body_scale: factor on every length of the average adult; the field of view stays the same.
    """

    seed: int
    spacing_mm: float
    metal: bool
    body_scale: float = 1.0

    @property
    def name(self) -> str:
        """Case name, which includes the body scale."""
        return self.patient if self.body_scale == 1 else f"{self.patient}_x{self.body_scale:g}"

    @property
    def patient(self) -> str:
        """Patient ID, one per seed."""
        return f"phantom_{self.seed:05d}"

    @property
    def source(self) -> str:
        """Expression that reproduces the patient."""
        return f"torso(seed={self.seed}, metal={self.metal}), body scale {self.body_scale:g}"

    def read(self) -> CtVolume:
        """Draw the patient, with tissue labels."""
        u, v, w = (round(size / self.spacing_mm) for size in PHANTOM_SIZE_MM)
        shape = (u, v, w)
        phantom = torso(self.seed, shape, self.spacing_mm / self.body_scale, self.metal)
        grid = BiplanarGeometry(math.inf, math.inf, 1, 1.0, shape, self.spacing_mm)
        return CtVolume(phantom.hu.numpy(), grid.volume_affine(), phantom.labels.numpy())

    def sha256(self) -> str:
        """Return an empty text, since there is no file."""
        return ""


def phantom_scans(
    count: int, first_seed: int, spacing_mm: float, metal_fraction: float, body_scale: float = 1.0
) -> list[PhantomScan]:
    """Return phantoms of consecutive seeds; every 1 / ``metal_fraction``-th seed has metal, whatever the first seed.

    Raises:
        ValueError: an argument is not a number, the count is below 1, the fraction outside [0, 1], the scale outside
            [0.3, 1.3], or the seeds belong to training.
    """
    require_whole(count=count, first_seed=first_seed)
    require_number(metal_fraction=metal_fraction, body_scale=body_scale)
    if count < 1 or not 0 <= metal_fraction <= 1:
        raise ValueError(f"phantoms: need count >= 1 and 0 <= metal_fraction <= 1, got {count} and {metal_fraction}")
    if not 0 <= first_seed <= 2**31 - count:
        raise ValueError(
            f"phantoms: seeds must be 0 to 2**31 - 1, since training uses the others, got {count} seeds from "
            f"{first_seed} on; choose a smaller first_seed"
        )
    if not 0.3 <= body_scale <= 1.3:
        raise ValueError(f"phantoms: need 0.3 <= body_scale <= 1.3, an infant to a giant, got {body_scale}")
    return [
        PhantomScan(seed, spacing_mm, has_metal(seed, metal_fraction), body_scale)
        for seed in range(first_seed, first_seed + count)
    ]


def has_metal(seed: int, fraction: float) -> bool:
    """Return whether the patient of this seed belongs to the ``fraction`` with spinal implants."""
    return math.floor((seed + 1) * fraction) > math.floor(seed * fraction)
