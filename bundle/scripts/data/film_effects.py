"""Random differences between films and simulated radiographs: aim, dose, scatter, blur, read-out, display.

Nothing here was fitted to films: the widths are guesses at clinical practice, wide enough that a network cannot rely on
absolute values and exact aim. Lengths are in millimetres, for images in the detector's plane.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator, Tensor

from scripts.data.augment import rotation_matrix
from scripts.exam.familiarity import Reference
from scripts.exam.orientation import field_of
from scripts.exam.rectify import FADE_MM
from scripts.geometry import VIEWS, BiplanarGeometry
from scripts.physics.detector import add_scatter, blur, collimate, contrast_curve, expose
from scripts.physics.noise import poisson_noise

MOST_PHOTONS = 1e9
"""Upper limit of photons per pixel, since a GPU counts in 32 bits."""


@dataclass(frozen=True)
class RandomPoses:
    """Distribution of small pose errors, independent for each view.

    Attributes:
        angle_deg: standard deviation of a view's direction about w.
        tilt_deg: standard deviation of a view's direction up or down.
        turn_deg: standard deviation of the rotation in a view's own plane.
        shift_mm: standard deviation of the isocentre along each axis; along a view it changes the magnification.
        misaligned: probability that an exam has such errors.
    """

    angle_deg: float = 2.0
    tilt_deg: float = 1.0
    turn_deg: float = 1.0
    shift_mm: float = 3.0
    misaligned: float = 1.0

    def __post_init__(self) -> None:
        _require_strengths(vars(self))
        _require_shares(misaligned=self.misaligned)

    def draw(self, exams: int, generator: Generator) -> tuple[Tensor, Tensor]:
        """Draw rotations ``[exams, 2, 3, 3]`` and shifts in mm ``[exams, 2, 3]``, determined by the generator state."""
        # The frontal view looks along v and the lateral along u: a rotation about its own axis stays in its plane.
        spread_deg = torch.tensor(
            [[self.tilt_deg, self.turn_deg, self.angle_deg], [self.turn_deg, self.tilt_deg, self.angle_deg]]
        )
        angles = torch.deg2rad(torch.randn(exams, len(VIEWS), 3, generator=generator) * spread_deg)
        shift_mm = torch.randn(exams, len(VIEWS), 3, generator=generator) * self.shift_mm
        is_misaligned = torch.rand(exams, 1, 1, generator=generator) < self.misaligned
        angles, shift_mm = angles * is_misaligned, shift_mm * is_misaligned
        rotations = torch.stack([rotation_matrix(angle) for angle in angles.flatten(0, 1)]).unflatten(0, (exams, -1))
        return rotations, shift_mm


@dataclass(frozen=True)
class Films:
    """Drawn film effects of the two images of each exam; see :class:`RandomFilms`.

    Attributes:
        of: the distribution they were drawn from, with the parameters common to all films.
        energy: factor on the line integrals of an exam ``[exams]``.
        scatter, blur_mm, exposure, gamma: strengths ``[exams, 2]``.
        is_displayed: whether an exam is processed for display, and then adapted, bool ``[exams]``.
        field: exposed pixels ``[exams, 2, 4]``; see :func:`~scripts.physics.detector.collimate`.
        photons: photons in the open beam, per exam; None for no noise.
        seed: seed of the noise.
    """

    of: RandomFilms
    energy: Tensor
    scatter: Tensor
    blur_mm: Tensor
    exposure: Tensor
    gamma: Tensor
    is_displayed: Tensor
    field: Tensor
    photons: tuple[float, ...] | None
    seed: int

    def __call__(self, line_integrals: Tensor) -> Tensor:
        """Return films ``[exams, 2, N, N]`` of ``line_integrals [exams, 2, N, N]``, with effects in physical order."""
        device, geometry = line_integrals.device, self.of.geometry
        p = line_integrals * self.energy.to(device)[:, None, None, None]
        p = add_scatter(p, self.scatter.to(device), self.of.scatter_mm, geometry.detector_spacing_mm)
        p = blur(p, self.blur_mm.to(device), geometry.detector_spacing_mm)
        if self.photons is not None:
            generator = torch.Generator(device).manual_seed(self.seed)
            p = torch.stack([poisson_noise(*exam, generator) for exam in zip(p, self.photons, strict=True)])
        p = expose(p, self.exposure.to(device)[..., None, None])
        p = contrast_curve(p, self.gamma.to(device), self.of.fixed_point)
        p = self._adapted(p)
        return collimate(p, self.field.to(device), FADE_MM / geometry.isocentre_pitch_mm)

    def _adapted(self, p: Tensor) -> Tensor:
        """Give displayed exams the values that they get when they are read."""
        if self.of.reference is None or not self.is_displayed.any():
            return p
        p = p.clone()
        for exam in self.is_displayed.nonzero()[:, 0].tolist():
            for number, view in enumerate(VIEWS):
                first, last, bottom, top = self.field[exam, number].tolist()
                exposed = np.zeros(p.shape[-2:], dtype=bool)
                exposed[first : last + 1, bottom : top + 1] = True
                adapted = self.of.reference.adapted(view, p[exam, number].cpu().numpy(), exposed)
                p[exam, number] = torch.from_numpy(adapted).to(p)
        return p


@dataclass(frozen=True)
class RandomFilms:
    """Distribution of films of one geometry.

    Attributes:
        geometry: geometry with the detector.
        energy: standard deviation of the logarithm of an exam's factor on line integrals, as from another beam energy.
        scatter: largest scatter-to-primary ratio per unit of line integral, uniform. With 0.05 the ratio
            had a median of 0.1 to 0.5 and a 99 % quantile of 0.4 to 5 over the bodies in the radiographs of ten CTs.
        scatter_mm: standard deviation of the scatter kernel.
        blur_mm: largest standard deviation of the detector's point spread, uniform.
        photons: least and most photons per pixel in the open beam, evenly spread on a logarithmic scale; None for no
            noise.
        exposure: standard deviation of the logarithm of the relative error of the open beam.
        gamma: standard deviation of the logarithm of the contrast curve's exponent.
        fixed_point: line integral that contrast curves leave unchanged.
        displayed: probability that both films of an exam were processed for display, so that only the order of their
            values is known and they are adapted to ``reference``, as when such films are read. This runs on the CPU.
        reference: distribution of the values of radiographs; needed only for ``displayed``.
        collimated: probability that an image is collimated.
        shutter: largest fraction of the image that each of the four shutters then covers, uniform.

    Raises:
        ValueError: a strength is negative or not finite, shutters could meet, there are no photons or too many, or
            displayed films have no reference, or one for another field of view.
    """

    geometry: BiplanarGeometry
    energy: float = 0.05
    scatter: float = 0.05
    scatter_mm: float = 60.0
    blur_mm: float = 4.0
    photons: tuple[float, float] | None = (1e5, 1e7)
    exposure: float = 0.15
    gamma: float = 0.1
    fixed_point: float = 6.0
    displayed: float = 0.0
    reference: Reference | None = None
    collimated: float = 0.5
    shutter: float = 0.15

    def __post_init__(self) -> None:
        _require_strengths({name: value for name, value in vars(self).items() if isinstance(value, int | float)})
        _require_shares(displayed=self.displayed, collimated=self.collimated)
        self._require_reference()
        if self.shutter >= 0.5:
            raise ValueError(f"films: shutter must be below 0.5, or opposite ones could meet, got {self.shutter!r}")
        if not self.fixed_point > 0:
            raise ValueError(
                f"films: fixed_point must be positive, got {self.fixed_point!r}; for no curve give gamma 0"
            )
        if self.photons is not None and not 0 < self.photons[0] <= self.photons[-1] <= MOST_PHOTONS:
            raise ValueError(
                f"films: photons must be the least and the most, positive and up to {MOST_PHOTONS:g}, got "
                f"{self.photons!r}; None for no noise"
            )

    def draw(self, exams: int, generator: Generator) -> Films:
        """Draw films of ``exams`` exams, determined by the generator state."""
        shape = (exams, len(VIEWS))
        scatter, blur_mm = torch.rand(2, *shape, generator=generator)
        exposure, gamma = torch.randn(2, *shape, generator=generator)
        return Films(
            self,
            torch.exp(self.energy * torch.randn(exams, generator=generator)),
            self.scatter * scatter,
            self.blur_mm * blur_mm,
            torch.exp(self.exposure * exposure),
            torch.exp(self.gamma * gamma),
            torch.rand(exams, generator=generator) < self.displayed,
            self._fields(shape, generator),
            self._photons(exams, generator),
            int(torch.randint(2**62, (), generator=generator)),
        )

    def _require_reference(self) -> None:
        if self.reference is None:
            if self.displayed:
                raise ValueError(f"films: displayed {self.displayed!r} needs a reference; give one, or displayed 0")
        elif not torch.allclose(field_of(self.reference.geometry), field_of(self.geometry)):
            raise ValueError(
                f"films: reference was made for {self.reference.geometry}, but the radiographs are those of "
                f"{self.geometry}; make one with reference.json, or give displayed 0 and no reference"
            )

    def _fields(self, shape: tuple[int, int], generator: Generator) -> Tensor:
        is_collimated = torch.rand(*shape, 1, generator=generator) < self.collimated
        pixels = self.geometry.detector_pixels
        covered = (is_collimated * self.shutter * pixels * torch.rand(*shape, 4, generator=generator)).long()
        ends = torch.tensor([0, pixels - 1, 0, pixels - 1])
        return ends + torch.tensor([1, -1, 1, -1]) * covered

    def _photons(self, exams: int, generator: Generator) -> tuple[float, ...] | None:
        if self.photons is None:
            return None
        least, most = self.photons
        return tuple((least * (most / least) ** torch.rand(exams, generator=generator)).tolist())


def _require_shares(**shares: float) -> None:
    for name, value in shares.items():
        if value > 1:
            raise ValueError(f"films: {name} must be a share, at most 1, got {value!r}; films.json sets --film_share")


def _require_strengths(strengths: Mapping[str, float]) -> None:
    for name, value in strengths.items():
        if not (isinstance(value, int | float) and 0 <= value < math.inf):
            raise ValueError(f"films: {name} must be finite and not negative, got {value!r}; 0 leaves the effect out")
