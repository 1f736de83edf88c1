"""Description of an exam once its radiographs are read, attached to their image as metadata."""

from __future__ import annotations

import io
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
    """File of a film.

    Attributes:
        file: path of the file.
        modality: DICOM modality, e.g. ``"DX"``; None if the file states none.
        pixels: rows and columns.
        intensity: meaning of the pixels, one of :data:`~scripts.io.radiograph.SCALES`.
    """

    file: str
    modality: str | None
    pixels: tuple[int, int]
    intensity: str


@dataclass(frozen=True)
class ViewInput:
    """Processing of one view to the network's input.

    Attributes:
        acquisition: acquisition of the film; its warnings are among those of the exam.
        masked: fraction of its pixels that show neither the patient nor the surrounding air.
        covered: fraction of the network's field that it shows.
        steps: processing steps, in words.
        film: file of the film; None for line integrals in a stated geometry.
    """

    acquisition: Acquisition
    masked: float
    covered: float
    steps: tuple[str, ...]
    film: FilmFile | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return a flat, JSON-ready dictionary for :meth:`from_dict`."""
        film = {} if self.film is None else asdict(self.film)
        taken = {name: value for name, value in asdict(self.acquisition).items() if name != "warnings"}
        return {**film, **taken, "masked": self.masked, "covered": self.covered, "steps": self.steps}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ViewInput:
        """Restore an input from :meth:`to_dict`."""
        taken = Acquisition(**{f.name: values[f.name] for f in fields(Acquisition) if f.name in values})
        film = None
        if "file" in values:
            rows, columns = values["pixels"]
            film = FilmFile(values["file"], values["modality"], (rows, columns), values["intensity"])
        return cls(taken, values["masked"], values["covered"], tuple(values["steps"]), film)


@dataclass(frozen=True, eq=False)
class Exam:
    """Exam as read from its files.

    Attributes:
        name: name of the exam.
        views: views that are used, frontal first.
        affine: RAS voxel-to-mm ``[4, 4]`` of the volume to reconstruct.
        files: SHA-256 of every file by path.
        options: the user's options for films, see :class:`~scripts.exam.load.FilmOptions`; empty for a case.
        inputs: processing by view; empty for line integrals taken in the result's geometry.
        headers: DICOM headers by view, as kept in :class:`~scripts.io.radiograph.Radiograph`.
        is_lossy: whether a file has lossy compression.
        truth: path of the true CT; None if it is not known.
        truth_sha256: digest of the true CT.
        warnings: notes for readers of the result.
        films: pixels ``[rows, columns]`` by view as read, subsampled for display.
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
    """Convert an exam to the ``meta`` of its image, for :func:`exam_of`.

    All but the affine is text and bytes, which MONAI's collation does not touch, so that exams with films of any shape
    can be collated.
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
    return {
        "name": exam.name,
        "volume_affine": exam.affine,
        "exam": json.dumps(stated),
        "films": {view: _to_bytes(exam.films[view]) if view in exam.films else b"" for view in VIEWS},
    }


def exam_of(image: MetaTensor) -> Exam:
    """Return the exam attached to an image, whether or not it was collated and decollated."""
    stated = json.loads(image.meta["exam"])
    return Exam(
        name=str(image.meta["name"]),
        affine=np.asarray(image.meta["volume_affine"]).reshape(4, 4),
        views=tuple(stated.pop("views")),
        inputs={view: ViewInput.from_dict(given) for view, given in stated.pop("inputs").items()},
        headers={view: Dataset.from_json(header) for view, header in stated.pop("headers").items()},
        warnings=tuple(stated.pop("warnings")),
        films={view: np.load(io.BytesIO(film)) for view, film in image.meta["films"].items() if film},
        **stated,
    )


def _to_bytes(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()
