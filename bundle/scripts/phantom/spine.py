"""The curve of the vertebral column, and the position and size of every vertebra."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from scripts.phantom.draw import Draw, Point
from scripts.phantom.shapes import profile

# Heights of a level, vertebra and disc, in mm: upwards from T12 to C4, downwards from L1 to L5.
_UPWARD_MM = (30, 28.5, 27, 26, 25, 24.5, 24, 23, 22, 21, 20.5, 20, 18, 17, 17, 17)
_DOWNWARD_MM = (34, 35, 36, 36, 35)
_THORACIC_COUNT = 12

# y of the centres of the vertebral bodies over z: lordosis, kyphosis, lordosis.
_Y = (
    (-300, -60),
    (-265, -74),
    (-225, -64),
    (-176, -36),
    (-110, -20),
    (-55, -22),
    (0, -33),
    (75, -44),
    (150, -48),
    (230, -42),
    (290, -28),
    (340, -19),
    (420, -17),
)
_MEAN_Y = -34.0

# Half width and half depth of the vertebral bodies over z.
_HALF_WIDTH = ((-180, 26), (-20, 21.5), (150, 16), (280, 14), (320, 11))
_HALF_DEPTH = ((-180, 18), (-20, 16), (150, 13.5), (280, 9.5), (320, 8))


@dataclass(frozen=True)
class Vertebra:
    """Position and sizes in mm of one vertebra; `thoracic` is 1…12 from the top, 0 elsewhere.

    Attributes:
        wedge: fraction of its height that the front has lost.
        osteophyte: protrusion of the rims of its body, relative to its radius.
    """

    centre: Point
    axes: Tensor  # [3, 3], rows: the local right, anterior and superior directions
    thoracic: int
    lumbar: bool
    half_width: float
    half_depth: float
    half_height: float
    half_disc: float
    wedge: float
    osteophyte: float

    @property
    def canal_y(self) -> float:
        """Local y of the centre of the vertebral canal."""
        return -self.half_depth - 8.0

    @property
    def pedicle(self) -> Point:
        """Local centre of the right pedicle."""
        return (0.62 * self.half_width, -self.half_depth - 2.0, 0.35 * self.half_height)

    @property
    def pedicle_radius(self) -> float:
        """In mm."""
        return 0.22 * self.half_width

    def to_anatomy(self, point: Point) -> Point:
        """Convert a local point to the frame of the anatomy."""
        return tuple((torch.tensor(self.centre) + torch.tensor(point) @ self.axes).tolist())


@dataclass(frozen=True)
class Spine:
    """The curve and the wear of a vertebral column.

    Attributes:
        kyphosis: kyphosis of the chest, and lordosis of the lumbar spine, relative to the average adult.
        scoliosis_mm: largest lateral offset, with the phase and length of its wave.
        width: width of the vertebral bodies, and disc height, relative to the average adult.
        wedges: wedge, and likewise osteophyte, of every vertebra from C4 down.
    """

    kyphosis: float
    lordosis: float
    scoliosis_mm: float
    scoliosis_phase: float
    scoliosis_length_mm: float
    width: float
    disc: float
    wedges: tuple[float, ...]
    osteophytes: tuple[float, ...]

    @classmethod
    def drawn(cls, draw: Draw, age_years: float) -> Spine:
        """Draw a spine, usually nearly straight, sometimes scoliotic; age bends, wears and breaks it."""
        wear = max(age_years - 40, 0) / 50
        count = len(_UPWARD_MM) + len(_DOWNWARD_MM)
        curved = draw.chance(0.15)
        fractured = draw.chance(0.4 * wear)
        return cls(
            kyphosis=draw.uniform(0.6, 1.4) + 0.4 * wear,
            lordosis=draw.uniform(0.5, 1.45),
            scoliosis_mm=draw.side() * (draw.uniform(12, 30) if curved else draw.uniform(0, 7)),
            scoliosis_phase=draw.uniform(0, 2 * math.pi),
            scoliosis_length_mm=draw.uniform(260, 420),
            width=draw.uniform(0.9, 1.12),
            disc=draw.uniform(0.75, 1.25) - 0.25 * wear,
            wedges=tuple(
                draw.uniform(0.15, 0.35) if fractured and draw.chance(0.12) else draw.uniform(0, 0.06)
                for _ in range(count)
            ),
            osteophytes=tuple(0.35 * wear * draw.uniform(0, 1) ** 2 for _ in range(count)),
        )

    def x(self, z: Tensor) -> Tensor:
        """Return the lateral offset: a sine that decays towards the sacrum."""
        wave = torch.sin(2 * math.pi * z / self.scoliosis_length_mm + self.scoliosis_phase)
        return self.scoliosis_mm * wave * ((z + 185) / 120).clamp(0, 1)

    def y(self, z: Tensor) -> Tensor:
        """Return the depth: the average curve, flattened or exaggerated about its mean between pelvis and neck."""
        bend = ((-260, 1), (-130, self.lordosis), (-30, self.lordosis), (70, self.kyphosis), (290, self.kyphosis))
        return _MEAN_Y + profile((*bend, (400, 1)), z) * (profile(_Y, z) - _MEAN_Y)

    def sway(self, z: Tensor) -> Tensor:
        """Return how far the curve lies in front of the average adult's, in mm."""
        return self.y(z) - profile(_Y, z)

    def twist(self, z: Tensor) -> Tensor:
        """Return the rotation of the vertebrae about their axis, in radians: the bodies turn to the convex side."""
        return 0.011 * self.x(z)

    def at(self, z: float) -> Point:
        """Return the point of the curve at height z."""
        height = torch.tensor([float(z)])
        return self.x(height).item(), self.y(height).item(), float(z)

    @functools.cached_property
    def vertebrae(self) -> list[Vertebra]:
        """Return the vertebrae from C4 down to L5."""
        top, low = sum(_UPWARD_MM), -sum(_DOWNWARD_MM)
        heights = (*_UPWARD_MM[::-1], *_DOWNWARD_MM)
        edges = torch.tensor([top - sum(heights[:i]) for i in range(len(heights))] + [low], dtype=torch.float32)
        middles = (edges[1:] + edges[:-1]) / 2
        curve = torch.stack([self.x(edges), self.y(edges), edges], dim=1)
        sizes = zip(
            torch.stack([self.x(middles), self.y(middles), middles], dim=1).tolist(),
            (curve[:-1] - curve[1:]),
            self.twist(middles).tolist(),
            (self.width * profile(_HALF_WIDTH, middles)).tolist(),
            (self.width * profile(_HALF_DEPTH, middles)).tolist(),
            strict=True,
        )
        return [self._vertebra(index, *size) for index, size in enumerate(sizes)]

    def _vertebra(
        self, index: int, centre: list[float], superior: Tensor, twist: float, half_width: float, half_depth: float
    ) -> Vertebra:
        """Build the vertebra `index` levels below C4."""
        x, y, z = centre
        lumbar = index >= len(_UPWARD_MM)
        thoracic = 0 if lumbar else max(index - (len(_UPWARD_MM) - _THORACIC_COUNT) + 1, 0)
        half_level = (*_UPWARD_MM[::-1], *_DOWNWARD_MM)[index] / 2
        disc_share = (0.25 if lumbar else 0.16) * self.disc
        return Vertebra(
            (x, y, z),
            _upright(superior, twist),
            thoracic,
            lumbar,
            half_width,
            half_depth,
            half_height=half_level * (1 - disc_share),
            half_disc=half_level * disc_share,
            wedge=self.wedges[index],
            osteophyte=self.osteophytes[index],
        )


def _upright(superior: Tensor, twist: float) -> Tensor:
    """Return orthonormal axes (rows) with `superior` as the third, turned by `twist` about it."""
    superior = superior / superior.norm()
    anterior = torch.tensor([math.sin(twist), math.cos(twist), 0.0])
    anterior = anterior - (anterior @ superior) * superior
    anterior = anterior / anterior.norm()
    return torch.stack([torch.linalg.cross(anterior, superior), anterior, superior])
