"""What is known of an exam once its radiographs are read, and how it travels with their image."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np
from monai.data import MetaTensor
from pydicom.dataset import Dataset

from scripts.exam.acquisition import Acquisition
from scripts.geometry import VIEWS


@dataclass(frozen=True)
class FilmFile:
    """The file of a film.

    Attributes:
        file: its path.
        modality: DICOM's, e.g. ``"DX"``; None if the file does not say.
        pixels: its rows and columns.
        intensity: what the pixels mean, one of :data:`~scripts.io.radiograph.SCALES`.
    """

    file: str
    modality: str | None
    pixels: tuple[int, int]
    intensity: str


@dataclass(frozen=True)
class ViewInput:
    """How one view became what the network sees.

    Attributes:
        acquisition: how it was taken; its warnings are among those of the exam.
        masked: share of its pixels that show neither the patient nor the air around.
        covered: share of the network's field that it shows.
        steps: what was done to its pixels, in words.
        film: its file; None for line integrals in a stated geometry.
    """

    acquisition: Acquisition
    masked: float
    covered: float
    steps: tuple[str, ...]
    film: FilmFile | None = None

    def to_dict(self) -> dict[str, Any]:
        """Flat and JSON-ready, for :meth:`from_dict`."""
        film = {} if self.film is None else asdict(self.film)
        taken = {name: value for name, value in asdict(self.acquisition).items() if name != "warnings"}
        return {**film, **taken, "masked": self.masked, "covered": self.covered, "steps": self.steps}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ViewInput:
        """The input that :meth:`to_dict` described."""
        taken = Acquisition(**{f.name: values[f.name] for f in fields(Acquisition) if f.name in values})
        film = None
        if "file" in values:
            rows, columns = values["pixels"]
            film = FilmFile(values["file"], values["modality"], (rows, columns), values["intensity"])
        return cls(taken, values["masked"], values["covered"], tuple(values["steps"]), film)


@dataclass(frozen=True, eq=False)
class Exam:
    """What was read.

    Attributes:
        name: what the exam is called.
        views: those that are used, frontal first.
        affine: RAS voxel-to-mm ``[4, 4]`` of the volume to reconstruct.
        files: sha256 of every file, by its path.
        options: what the user said about films, as :class:`~scripts.exam.load.FilmOptions` has it; empty for a case.
        inputs: by view; empty for line integrals that were taken in the network's geometry.
        headers: by view, what :class:`~scripts.io.radiograph.Radiograph` keeps of the DICOM header.
        is_lossy: whether a file was compressed with loss.
        truth: path of the true CT; None if it is not known.
        truth_sha256: its digest.
        warnings: what a reader of the result should know.
        films: by view, the pixels ``[rows, columns]`` as read, thinned out to be shown.
    """

    name: str
    views: tuple[str, ...]
    affine: np.ndarray
    files: Mapping[str, str]
    options: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, ViewInput] = field(default_factory=dict)
    headers: Mapping[str, Dataset] = field(default_factory=dict)
    is_lossy: bool = False
    truth: str | None = None
    truth_sha256: str | None = None
    warnings: tuple[str, ...] = ()
    films: Mapping[str, np.ndarray] = field(default_factory=dict)


def to_meta(exam: Exam) -> dict[str, Any]:
    """An exam as the ``meta`` of its image, for :func:`exam_of`.

    Arrays stay arrays. The rest is one JSON text, which MONAI's collation leaves alone.
    """
    stated = {
        "views": exam.views,
        "files": exam.files,
        "options": exam.options,
        "inputs": {view: given.to_dict() for view, given in exam.inputs.items()},
        "headers": {view: header.to_json_dict() for view, header in exam.headers.items()},
        "is_lossy": exam.is_lossy,
        "truth": exam.truth,
        "truth_sha256": exam.truth_sha256,
        "warnings": exam.warnings,
    }
    films = {_film_key(view): pixels for view, pixels in exam.films.items()}
    return {"name": exam.name, "volume_affine": exam.affine, "exam": json.dumps(stated), **films}


def exam_of(image: MetaTensor) -> Exam:
    """The exam that an image carries, collated and taken apart again or not."""
    stated = json.loads(image.meta["exam"])
    return Exam(
        name=str(image.meta["name"]),
        affine=np.asarray(image.meta["volume_affine"]).reshape(4, 4),
        views=tuple(stated.pop("views")),
        inputs={view: ViewInput.from_dict(given) for view, given in stated.pop("inputs").items()},
        headers={view: Dataset.from_json(header) for view, header in stated.pop("headers").items()},
        warnings=tuple(stated.pop("warnings")),
        films={view: np.asarray(image.meta[key]) for view in VIEWS if (key := _film_key(view)) in image.meta},
        **stated,
    )


def _film_key(view: str) -> str:
    return f"film_{view}"
