"""The exam on the page, from its files to its result: one at a time, in a folder that ends with it."""

from __future__ import annotations

import logging
import shutil
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from answers import asked, options
from workflow import Workflow

from scripts.exam.contents import radiographs
from scripts.exam.exam import Exam, exam_of
from scripts.exam.read import read_radiographs
from scripts.geometry import VIEWS
from scripts.io.archive import unpacked
from scripts.io.errors import stated_cause
from scripts.io.names import safe_name
from scripts.io.radiograph import Radiograph
from scripts.report.page import PAGE_FILE
from scripts.report.scales import GREY, Picture, coloured, picture

FILM_PIXELS = 320
"""Largest number of pixels along each side of a film on the page."""
EXAM = "exam"
"""Name of every exam: names from outside name nothing here but files."""
logger = logging.getLogger(__name__)


class Busy(RuntimeError):
    """Error for a change while a reconstruction runs."""


class Stopped(RuntimeError):
    """Error that ends a reconstruction whose result nobody wants any more."""


class Film(NamedTuple):
    """File with a radiograph: its picture is None if it cannot be read."""

    name: str
    picture: Picture | None


@dataclass
class Stage:
    """What the page shows.

    Attributes:
        films: radiographs among the files.
        answers: texts of the form, by name.
        exam: the exam as the bundle reads it; None if it refuses.
        message: the refusal.
        running: what is going on, or an empty text.
        share: share of the sampler's steps that are done.
        result: folder of the result.
    """

    films: list[Film] = field(default_factory=list)
    answers: dict[str, str] = field(default_factory=dict)
    exam: Exam | None = None
    message: str = ""
    running: str = ""
    share: float = 0.0
    result: Path | None = None

    @property
    def asked(self) -> set[str]:
        """Options that the refusal names."""
        return asked(self.message)


class Desk:
    """The exam that the page works on. Methods are called by the threads of a server.

    Everything is in one temporary folder, which :meth:`close` removes.

    Args:
        workflow: the bundle's workflow.
    """

    def __init__(self, workflow: Workflow) -> None:
        self.workflow, self.stage = workflow, Stage()
        self._home = tempfile.TemporaryDirectory(prefix="two-films-", ignore_cleanup_errors=True)
        self._folder, self._lock = Path(self._home.name), threading.Lock()
        self._worker: threading.Thread | None = None
        self._stopped = False

    def take(self, files: Iterable[tuple[str, BinaryIO]]) -> None:
        """Replace the exam by the content of files, unpacking zips; a refusal is in the stage's message.

        Args:
            files: name and content of each file. Of a name, only letters, digits, ``.``, ``_`` and ``-`` remain.

        Raises:
            Busy: a reconstruction runs.
        """
        with self._idle():
            self._empty()
            films = self._folder / "films" / EXAM
            films.mkdir(parents=True)
            try:
                for name, content in files:
                    _keep(films, name, content)
                self.stage.films = [Film(path.name, _picture(path)) for path in radiographs(films)]
            except Exception as error:
                self._refuse(error)
            else:
                self._check()

    def answer(self, answers: Mapping[str, str]) -> None:
        """Read the exam again with what the form says, see :func:`answers.options`.

        Raises:
            Busy: a reconstruction runs.
        """
        with self._idle():
            self.stage = Stage(films=self.stage.films, answers=dict(answers))
            shutil.rmtree(self._folder / "output", ignore_errors=True)
            self._check()

    def start(self) -> None:
        """Start to reconstruct the exam, if the bundle accepts it.

        Raises:
            Busy: a reconstruction runs.
        """
        with self._idle():
            if self.stage.exam is not None and self.stage.result is None:
                self.stage.running, self.stage.message = "Reconstructing", ""
                self._worker = threading.Thread(target=self._reconstruct, daemon=True)
                self._worker.start()

    def clear(self) -> None:
        """Remove the exam and all of its files.

        Raises:
            Busy: a reconstruction runs.
        """
        with self._idle():
            self._empty()

    def close(self) -> None:
        """Stop, after the step that is being computed, and remove all files."""
        self._stopped = True
        if self._worker is not None:
            self._worker.join()
        self._home.cleanup()

    @contextmanager
    def _idle(self) -> Iterator[None]:
        with self._lock:
            if self.stage.running:
                raise Busy("a reconstruction is running; wait until it has ended")
            yield

    def _empty(self) -> None:
        self.stage = Stage()
        for path in self._folder.iterdir():
            shutil.rmtree(path)

    def _options(self) -> dict[str, Any]:
        films = self._folder / "films" / EXAM
        told = options(self.stage.answers, [film.name for film in self.stage.films])
        named = {view: str(films / told[view]) for view in VIEWS if view in told}
        return {**told, **(named or {"input": str(films)})}

    def _check(self) -> None:
        try:
            exam = exam_of(self.workflow.check(self._options()))
        except Exception as error:
            self._refuse(error)
        else:
            self.stage.exam = replace(exam, warnings=tuple(map(self._shown, exam.warnings)))

    def _reconstruct(self) -> None:
        stage = self.stage
        try:
            self.workflow.run(self._options(), self._folder / "output", self._progress)
            (report,) = (self._folder / "output").glob(f"*/{PAGE_FILE}")
            shutil.make_archive(str(report.with_name("dicom")), "zip", report.parent / "dicom")
            stage.result = report.parent
        except Exception as error:
            self._refuse(error)
        finally:
            stage.running = ""

    def _progress(self, step: int, steps: int) -> None:
        if self._stopped:
            raise Stopped("the page was closed")
        self.stage.share = (step + 1) / steps
        done = f"Reconstructing: {step + 1} of {steps} steps done"
        self.stage.running = (
            done if step + 1 < steps else "Meeting the films at full resolution, writing the series and the report"
        )

    def _refuse(self, error: Exception) -> None:
        """Show an error as the command line does; one that is not the user's has its traceback in the terminal."""
        cause = stated_cause(error)
        if cause is None and not self._stopped:
            logger.error("unexpected error", exc_info=error)
        text = f"unexpected {type(error).__name__}; the terminal says more" if cause is None else str(cause)
        self.stage.message = self._shown(text)

    def _shown(self, text: str) -> str:
        """Return a text that names the films as the page does."""
        return text.replace(f"{self._folder / 'films' / EXAM}/", "")


def _keep(folder: Path, name: str, content: BinaryIO) -> None:
    """Save a file under a name of its own in ``folder``, or the files in it if it is a zip."""
    path = _free(folder, name)
    with path.open("xb") as file:
        shutil.copyfileobj(content, file)
    if path.suffix.lower() == ".zip":
        with unpacked(path) as inside:
            for inner in sorted(inner for inner in inside.rglob("*") if inner.is_file()):
                shutil.move(inner, _free(folder, inner.name))
        path.unlink()


def _free(folder: Path, name: str) -> Path:
    """Return a path for a file of this name; a number after it tells it from an earlier file."""
    path = folder / safe_name(name.replace("\\", "/").rpartition("/")[2])
    numbered = (path.with_stem(f"{path.stem}-{number}") for number in count(2))
    while path.exists():
        path = next(numbered)
    return path


def _picture(path: Path) -> Picture | None:
    try:
        film, *more = read_radiographs(path)
    except ValueError:  # the check of the exam says why
        return None
    return None if more else picture(_grey(film))


def _grey(film: Radiograph) -> np.ndarray:
    """Show a film small, with bone bright, between its 1st and 99th percentile."""
    every = -(-max(film.pixels.shape) // FILM_PIXELS)
    small = film.pixels[::every, ::every] * (-1 if film.scale == "counts" else 1)
    low, high = np.percentile(small, (1, 99))
    return coloured(small, GREY, low, max(high, low + 1e-6))
