"""Exams as MONAI transforms: two radiographs from wherever they are to network units, and predictions back to HU."""

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

from scripts.data.acquisition import Acquisition, acquire_exam, acquisitions_of
from scripts.data.exams import Source, exam_name
from scripts.data.familiarity import Reference
from scripts.data.films import linearise, useful_area
from scripts.data.rectify import deviations, rectify
from scripts.data.views import disagreements, find_views
from scripts.geometry import VIEWS, BiplanarGeometry
from scripts.intensity import network_to_hu, radiograph_to_network
from scripts.io.case import CT_FILE, GEOMETRY_FILE, IMAGE_FILES, Case, read_case, read_exam
from scripts.io.digest import sha256
from scripts.io.radiograph import SCALES, Radiograph
from scripts.io.refusal import refusals
from scripts.io.text import read_json

ACQUISITION_FILE = "acquisition.json"
"""Beside the radiographs of an exam: how they were taken, under the names of the options."""
FILM_PIXELS = 1024
"""Largest side of the film that travels along to be shown."""
MIN_COVERED = 0.9
"""Share of the network's field that a film should show."""
_CASE_FILES = (*IMAGE_FILES.values(), GEOMETRY_FILE)


@dataclass(frozen=True)
class FilmOptions:
    """What a user may say about films; everything that decides how one is read.

    Attributes:
        acquisition: overrides of :func:`~scripts.data.acquisition.acquire_exam`, by option name.
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
    """What was read: line integrals ``[2, N, N]``, the volume's affine, facts (see :class:`LoadExamd`), and films."""

    image: np.ndarray
    affine: np.ndarray
    facts: dict[str, Any]
    films: dict[str, np.ndarray]


class LoadExamd(MapTransform):
    """Reads an exam into network units: an image ``[2, N, N]`` whose ``meta`` carries everything else about it.

    The value under each key is a source, see :func:`~scripts.data.exams.find_exams`. A case folder, or a mapping with a
    ``geometry_file``, holds line integrals in a stated geometry; any other source holds films, whose geometry is that
    of their headers, of ``acquisition.json`` beside them, and of the options, the later winning. What was not taken in
    the network's geometry is resampled to it.

    ``meta`` holds ``name``, ``volume_affine`` (RAS, of the volume to reconstruct), of films their pixels as read
    (``film_frontal``, ``film_lateral``), and ``exam``: JSON text, which MONAI's collation leaves alone, with ``files``
    (path to sha256), ``options``, ``inputs`` (by view), ``headers`` (DICOM JSON, by view), ``is_lossy``, ``truth``
    (path of the CT or None) and ``warnings``.

    Args:
        keys: where the sources are, normally ``image``.
        geometry: the exam the network was trained for.
        options: what the user says about films.
        reference: what the training radiographs look like; None if that is not known.

    Raises:
        ValueError: unreadable, incomplete or implausible radiographs, or a geometry too far from the network's.
    """

    def __init__(
        self,
        keys: Hashable | list[Hashable],
        geometry: BiplanarGeometry,
        options: FilmOptions | None = None,
        reference: Reference | None = None,
    ) -> None:
        super().__init__(keys)
        self.geometry, self.options, self.reference = geometry, options or FilmOptions(), reference

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Replace the sources by images."""
        result = dict(data)
        for key in self.keys:
            with refusals(exam_name(data[key])):
                result[key] = self._load(data[key])
        return result

    def _load(self, source: Source) -> MetaTensor:
        exam = self._read_case(source) if _states_geometry(source) else self._read_films(source)
        exam.facts["warnings"] += disagreements(exam.image, self.geometry)
        if self.reference is not None:
            exam.facts["warnings"] += self.reference.warnings(exam.image)
        meta = {"name": exam_name(source), "volume_affine": exam.affine, "exam": json.dumps(exam.facts)}
        meta |= {f"film_{view}": pixels for view, pixels in exam.films.items()}
        return MetaTensor(radiograph_to_network(torch.from_numpy(exam.image)), meta=meta)

    def _read_case(self, source: Source) -> _Exam:
        case = read_exam(**source) if isinstance(source, Mapping) else read_case(source)
        files = source.values() if isinstance(source, Mapping) else [Path(source) / name for name in _CASE_FILES]
        digests = {str(path): sha256(path) for path in files}
        if case.geometry == self.geometry:
            truth = None if case.ct is None else str(Path(source) / CT_FILE)
            affine = np.asarray(case.affine, dtype=np.float64)
            return _Exam(case.image.numpy(), affine, _facts(digests, truth=truth), {})
        acquisitions = acquisitions_of(case.geometry)
        views = {
            name: self._resampled(pixels, np.ones(pixels.shape, dtype=bool), acquisitions[name], name)
            for name, pixels in zip(VIEWS, case.image.numpy(), strict=True)
        }
        warnings = self._accepted(acquisitions)
        return _Exam(_stack(views), self._centred_as(case), _facts(digests, views, warnings), {})

    def _read_films(self, source: Source) -> _Exam:
        films = find_views(source, self.options.frame)
        options = {name: value for name, value in self.options.acquisition.items() if value is not None}
        told = {**_acquisition_beside(source), **options}
        acquisitions = acquire_exam(films, told)
        warnings = self._accepted(acquisitions)
        views = {name: self._view(film, acquisitions[name], name) for name, film in films.items()}
        facts = _facts({film.path: film.sha256 for film in films.values()}, views, warnings)
        facts["options"] = asdict(self.options) | {"acquisition": told}
        facts["headers"] = {name: film.header.to_json_dict() for name, film in films.items()}
        facts["is_lossy"] = any(film.is_lossy for film in films.values())
        shown = {name: _shown(film.pixels) for name, film in films.items()}
        return _Exam(_stack(views), self.geometry.volume_affine(), facts, shown)

    def _view(self, radiograph: Radiograph, acquisition: Acquisition, name: str) -> _View:
        """One film: its values understood, resampled, and if they have no absolute scale, adapted."""
        film = linearise(replace(radiograph, scale=self.options.intensity or radiograph.scale), self.options.air_value)
        resampled = self._resampled(film.pixels, useful_area(film.pixels), acquisition, name)
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
                "repeats its edge"
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
    """

    def __init__(self, keys: Hashable | list[Hashable] = "pred", reference: Hashable = "image") -> None:
        super().__init__(keys)
        self.reference = reference

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Replace each prediction by a ``MetaTensor`` in HU."""
        result = dict(data)
        affine = np.asarray(data[self.reference].meta["volume_affine"]).reshape(4, 4)
        for key in self.keys:
            result[key] = MetaTensor(network_to_hu(data[key]), affine=affine)
        return result


def _states_geometry(source: Source) -> bool:
    if isinstance(source, Mapping):
        return "geometry_file" in source
    return isinstance(source, (str, Path)) and (Path(source) / GEOMETRY_FILE).is_file()


def _acquisition_beside(source: Source) -> dict[str, Any]:
    """How an exam was taken, as a file in its folder says; empty if there is none."""
    path = Path(source) / ACQUISITION_FILE if isinstance(source, (str, Path)) else None
    if path is None or not path.is_file():
        return {}
    told = read_json(path)
    if not isinstance(told, dict):
        raise ValueError(f"{path}: expected an object with the names of options, got {type(told).__name__}")
    return told


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


def _stack(views: Mapping[str, _View]) -> np.ndarray:
    return np.stack([views[name].image for name in VIEWS]).astype(np.float32)


def _shown(pixels: np.ndarray) -> np.ndarray:
    """A film small enough to travel along."""
    every = -(-max(pixels.shape) // FILM_PIXELS)
    return np.ascontiguousarray(pixels[::every, ::every])
