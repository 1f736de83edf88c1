"""MONAI transform that loads exams: from files of radiographs to the network's input."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform

from scripts.exam.acquisition import Acquisition, acquire_exam, acquisitions_of, overridden
from scripts.exam.exam import Exam, FilmFile, ViewInput, to_meta
from scripts.exam.familiarity import Reference
from scripts.exam.film_values import check_film, linearise, useful_area
from scripts.exam.find import Source, exam_name
from scripts.exam.rectify import deviations, fade_to_air, rectify
from scripts.exam.views import BOTH, ViewChoice, disagreements, find_exam
from scripts.geometry import VIEWS, BiplanarGeometry
from scripts.intensity import radiograph_to_network
from scripts.io.case import CT_FILE, GEOMETRY_FILE, IMAGE_FILES, Case, read_case, read_exam
from scripts.io.digest import sha256
from scripts.io.options import require_number, require_whole
from scripts.io.radiograph import SCALES, Radiograph
from scripts.io.refusal import refusals
from scripts.resolution import coarsened

FILM_PIXELS = 1024
"""Largest side of the copy of a film that is kept for display."""
MIN_COVERED = 0.9
"""Fraction of the network's field that a film should show."""
_ABSOLUTE = ("line_integral", "counts")
"""Scales with an absolute attenuation."""
_DEPTH = {"frontal": "from front to back", "lateral": "from right to left"}
"""Direction that a view does not show."""


@dataclass(frozen=True)
class FilmOptions:
    """User options that determine how films are read.

    Attributes:
        acquisition: overrides of :func:`~scripts.exam.acquisition.acquire_exam`, by option name.
        intensity: meaning of the pixels, one of :data:`~scripts.io.radiograph.SCALES`, overriding the file.
        air_value: pixel value of the unattenuated beam, for ``counts``.
        adapt_intensity: whether films without an absolute scale are matched to simulated radiographs.
        frame: index in a multi-frame file.
    """

    acquisition: Mapping[str, Any] = field(default_factory=dict)
    intensity: str | None = None
    air_value: float | None = None
    adapt_intensity: bool = True
    frame: int | None = None

    def __post_init__(self) -> None:
        if self.intensity not in (None, *SCALES):
            raise ValueError(f"--intensity: choose one of {', '.join(SCALES)}; got {self.intensity!r}")
        if self.air_value is not None:
            require_number(air_value=self.air_value)
        if self.frame is not None:
            require_whole(frame=self.frame)


class _View(NamedTuple):
    """One radiograph in the network's frame: pixels ``[N, N]``, the mask of those it shows, and its processing."""

    pixels: np.ndarray
    covered: np.ndarray
    input: ViewInput
    warnings: tuple[str, ...]


class _Read(NamedTuple):
    """Line integrals ``[2, N, N]``, 0 for an unused view, and their description."""

    line_integrals: np.ndarray
    exam: Exam


class LoadExamd(MapTransform):
    """Loader of an exam in network units: an image ``[2, N, N]`` that carries an :class:`~scripts.exam.exam.Exam`.

    The value under each key is a source; :func:`~scripts.exam.find.find_exams` returns sources with a ``name``, which
    is otherwise derived from the source. A case folder, or a mapping with a ``geometry_file``, holds line integrals in
    a stated geometry. Any other source holds films; their geometry comes from their headers, the ``acquisition.json``
    next to them and the options, of which the later ones take precedence. Images in another geometry than the result's
    are resampled. What they show is checked at the network's resolution. An unused view may be missing; its channel is
    0.

    Args:
        keys: keys of the sources, normally ``image``.
        geometry: the exam the network was trained for.
        options: the user's options for films.
        reference: statistics of the training radiographs; None if unknown.
        choice: views to use.
        factor: voxels and pixels per side of the result's geometry for each of the network's.

    Raises:
        ValueError: radiographs are unreadable, incomplete or implausible, or their geometry is too far from the
            network's.
    """

    def __init__(
        self,
        keys: Hashable | list[Hashable],
        geometry: BiplanarGeometry,
        options: FilmOptions | None = None,
        reference: Reference | None = None,
        choice: ViewChoice = BOTH,
        factor: int = 1,
    ) -> None:
        super().__init__(keys)
        self.network_geometry, self.geometry, self.factor = geometry, geometry.finer(factor), int(factor)
        self.options, self.reference = options or FilmOptions(), reference
        self.choice = choice

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Replace the sources by images."""
        result = dict(data)
        for key in self.keys:
            name = data.get("name") or exam_name(data[key])
            with refusals(name):
                result[key] = self._load(data[key], name)
        return result

    def _load(self, source: Source, name: str) -> MetaTensor:
        line_integrals, exam = self._read(source, name)
        is_absolute = all(given.film is None or given.film.intensity in _ABSOLUTE for given in exam.inputs.values())
        seen = coarsened(torch.from_numpy(line_integrals)[None], self.factor)[0].numpy()
        compared = disagreements(seen, self.network_geometry, is_absolute)
        warnings = (*self._of_one_view(), *exam.warnings, *compared)
        if self.reference is not None:
            warnings += tuple(self.reference.warnings(seen, self.choice.used))
        meta = to_meta(replace(exam, warnings=warnings))
        return MetaTensor(radiograph_to_network(torch.from_numpy(line_integrals)), meta=meta)

    def _of_one_view(self) -> list[str]:
        if self.choice.is_both:
            return []
        (view,) = self.choice.used
        return [
            f"reconstructed from the {view} view alone: where things lie {_DEPTH[view]} is what the network expects, "
            "not what was measured"
        ]

    def _read(self, source: Source, name: str) -> _Read:
        files = _case_files(source, self.choice)
        if not files:
            return self._read_films(source, name)
        if isinstance(source, (str, Path)):
            return self._read_case(name, read_case(source, self.choice.used), files)
        case = read_exam({view: files[view] for view in self.choice.used}, files["geometry_file"])
        return self._read_case(name, case, files)

    def _read_case(self, name: str, case: Case, files: Mapping[str, Path]) -> _Read:
        exam = Exam(
            name=name,
            views=self.choice.used,
            affine=np.asarray(case.affine, dtype=np.float64),
            files={str(path): sha256(path) for path in files.values()},
        )
        if case.geometry != self.geometry:
            return self._resampled_case(case, exam)
        if case.ct is None:
            return _Read(case.line_integrals.numpy(), exam)
        truth = files["geometry_file"].parent / CT_FILE
        return _Read(case.line_integrals.numpy(), replace(exam, truth=str(truth), truth_sha256=sha256(truth)))

    def _resampled_case(self, case: Case, exam: Exam) -> _Read:
        acquisitions = acquisitions_of(case.geometry)
        views = {
            view: self._resampled(pixels, np.ones(pixels.shape, dtype=bool), acquisitions[view], view)
            for view, pixels in zip(VIEWS, case.line_integrals.numpy(), strict=True)
            if view in self.choice.used
        }
        warnings = self._accepted({view: acquisitions[view] for view in views})
        exam = replace(exam, affine=self._centred_as(case), **_told_by(views, warnings))
        return _Read(_stack(views, self.geometry), exam)

    def _read_films(self, source: Source, name: str) -> _Read:
        films, told = find_exam(source, self.options.frame, self.choice, self.options.intensity)
        told = overridden(told, self.options.acquisition)
        acquisitions = acquire_exam(films, told)
        warnings = self._accepted(acquisitions)
        views = {view: self._view(film, acquisitions[view], view) for view, film in films.items()}
        exam = Exam(
            name=name,
            views=self.choice.used,
            affine=self.geometry.volume_affine(),
            files={film.path: film.sha256 for film in films.values()},
            options=asdict(self.options) | {"acquisition": told},
            headers={view: film.header for view, film in films.items()},
            is_lossy=any(film.is_lossy for film in films.values()),
            films={view: _shown(film.pixels) for view, film in films.items()},
            **_told_by(views, warnings),
        )
        return _Read(_stack(views, self.geometry), exam)

    def _view(self, radiograph: Radiograph, acquisition: Acquisition, name: str) -> _View:
        """Process one film: linearise its values, resample it, and adapt the values if they have no absolute scale."""
        radiograph = replace(radiograph, scale=self.options.intensity or radiograph.scale)
        film = linearise(radiograph, self.options.air_value)
        area = useful_area(film.pixels, radiograph.shown)
        checked = check_film(film, radiograph, area)
        try:
            view = self._resampled(film.pixels, area, acquisition, name)
        except ValueError as error:
            raise ValueError(f"{radiograph.path}: {error}") from error
        pixels, steps = view.pixels, (*film.steps, *view.input.steps)
        if not film.is_absolute:
            pixels = self._adapted(radiograph, view, name)
            steps += ("values matched by rank to those of the training radiographs; absolute attenuation is lost",)
        rows, columns = radiograph.pixels.shape
        file = FilmFile(radiograph.path, radiograph.modality, (rows, columns), radiograph.scale)
        return _View(
            pixels,
            view.covered,
            replace(view.input, film=file, steps=steps),
            (*radiograph.warnings, *acquisition.warnings, *film.warnings, *checked, *view.warnings),
        )

    def _resampled(self, pixels: np.ndarray, mask: np.ndarray, acquisition: Acquisition, name: str) -> _View:
        image, covered = rectify(pixels, mask, acquisition, name, self.geometry)
        share = float(covered.mean())
        step = f"resampled from {pixels.shape[0]} x {pixels.shape[1]} to {image.shape[0]} x {image.shape[1]} pixels"
        warnings: tuple[str, ...] = ()
        if share < MIN_COVERED:
            warnings = (
                f"the {name} film shows {share:.0%} of what the network looks at (limit {MIN_COVERED:.0%}); the rest "
                "repeats its edge, which beside the patient fades to air",
            )
        return _View(image, covered, ViewInput(acquisition, float(1 - mask.mean()), share, (step,)), warnings)

    def _adapted(self, radiograph: Radiograph, view: _View, name: str) -> np.ndarray:
        if self.reference is None or not self.options.adapt_intensity:
            why = "there is no reference to adapt them to" if self.reference is None else "--adapt_intensity is false"
            raise ValueError(
                f"{radiograph.path}: its pixels have no absolute scale, and {why}; give line integrals or counts "
                "(with --intensity if the file does not say so), or let the values be adapted"
            )
        return self.reference.adapted(name, view.pixels, view.covered)

    def _accepted(self, acquisitions: Mapping[str, Acquisition]) -> list[str]:
        warnings, reasons = deviations(acquisitions, self.network_geometry)
        if reasons:
            raise ValueError("; ".join(reasons))
        return warnings

    def _centred_as(self, case: Case) -> np.ndarray:
        """Return the affine of the result's grid, centred on the case's grid."""
        affine = self.geometry.volume_affine()
        middle = [*((n - 1) / 2 for n in case.geometry.volume_shape), 1.0]
        affine[:3, 3] += (case.affine @ middle)[:3]
        return affine


def _case_files(source: Source, choice: ViewChoice) -> dict[str, Path]:
    """Return the files of the used views and the geometry by key; empty if the source states no geometry."""
    if isinstance(source, Mapping):
        names = (*choice.used, "geometry_file") if "geometry_file" in source else ()
        return {name: Path(source[name]) for name in names}
    if not isinstance(source, (str, Path)) or not (Path(source) / GEOMETRY_FILE).is_file():
        return {}
    files = {view: Path(source) / IMAGE_FILES[view] for view in choice.used}
    missing = [view for view, path in files.items() if not path.is_file()]
    if len(missing) == 1 and choice.hint:
        raise ValueError(f"{files[missing[0]]}: the {missing[0]} view is missing{choice.hint}")
    return files | {"geometry_file": Path(source) / GEOMETRY_FILE}


def _told_by(views: Mapping[str, _View], warnings: Sequence[str]) -> dict[str, Any]:
    """Return the exam's inputs and warnings: first those on all views, then those on each."""
    of_views = (warning for view in views.values() for warning in view.warnings)
    return {"inputs": {name: view.input for name, view in views.items()}, "warnings": (*warnings, *of_views)}


def _stack(views: Mapping[str, _View], geometry: BiplanarGeometry) -> np.ndarray:
    faded = {name: fade_to_air(view.pixels, view.covered, geometry) for name, view in views.items()}
    nothing = np.zeros_like(next(iter(faded.values())))
    return np.stack([faded.get(name, nothing) for name in VIEWS]).astype(np.float32)


def _shown(pixels: np.ndarray) -> np.ndarray:
    """Subsample a film for display."""
    every = -(-max(pixels.shape) // FILM_PIXELS)
    return np.ascontiguousarray(pixels[::every, ::every])
