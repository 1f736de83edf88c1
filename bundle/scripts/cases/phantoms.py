"""Phantoms as scans: patients that are drawn, not read from files."""

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
    """A patient drawn by :func:`scripts.phantom.torso.torso`.

    Attributes:
        seed: determines the patient.
        spacing_mm: voxel spacing.
        metal: whether the spine is instrumented.
        body_scale: factor on every length of the average adult; the field of view stays.
    """

    seed: int
    spacing_mm: float
    metal: bool
    body_scale: float = 1.0

    @property
    def name(self) -> str:
        """Case name; a patient of another size is another case."""
        return self.patient if self.body_scale == 1 else f"{self.patient}_x{self.body_scale:g}"

    @property
    def patient(self) -> str:
        """Every seed is another patient."""
        return f"phantom_{self.seed:05d}"

    @property
    def source(self) -> str:
        """How to make it again."""
        return f"torso(seed={self.seed}, metal={self.metal}), body scale {self.body_scale:g}"

    def read(self) -> CtVolume:
        """Draw the patient, with tissue labels."""
        u, v, w = (round(size / self.spacing_mm) for size in PHANTOM_SIZE_MM)
        shape = (u, v, w)
        phantom = torso(self.seed, shape, self.spacing_mm / self.body_scale, self.metal)
        grid = BiplanarGeometry(math.inf, math.inf, 1, 1.0, shape, self.spacing_mm)
        return CtVolume(phantom.hu.numpy(), grid.volume_affine(), phantom.labels.numpy())

    def sha256(self) -> str:
        """Empty: there is no file."""
        return ""


def phantom_scans(
    count: int, first_seed: int, spacing_mm: float, metal_fraction: float, body_scale: float = 1.0
) -> list[PhantomScan]:
    """Phantoms of consecutive seeds; every 1 / ``metal_fraction``-th seed has metal, whatever the first seed.

    Raises:
        ValueError: no numbers, a count below 1, a fraction outside [0, 1], seeds that belong to training, or a scale
            outside [0.3, 1.3].
    """
    require_whole(count=count, first_seed=first_seed)
    require_number(metal_fraction=metal_fraction, body_scale=body_scale)
    if count < 1 or not 0 <= metal_fraction <= 1:
        raise ValueError(f"phantoms: need count >= 1 and 0 <= metal_fraction <= 1, got {count} and {metal_fraction}")
    if not 0 <= first_seed <= 2**31 - count:
        raise ValueError(
            f"phantoms: the seeds of prepared ones are 0 to 2**31 - 1, and training draws the others, got {count} from "
            f"{first_seed} on; choose a smaller first_seed"
        )
    if not 0.3 <= body_scale <= 1.3:
        raise ValueError(f"phantoms: need 0.3 <= body_scale <= 1.3, an infant to a giant, got {body_scale}")
    return [
        PhantomScan(seed, spacing_mm, has_metal(seed, metal_fraction), body_scale)
        for seed in range(first_seed, first_seed + count)
    ]


def has_metal(seed: int, fraction: float) -> bool:
    """Whether the patient of this seed is one of the ``fraction`` of all with spinal implants."""
    return math.floor((seed + 1) * fraction) > math.floor(seed * fraction)
