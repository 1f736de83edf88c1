"""The patient: all parameters drawn before a grid exists."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from torch import Tensor

from scripts.phantom.bone import Bone
from scripts.phantom.draw import Draw, Point
from scripts.phantom.spine import Spine
from scripts.phantom.tissue import Tissue

RIB_PAIRS_MOST = 13


class Device(enum.Enum):
    """Devices that a patient may carry, apart from spinal screws."""

    PORT = "port"
    PACEMAKER = "pacemaker"
    STERNAL_WIRES = "sternal wires"
    CENTRAL_LINE = "central line"
    GASTRIC_TUBE = "gastric tube"
    ELECTRODES = "electrodes"
    CLIPS = "clips"
    HIP_PROSTHESIS = "hip prosthesis"


_DEVICE_SHARES = {
    Device.PORT: 0.06,
    Device.PACEMAKER: 0.05,
    Device.STERNAL_WIRES: 0.05,
    Device.CENTRAL_LINE: 0.06,
    Device.GASTRIC_TUBE: 0.06,
    Device.ELECTRODES: 0.10,
    Device.CLIPS: 0.08,
    Device.HIP_PROSTHESIS: 0.06,
}


@dataclass(frozen=True)
class Cage:
    """Shape of the ribs.

    Attributes:
        slope: steepness of the ribs, relative to the average adult.
        thickness: thickness of the ribs, relative to the average adult.
        pairs: number of pairs of ribs, usually 12.
        shift_mm: shift of every rib along the spine, [2, RIB_PAIRS_MOST], the left side first.
        calcified_hu: HU that calcification adds to the costal cartilage.
    """

    slope: float
    thickness: float
    pairs: int
    shift_mm: Tensor
    calcified_hu: float

    @classmethod
    def drawn(cls, draw: Draw, age_years: float) -> Cage:
        """Draw ribs at random; cartilage calcifies with age."""
        return cls(
            slope=draw.uniform(0.75, 1.25),
            thickness=draw.uniform(0.85, 1.2),
            pairs=draw.one((11, 12, 13), (0.06, 0.88, 0.06)),
            shift_mm=draw.normal(2, RIB_PAIRS_MOST).clamp(-2, 2),
            calcified_hu=draw.uniform(0, 450) * max(age_years - 30, 0) / 60,
        )


@dataclass(frozen=True)
class Lungs:
    """State of the lungs.

    Attributes:
        hu: HU of the parenchyma at mid-depth, and its increase per mm towards the back.
        emphysema: fraction of the lungs that is destroyed.
        effusion_mm: depth of the fluid behind the right and the left lung.
        opacities: number of nodules and consolidations.
    """

    hu: float
    gradient_hu_per_mm: float
    emphysema: float
    effusion_mm: tuple[float, float]
    opacities: int

    @classmethod
    def drawn(cls, draw: Draw, wide: bool) -> Lungs:
        """Draw lungs at random, usually clear; `wide` lungs exceed any patient's range of density."""
        return cls(
            hu=draw.uniform(-950, -550) if wide else draw.uniform(-880, -740),
            gradient_hu_per_mm=draw.uniform(0.1, 0.8),
            emphysema=draw.uniform(0.05, 0.4) if draw.chance(0.2) else 0.0,
            effusion_mm=(_effusion_mm(draw), _effusion_mm(draw)),
            opacities=draw.whole(1, 6) if draw.chance(0.35) else 0,
        )


def _effusion_mm(draw: Draw) -> float:
    return draw.uniform(12, 55) if draw.chance(0.12) else 0.0


@dataclass(frozen=True)
class Patient:
    """Build and positioning of one patient.

    Attributes:
        scale: size relative to the average adult along x, y and z.
        isocentre: centre of the field of view in the frame of the anatomy.
        wide: whether tissues have HU beyond those of patients, so that a network does not rely on them.
        pelvis_width: width of the pelvis, relative to the average adult.
        muscle_mm: extra thickness of the abdominal wall, compared with the average adult.
        plaques: number of calcifications of the aorta.
    """

    female: bool
    age_years: float
    scale: Point
    isocentre: Point
    wide: bool
    spine: Spine
    bone: Bone
    cage: Cage
    tissue: Tissue
    lungs: Lungs
    pelvis_width: float
    muscle_mm: float
    fat_mm: float
    belly_mm: float
    breast_mm: float
    inspiration_mm: float
    plaques: int
    arms_down: bool
    devices: frozenset[Device]

    @classmethod
    def drawn(cls, draw: Draw, centre_mm: float | None) -> Patient:
        """Draw a patient at random; `centre_mm`, if given, changes only the positioning."""
        female = draw.chance(0.5)
        age = draw.uniform(18, 90)
        wide = draw.chance(0.2)
        size = draw.uniform(0.86, 1.03) if female else draw.uniform(0.93, 1.1)
        drawn_centre = draw.uniform(-200, 200)
        isocentre = (draw.uniform(-8, 8), draw.uniform(-10, 10))
        return cls(
            female=female,
            age_years=age,
            scale=(size * draw.uniform(0.92, 1.09), size * draw.uniform(0.9, 1.1), size * draw.uniform(0.94, 1.06)),
            isocentre=(*isocentre, drawn_centre if centre_mm is None else float(centre_mm)),
            wide=wide,
            spine=Spine.drawn(draw, age),
            bone=Bone.drawn(draw, age, wide),
            cage=Cage.drawn(draw, age),
            tissue=Tissue.drawn(draw, age, wide),
            lungs=Lungs.drawn(draw, wide),
            pelvis_width=draw.uniform(0.98, 1.05) if female else draw.uniform(0.93, 1.02),
            muscle_mm=draw.uniform(-8, 4),
            fat_mm=4 + 34 * draw.uniform(0, 1) ** 1.8,
            belly_mm=draw.uniform(-12, 28),
            breast_mm=draw.uniform(18, 48) if female else 0.0,
            inspiration_mm=draw.uniform(-20, 16),
            plaques=draw.whole(0, 16) if draw.chance((age - 40) / 50) else 0,
            arms_down=draw.chance(0.3),
            devices=frozenset(device for device, share in _DEVICE_SHARES.items() if draw.chance(share)),
        )
