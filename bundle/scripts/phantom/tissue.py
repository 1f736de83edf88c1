"""Hounsfield units of one patient's soft tissues, which depend on the contrast phase."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from scripts.phantom.draw import Draw, Interval


class Phase(enum.Enum):
    """Contrast phase of the scan; NATIVE is without contrast medium."""

    NATIVE = "native"
    PULMONARY = "pulmonary"
    ARTERIAL = "arterial"
    PORTAL = "portal"
    EXCRETORY = "excretory"


@dataclass(frozen=True)
class _Enhancement:
    """HU that the contrast medium adds."""

    artery: Interval = (0, 0)
    vein: Interval = (0, 0)
    pulmonary: Interval = (0, 0)
    liver: Interval = (0, 0)
    spleen: Interval = (0, 0)
    kidney: Interval = (0, 0)
    urine: Interval = (0, 0)


_SHARES = {Phase.NATIVE: 0.4, Phase.PULMONARY: 0.12, Phase.ARTERIAL: 0.15, Phase.PORTAL: 0.23, Phase.EXCRETORY: 0.1}
_ENHANCEMENT = {
    Phase.NATIVE: _Enhancement(),
    Phase.PULMONARY: _Enhancement((60, 220), (150, 450), (200, 420), (0, 10), (5, 40), (20, 70)),
    Phase.ARTERIAL: _Enhancement((180, 380), (30, 120), (120, 250), (5, 25), (40, 90), (80, 160)),
    Phase.PORTAL: _Enhancement((90, 160), (90, 150), (80, 140), (40, 70), (50, 90), (110, 170)),
    Phase.EXCRETORY: _Enhancement((40, 70), (40, 70), (40, 60), (25, 45), (30, 50), (70, 120), (150, 900)),
}
_WIDE = 4.0


@dataclass(frozen=True)
class Tissue:
    """Hounsfield units of the soft tissues.

    Attributes:
        phase: contrast phase.
        oral_hu: HU of stomach and bowel after oral contrast medium; None without it.
        marbling: fraction of the muscles that is fat.
        grain: strength of the texture, relative to the average.
    """

    phase: Phase
    fat_hu: float
    muscle_hu: float
    skin_hu: float
    artery_hu: float
    vein_hu: float
    pulmonary_hu: float
    liver_hu: float
    spleen_hu: float
    kidney_hu: float
    urine_hu: float
    oral_hu: float | None
    marbling: float
    grain: float

    @classmethod
    def drawn(cls, draw: Draw, age_years: float, wide: bool) -> Tissue:
        """Draw the values of a patient; `wide` ones exceed any patient's range."""
        phase = draw.one(list(_SHARES), list(_SHARES.values()))
        added = {name: draw.uniform(*interval) for name, interval in vars(_ENHANCEMENT[phase]).items()}

        def around(mean: float, reach: float) -> float:
            return mean + reach * (_WIDE if wide else 1.0) * draw.uniform(-1, 1)

        blood = around(42, 7)
        return cls(
            phase=phase,
            fat_hu=around(-100, 9),
            muscle_hu=around(52, 10),
            skin_hu=around(40, 8),
            artery_hu=blood + added["artery"],
            vein_hu=blood + added["vein"],
            pulmonary_hu=blood + added["pulmonary"],
            # A fatty liver is darker than its blood.
            liver_hu=around(54, 8) - (draw.uniform(10, 45) if draw.chance(0.15) else 0) + added["liver"],
            spleen_hu=around(48, 6) + added["spleen"],
            kidney_hu=around(33, 6) + added["kidney"],
            urine_hu=around(6, 7) + added["urine"],
            oral_hu=draw.uniform(120, 500) if draw.chance(0.2) else None,
            marbling=draw.uniform(0.0, 0.1) + draw.uniform(0.0, 0.2) * max(age_years - 40, 0) / 50,
            grain=draw.uniform(0.5, 1.6),
        )
