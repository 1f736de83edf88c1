"""Axes, frames and the frozen acquisition geometry of a biplanar exam.

Patient axes are RAS+: ``u`` grows to the patient's right, ``v`` to anterior, ``w`` to superior. A volume tensor is
``[B, 1, U, V, W]``; an image tensor is ``[B, 2, N, N]`` with channel 0 frontal ``(u, w)`` and channel 1 lateral
``(v, w)``. *Shape* counts voxels or pixels, *size* is in millimetres. The isocentre is the origin of all millimetre
coordinates and the centre of the volume grid and of both detectors.
"""

from __future__ import annotations

import json
import math
import reprlib
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from numbers import Real
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

VIEWS = ("frontal", "lateral")
MAX_COUNT, MAX_VOXELS = 8192, 2**31
"""Upper limits on pixels or voxels per side and on voxels per volume, twice those of real devices, to bound memory."""
SHORTEST_MM, LONGEST_MM = 1e-3, 1e6
"""Limits of every length except the infinite distances of a parallel beam."""
MAX_FILE_BYTES = 2**20
_SOURCE_SIGN = {"anterior": 1.0, "posterior": -1.0, "right": 1.0, "left": -1.0}
_PRESET_DISTANCES_MM = {
    "carm": (785.0, 1200.0),
    "x2ct": (541.0, 949.0),
    "chest": (1500.0, 1800.0),
    "parallel": (math.inf, math.inf),
}


class View(NamedTuple):
    """One radiograph as seen along a volume axis.

    Attributes:
        depth_axis: volume axis (0 = u, 1 = v, 2 = w) along which the central ray runs.
        column_axis: volume axis that the image's first axis follows; the second always follows w.
        source_sign: +1 if the source is on the positive side of the depth axis, else -1.
    """

    depth_axis: int
    column_axis: int
    source_sign: float


def centred_coordinates_mm(count: int, spacing_mm: float) -> Tensor:
    """Return the centres of ``count`` cells of ``spacing_mm`` around the isocentre, float64 ``[count]``."""
    return (torch.arange(count, dtype=torch.float64) - (count - 1) / 2) * spacing_mm


def _length_mm(name: str, value: float) -> float:
    if isinstance(value, bool) or not (isinstance(value, Real) and value > 0):
        raise ValueError(f"geometry: {name} must be a positive number of millimetres, got {_shown(value)}")
    if not (SHORTEST_MM <= value <= LONGEST_MM or value == math.inf):
        raise ValueError(f"geometry: {name} must be {SHORTEST_MM} to {LONGEST_MM:.0f} mm, got {_shown(value)}")
    return float(value)


def _count(name: str, value: int) -> int:
    if isinstance(value, bool) or not (isinstance(value, Real) and value >= 1 and value % 1 == 0):
        raise ValueError(f"geometry: {name} must be a whole number from 1, got {_shown(value)}")
    if value > MAX_COUNT:
        raise ValueError(f"geometry: {name} must be at most {MAX_COUNT}, got {_shown(value)}")
    return int(value)


def _shown(value: object) -> str:
    """Format a value for a message; Python refuses to print integers of thousands of digits."""
    return (
        "a number of too many digits" if isinstance(value, int) and value.bit_length() > 1024 else reprlib.repr(value)
    )


def _shape(name: str, values: Iterable[int]) -> tuple[int, int, int]:
    counts = tuple(values) if isinstance(values, Iterable) else ()
    if len(counts) != 3:
        raise ValueError(f"geometry: {name} must be three counts, along (u, v, w), got {_shown(values)}")
    u, v, w = (_count(name, n) for n in counts)
    if u * v * w > MAX_VOXELS:
        raise ValueError(f"geometry: {name} must have at most {MAX_VOXELS} voxels, got {u} x {v} x {w}")
    return (u, v, w)


def isocentre_magnification(source_to_isocentre_mm: float, source_to_detector_mm: float) -> float:
    """Return the magnification of the isocentre plane on a detector; 1 for a parallel beam."""
    return 1.0 if math.isinf(source_to_detector_mm) else source_to_detector_mm / source_to_isocentre_mm


@dataclass(frozen=True, repr=False)
class BiplanarGeometry:
    """Two orthogonal, axis-aligned X-ray views of one isotropic voxel grid, in millimetres.

    ``eval(repr(g)) == g``. Infinite distances describe a parallel beam (both must then be infinite).

    Attributes:
        source_to_isocentre_mm: distance of either source from the isocentre.
        source_to_detector_mm: distance of either source from its detector, perpendicular to it.
        detector_pixels: pixels along each side of the square detectors.
        detector_spacing_mm: pixel pitch on the detector.
        volume_shape: voxels along (u, v, w).
        volume_spacing_mm: isotropic voxel spacing.
        frontal_source: ``"anterior"`` (AP) or ``"posterior"`` (PA).
        lateral_source: ``"right"`` or ``"left"``.

    Raises:
        ValueError: a distance, shape or direction is impossible for such an exam.
    """

    source_to_isocentre_mm: float
    source_to_detector_mm: float
    detector_pixels: int
    detector_spacing_mm: float
    volume_shape: tuple[int, int, int]
    volume_spacing_mm: float
    frontal_source: str = "anterior"
    lateral_source: str = "right"

    def __post_init__(self) -> None:
        for name in ("source_to_isocentre_mm", "source_to_detector_mm", "detector_spacing_mm", "volume_spacing_mm"):
            object.__setattr__(self, name, _length_mm(name, getattr(self, name)))
        if math.isinf(self.detector_spacing_mm) or math.isinf(self.volume_spacing_mm):
            raise ValueError(
                "geometry: only the distances of a parallel beam are infinite, got detector_spacing_mm "
                f"{self.detector_spacing_mm!r} and volume_spacing_mm {self.volume_spacing_mm!r}; give finite spacings"
            )
        object.__setattr__(self, "detector_pixels", _count("detector_pixels", self.detector_pixels))
        object.__setattr__(self, "volume_shape", _shape("volume_shape", self.volume_shape))
        if self.frontal_source not in ("anterior", "posterior"):
            raise ValueError(
                f"geometry: frontal_source must be 'anterior' or 'posterior', got {_shown(self.frontal_source)}"
            )
        if self.lateral_source not in ("right", "left"):
            raise ValueError(f"geometry: lateral_source must be 'right' or 'left', got {_shown(self.lateral_source)}")
        if self.is_parallel:
            if math.isfinite(self.source_to_isocentre_mm) or math.isfinite(self.source_to_detector_mm):
                raise ValueError(
                    f"geometry: a parallel beam has both distances infinite, got {self.source_to_isocentre_mm} mm to "
                    f"the isocentre and {self.source_to_detector_mm} mm to the detector; give both or neither"
                )
            return
        nearest = self.source_to_isocentre_mm - max(self.volume_size_mm[:2]) / 2
        if nearest <= 0:
            raise ValueError(
                f"geometry: the source, {self.source_to_isocentre_mm} mm from the isocentre, lies inside the "
                f"{self.volume_size_mm} mm volume; move the source back or make the volume smaller"
            )
        if self.source_to_detector_mm < self.source_to_isocentre_mm:
            raise ValueError(
                f"geometry: the detector ({self.source_to_detector_mm} mm from the source) is in front of the "
                f"isocentre ({self.source_to_isocentre_mm} mm); source_to_detector_mm must be the larger"
            )

    def __repr__(self) -> str:
        # repr(float("inf")) is the bare word inf, which does not evaluate.
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        written = (f"{k}=float('inf')" if v == math.inf else f"{k}={v!r}" for k, v in values.items())
        return f"{type(self).__name__}({', '.join(written)})"

    @property
    def is_parallel(self) -> bool:
        """Whether the rays are parallel rather than a cone."""
        return math.isinf(self.source_to_isocentre_mm) or math.isinf(self.source_to_detector_mm)

    @property
    def volume_size_mm(self) -> tuple[float, float, float]:
        """Side lengths of the voxel grid along (u, v, w)."""
        u, v, w = self.volume_shape
        return (u * self.volume_spacing_mm, v * self.volume_spacing_mm, w * self.volume_spacing_mm)

    @property
    def isocentre_pitch_mm(self) -> float:
        """Pixel pitch of the detectors, scaled to the isocentre plane."""
        return self.detector_spacing_mm / isocentre_magnification(
            self.source_to_isocentre_mm, self.source_to_detector_mm
        )

    @property
    def detector_size_mm(self) -> float:
        """Side length of either square detector."""
        return self.detector_pixels * self.detector_spacing_mm

    def view(self, name: str) -> View:
        """Return the axes and source side of ``"frontal"`` or ``"lateral"``."""
        if name == "frontal":
            return View(depth_axis=1, column_axis=0, source_sign=_SOURCE_SIGN[self.frontal_source])
        if name == "lateral":
            return View(depth_axis=0, column_axis=1, source_sign=_SOURCE_SIGN[self.lateral_source])
        raise ValueError(f"geometry: a view must be one of {VIEWS}, got {name!r}")

    def magnification(self, depth_mm: Tensor, source_sign: float) -> Tensor:
        """Return the magnification of the plane at signed ``depth_mm`` on the detector."""
        if self.is_parallel:
            return torch.ones_like(depth_mm)
        return self.source_to_detector_mm / (self.source_to_isocentre_mm - source_sign * depth_mm)

    def with_volume(self, shape: tuple[int, int, int], spacing_mm: float) -> BiplanarGeometry:
        """Return the same exam over another voxel grid around the same isocentre."""
        return replace(self, volume_shape=_shape("volume_shape", shape), volume_spacing_mm=float(spacing_mm))

    def coarser(self, factor: int = 2) -> BiplanarGeometry:
        """The same exam with voxels and pixels that are ``factor`` times as wide, over the same fields.

        Raises:
            ValueError: the factor is not a whole number from 1, or they do not divide.
        """
        factor = _count("factor", factor)
        if any(n % factor for n in (*self.volume_shape, self.detector_pixels)):
            raise ValueError(
                f"geometry: {self.volume_shape} voxels and {self.detector_pixels} pixels do not divide by {factor}; "
                "choose multiples of it"
            )
        return replace(
            self,
            detector_pixels=self.detector_pixels // factor,
            detector_spacing_mm=factor * self.detector_spacing_mm,
            volume_shape=_shape("volume_shape", [n // factor for n in self.volume_shape]),
            volume_spacing_mm=factor * self.volume_spacing_mm,
        )

    def finer(self, factor: int) -> BiplanarGeometry:
        """The same exam with ``factor`` times as many voxels and pixels per side, over the same fields.

        Raises:
            ValueError: the factor is not a whole number from 1, or there are too many voxels or pixels.
        """
        factor = _count("grid_factor", factor)
        return replace(
            self,
            detector_pixels=factor * self.detector_pixels,
            detector_spacing_mm=self.detector_spacing_mm / factor,
            volume_shape=_shape("volume_shape", [factor * n for n in self.volume_shape]),
            volume_spacing_mm=self.volume_spacing_mm / factor,
        )

    def volume_affine(self) -> np.ndarray:
        """Return the RAS voxel-to-mm affine ``[4, 4]`` of the volume grid, with the isocentre at the origin."""
        affine = np.diag([self.volume_spacing_mm] * 3 + [1.0])
        affine[:3, 3] = [-(n - 1) / 2 * self.volume_spacing_mm for n in self.volume_shape]
        return affine

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> BiplanarGeometry:
        """Build a geometry from its JSON fields, in which infinite distances are the string ``"inf"``."""
        stated: dict[str, Any] = {name: math.inf if value == "inf" else value for name, value in values.items()}
        return cls(**stated)

    def to_json(self) -> str:
        """Return a JSON object with every field; infinite distances become the string ``"inf"``."""
        values = {k: "inf" if v == math.inf else v for k, v in asdict(self).items()}
        return json.dumps(values, indent=2)


def preset(
    name: str, volume_shape: tuple[int, int, int], volume_spacing_mm: float, detector_pixels: int
) -> BiplanarGeometry:
    """Return a named exam whose detectors just cover the shadow of the whole volume.

    Args:
        name: ``carm`` (785 mm to the isocentre, 1200 mm to the detector), ``x2ct`` (541 / 949 mm, Ying et al. 2019),
            ``chest`` (1500 / 1800 mm) or ``parallel``.
        volume_shape: voxels along (u, v, w).
        volume_spacing_mm: isotropic voxel spacing.
        detector_pixels: pixels along each detector side.

    Raises:
        ValueError: the name is unknown, or the volume does not fit in front of the source.
    """
    if name not in _PRESET_DISTANCES_MM:
        raise ValueError(f"geometry: preset must be one of {sorted(_PRESET_DISTANCES_MM)}, got {name!r}")
    isocentre_mm, detector_mm = _PRESET_DISTANCES_MM[name]
    shape = _shape("volume_shape", volume_shape)
    size_mm = max(shape) * _length_mm("volume_spacing_mm", volume_spacing_mm)
    if size_mm >= 2 * isocentre_mm:
        raise ValueError(
            f"geometry: a volume of {size_mm} mm does not fit in front of the {name!r} source, {isocentre_mm} mm from "
            "the isocentre; make the volume smaller or choose another preset"
        )
    nearest_magnification = 1.0 if math.isinf(detector_mm) else detector_mm / (isocentre_mm - size_mm / 2)
    spacing_mm = size_mm * nearest_magnification / _count("detector_pixels", detector_pixels)
    return BiplanarGeometry(isocentre_mm, detector_mm, detector_pixels, spacing_mm, shape, volume_spacing_mm)


def read_geometry(path: str | Path) -> BiplanarGeometry:
    """Read the JSON written by :meth:`BiplanarGeometry.to_json`.

    Raises:
        ValueError: the file is missing, not JSON, or lacks or misnames a field; the message names it.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no geometry file; every case must state its geometry, which is never guessed")
    if path.stat().st_size > MAX_FILE_BYTES:
        raise ValueError(f"{path}: {path.stat().st_size} bytes, but a geometry has at most {MAX_FILE_BYTES}; give JSON")
    try:
        values = json.loads(path.read_text(encoding="utf-8-sig"), parse_int=_whole, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not a JSON geometry ({error})") from error
    if not isinstance(values, dict):
        raise ValueError(
            f"{path}: a geometry is a JSON object, got {type(values).__name__}; write one as in docs/demo/geometry.json"
        )
    known = {f.name for f in fields(BiplanarGeometry)}
    unknown = sorted(set(values) - known)
    missing = sorted(known - {"frontal_source", "lateral_source"} - set(values))
    if unknown or missing:
        raise ValueError(f"{path}: missing geometry fields {missing}, unknown ones {_shown(unknown)}")
    try:
        return BiplanarGeometry.from_dict(values)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _whole(digits: str) -> int | float:
    return int(digits) if len(digits) < 20 else _finite(digits)


def _finite(digits: str) -> float:
    """Parse a number; one too large for a float becomes the largest float, which every check refuses."""
    return max(-sys.float_info.max, min(float(digits), sys.float_info.max))
