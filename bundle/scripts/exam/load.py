"""Exams as MONAI transforms: radiographs from wherever they are to network units, and predictions back to HU."""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform

from scripts.exam.acquisition import Acquisition, acquire_exam, acquisitions_of
from scripts.exam.familiarity import Reference
from scripts.exam.film_values import linearise, useful_area
from scripts.exam.find import Source, exam_name
from scripts.exam.rectify import deviations, fade_to_air, rectify
from scripts.exam.views import BOTH, ViewChoice, disagreements, find_exam
from scripts.geometry import VIEWS, BiplanarGeometry
from scripts.intensity import network_to_hu, radiograph_to_network
from scripts.io.case import CT_FILE, GEOMETRY_FILE, IMAGE_FILES, Case, read_case, read_exam
from scripts.io.digest import sha256
from scripts.io.radiograph import SCALES, Radiograph
from scripts.io.refusal import refusals

FILM_PIXELS = 1024
"""Largest side of the film that travels along to be shown."""
MIN_COVERED = 0.9
"""Share of the network's field that a film should show."""
_DEPTH = {"frontal": "from front to back", "lateral": "from right to left"}
"""The direction that a view does not show."""


@dataclass(frozen=True)
class FilmOptions:
    """What a user may say about films; everything that decides how one is read.

    Attributes:
        acquisition: overrides of :func:`~scripts.exam.acquisition.acquire_exam`, by option name.
        intensity: what pixels mean, one of :data:`~scripts.io.radiograph.SCALES`, against what the file says.
        air_value: pixel value of the unattenuated beam, for ``counts``.
        adapt_intensity: whether a film without an absolute scale is given the values of simulated radiographs.
        frame: which one of a multi-frame file.
    """

    acquisition: Mapping[str, Any] = field(default_factory=dict)
    intensity: str | None = None
    air_value: float | None = None
    adapt_intensity: bool = True
    frame: int | None = None

    def __post_init__(self) -> None:
        if self.intensity not in (None, *SCALES):
            raise ValueError(f"--intensity: what pixels mean is one of {', '.join(SCALES)}; got {self.intensity!r}")


class _View(NamedTuple):
    """One radiograph in the network's frame, ``[N, N]``; where the film shows it; how it came about."""

    image: np.ndarray
    covered: np.ndarray
    facts: dict[str, Any]
    warnings: list[str]


class _Exam(NamedTuple):
    """What was read: line integrals ``[2, N, N]``, the volume's affine, facts (see :class:`LoadExamd`), and films.

    A view that is not used is 0 everywhere, as no radiograph is.
    """

    image: np.ndarray
    affine: np.ndarray
    facts: dict[str, Any]
    films: dict[str, np.ndarray]


class LoadExamd(MapTransform):
    """Reads an exam into network units: an image ``[2, N, N]`` whose ``meta`` carries everything else about it.

    The value under each key is a source, see :func:`~scripts.exam.find.find_exams`. A case folder, or a mapping with a
    ``geometry_file``, holds line integrals in a stated geometry; any other source holds films, whose geometry is that
    of their headers, of ``acquisition.json`` with them, and of the options, the later winning. What was not taken in
    the network's geometry is resampled to it. A view that is not used need not be there, and its channel is 0.

    ``meta`` holds ``name``, ``volume_affine`` (RAS, of the volume to reconstruct), of films their pixels as read
    (``film_frontal``, ``film_lateral``), and ``exam``: JSON text, which MONAI's collation leaves alone, with ``files``
    (path to sha256), ``options``, ``views`` (those that are used), ``inputs`` (by view), ``headers`` (DICOM JSON, by
    view), ``is_lossy``, ``truth`` (path of the CT or None) and ``warnings``.

    Args:
        keys: where the sources are, normally ``image``.
        geometry: the exam the network was trained for.
        options: what the user says about films.
        reference: what the training radiographs look like; None if that is not known.
        choice: which views are used.

    Raises:
        ValueError: unreadable, incomplete or implausible radiographs, or a geometry too far from the network's.
    """

    def __init__(
        self,
        keys: Hashable | list[Hashable],
        geometry: BiplanarGeometry,
        options: FilmOptions | None = None,
        reference: Reference | None = None,
        choice: ViewChoice = BOTH,
    ) -> None:
        super().__init__(keys)
        self.geometry, self.options, self.reference = geometry, options or FilmOptions(), reference
        self.choice = choice

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Replace the sources by images."""
        result = dict(data)
        for key in self.keys:
            with refusals(exam_name(data[key])):
                result[key] = self._load(data[key])
        return result

    def _load(self, source: Source) -> MetaTensor:
        exam = self._read_case(source) if _states_geometry(source) else self._read_films(source)
        exam.facts["views"] = used = self.choice.used
        exam.facts["warnings"] += disagreements(exam.image, self.geometry)
        if self.reference is not None:
            exam.facts["warnings"] += self.reference.warnings(exam.image, used)
        if not self.choice.is_both:
            exam.facts["warnings"].insert(
                0,
                f"reconstructed from the {used[0]} view alone: where things lie {_DEPTH[used[0]]} is what the network "
                "expects, not what was measured",
            )
        meta = {"name": exam_name(source), "volume_affine": exam.affine, "exam": json.dumps(exam.facts)}
        meta |= {f"film_{view}": pixels for view, pixels in exam.films.items()}
        return MetaTensor(radiograph_to_network(torch.from_numpy(exam.image)), meta=meta)

    def _read_case(self, source: Source) -> _Exam:
        files = self._case_files(source)
        if isinstance(source, Mapping):
            case = read_exam({view: files[view] for view in self.choice.used}, files["geometry_file"])
        else:
            case = read_case(source, self.choice.used)
        digests = {str(path): sha256(path) for path in files.values()}
        if case.geometry == self.geometry:
            truth = None if case.ct is None else str(Path(source) / CT_FILE)
            affine = np.asarray(case.affine, dtype=np.float64)
            return _Exam(case.image.numpy(), affine, _facts(digests, truth=truth), {})
        acquisitions = acquisitions_of(case.geometry)
        views = {
            name: self._resampled(pixels, np.ones(pixels.shape, dtype=bool), acquisitions[name], name)
            for name, pixels in zip(VIEWS, case.image.numpy(), strict=True)
            if name in self.choice.used
        }
        warnings = self._accepted({name: acquisitions[name] for name in views})
        return _Exam(_stack(views, self.geometry), self._centred_as(case), _facts(digests, views, warnings), {})

    def _case_files(self, source: Source) -> dict[str, Path]:
        """Those of the used views and the geometry, by what a mapping calls them."""
        if isinstance(source, Mapping):
            return {name: Path(source[name]) for name in (*self.choice.used, "geometry_file")}
        files = {view: Path(source) / IMAGE_FILES[view] for view in self.choice.used}
        missing = [view for view, path in files.items() if not path.is_file()]
        if len(missing) == 1 and self.choice.hint:
            raise ValueError(f"{files[missing[0]]}: the {missing[0]} view is missing{self.choice.hint}")
        return files | {"geometry_file": Path(source) / GEOMETRY_FILE}

    def _read_films(self, source: Source) -> _Exam:
        films, told = find_exam(source, self.options.frame, self.choice)
        options = {name: value for name, value in self.options.acquisition.items() if value is not None}
        told = {**told, **options}
        acquisitions = acquire_exam(films, told)
        warnings = self._accepted(acquisitions)
        views = {name: self._view(film, acquisitions[name], name) for name, film in films.items()}
        facts = _facts({film.path: film.sha256 for film in films.values()}, views, warnings)
        facts["options"] = asdict(self.options) | {"acquisition": told}
        facts["headers"] = {name: film.header.to_json_dict() for name, film in films.items()}
        facts["is_lossy"] = any(film.is_lossy for film in films.values())
        shown = {name: _shown(film.pixels) for name, film in films.items()}
        return _Exam(_stack(views, self.geometry), self.geometry.volume_affine(), facts, shown)

    def _view(self, radiograph: Radiograph, acquisition: Acquisition, name: str) -> _View:
        """One film: its values understood, resampled, and if they have no absolute scale, adapted."""
        film = linearise(replace(radiograph, scale=self.options.intensity or radiograph.scale), self.options.air_value)
        try:
            resampled = self._resampled(film.pixels, useful_area(film.pixels), acquisition, name)
        except ValueError as error:
            raise ValueError(f"{radiograph.path}: {error}") from error
        steps = [*film.steps, *resampled.facts["steps"]]
        image = resampled.image
        if not film.is_absolute:
            image = self._adapted(radiograph, resampled, name)
            steps.append("values matched by rank to those of the training radiographs; absolute attenuation is lost")
        facts = {"file": radiograph.path, "modality": radiograph.modality, "pixels": radiograph.pixels.shape}
        facts |= {"intensity": self.options.intensity or radiograph.scale, **resampled.facts, "steps": steps}
        warnings = [*radiograph.warnings, *acquisition.warnings, *film.warnings, *resampled.warnings]
        return _View(image, resampled.covered, facts, warnings)

    def _resampled(self, pixels: np.ndarray, mask: np.ndarray, acquisition: Acquisition, name: str) -> _View:
        image, covered = rectify(pixels, mask, acquisition, name, self.geometry)
        share = float(covered.mean())
        facts = {k: v for k, v in asdict(acquisition).items() if k != "warnings"}
        facts |= {"masked": float(1 - mask.mean()), "covered": share}
        step = f"resampled from {pixels.shape[0]} x {pixels.shape[1]} to {image.shape[0]} x {image.shape[1]} pixels"
        warnings = []
        if share < MIN_COVERED:
            warnings.append(
                f"the {name} film shows {share:.0%} of what the network looks at (limit {MIN_COVERED:.0%}); the rest "
                "repeats its edge, which beside the patient fades to air"
            )
        return _View(image, covered, facts | {"steps": [step]}, warnings)

    def _adapted(self, radiograph: Radiograph, view: _View, name: str) -> np.ndarray:
        if self.reference is None or not self.options.adapt_intensity:
            why = "there is no reference to adapt them to" if self.reference is None else "--adapt_intensity is false"
            raise ValueError(
                f"{radiograph.path}: its pixels have no absolute scale, and {why}; give line integrals or counts "
                "(with --intensity if the file does not say so), or let the values be adapted"
            )
        return self.reference.adapted(name, view.image, view.covered)

    def _accepted(self, acquisitions: Mapping[str, Acquisition]) -> list[str]:
        warnings, reasons = deviations(acquisitions, self.geometry)
        if reasons:
            raise ValueError("; ".join(reasons))
        return warnings

    def _centred_as(self, case: Case) -> np.ndarray:
        """The network's grid around the middle of the case's."""
        affine = self.geometry.volume_affine()
        middle = [*((n - 1) / 2 for n in case.geometry.volume_shape), 1.0]
        affine[:3, 3] += (case.affine @ middle)[:3]
        return affine


class ToHounsfieldd(MapTransform):
    """Predictions from network range to HU, with the affine that the exam's image carries.

    Args:
        keys: predictions ``[K, U, V, W]``, normally ``pred``.
        reference: key of the exam's image.

    Raises:
        ValueError: a prediction holds NaN or infinity, of which integers would be made that look like HU, or is the
            same everywhere, as that of a network whose last layer is still zero.
    """

    def __init__(self, keys: Hashable | list[Hashable] = "pred", reference: Hashable = "image") -> None:
        super().__init__(keys)
        self.reference = reference

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Replace each prediction by a ``MetaTensor`` in HU."""
        result = dict(data)
        affine = np.asarray(data[self.reference].meta["volume_affine"]).reshape(4, 4)
        for key in self.keys:
            hu = network_to_hu(data[key])
            if not torch.isfinite(hu).all():
                raise ValueError(f"{key}: the reconstruction holds NaN or infinity; check the weights")
            if hu.min() == hu.max():
                raise ValueError(f"{key}: every voxel is {float(hu.max()):.0f} HU; check that the weights were trained")
            result[key] = MetaTensor(hu, affine=affine)
        return result


def _states_geometry(source: Source) -> bool:
    if isinstance(source, Mapping):
        return "geometry_file" in source
    return isinstance(source, (str, Path)) and (Path(source) / GEOMETRY_FILE).is_file()


def _facts(
    files: Mapping[str, str],
    views: Mapping[str, _View] | None = None,
    warnings: Sequence[str] = (),
    truth: str | None = None,
) -> dict[str, Any]:
    views = views or {}
    return {
        "files": dict(files),
        "options": {},
        "inputs": {name: view.facts for name, view in views.items()},
        "headers": {},
        "is_lossy": False,
        "truth": truth,
        "warnings": [*warnings, *(warning for view in views.values() for warning in view.warnings)],
    }


def _stack(views: Mapping[str, _View], geometry: BiplanarGeometry) -> np.ndarray:
    images = {name: fade_to_air(view.image, view.covered, geometry) for name, view in views.items()}
    nothing = np.zeros_like(next(iter(images.values())))
    return np.stack([images.get(name, nothing) for name in VIEWS]).astype(np.float32)


def _shown(pixels: np.ndarray) -> np.ndarray:
    """A film small enough to travel along."""
    every = -(-max(pixels.shape) // FILM_PIXELS)
    return np.ascontiguousarray(pixels[::every, ::every])
