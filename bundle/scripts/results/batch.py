"""Reconstruction of many exams: a failure does not stop the others, and finished exams are not repeated."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events
from monai.data import DataLoader, Dataset, ThreadBuffer
from monai.engines import Evaluator
from tqdm import tqdm

from scripts import BUNDLE_ROOT
from scripts.io.atomic import require_replaceable
from scripts.io.errors import SomeFailed, stated_cause
from scripts.io.folders import RESULT_FILE
from scripts.io.options import require_whole
from scripts.io.processes import is_first
from scripts.results.ledger import Ledger
from scripts.results.record import Record
from scripts.results.save import SaveReconstructions

logger = logging.getLogger(__name__)
COLUMNS = ("exam", "status", "folder", "seconds", "reprojection_frontal", "reprojection_lateral", "warnings", "error")


@dataclass
class _Exam:
    """An exam that is not in the account yet.

    Attributes:
        index: its index among the exams of all processes.
        item: item with its image; None if it could not be read.
        place: folder named after it.
        folder: folder of its result.
        outcome: returns its part of a row, or raises what stopped it; None if it is still to be reconstructed.
    """

    index: int
    item: Mapping[str, Any] | None = None
    place: Path | None = None
    folder: Path | None = None
    outcome: Callable[[], dict[str, Any]] | None = None


class ReconstructAll:
    """Batch run of an evaluator over exams, summarised in ``summary.csv`` and ``index.html`` in ``output_dir``.

    The status is ``done``, ``kept`` (there was an earlier result of the same inputs and settings) or ``failed`` (with
    the error). The processes of a launcher deal the exams out among themselves; see
    :class:`~scripts.results.ledger.Ledger` for what each writes when.

    If the saver writes in other processes, the next exams are read and the last results written while the network
    runs; a few exams are in memory at a time.

    Args:
        evaluator: evaluator that reconstructs; its handlers include ``saver``.
        exams: data set of items with an ``image``; reading one may fail.
        names: names of the exams, in the same order.
        saver: handler that writes results and finds existing ones.
        overwrite: whether to repeat finished exams.
        batch_size: exams that the network reconstructs together. If this fails, each is reconstructed alone.
        write_index: ``write_index(path, rows)`` for the index; None for no index.

    Raises:
        ValueError: ``batch_size`` is not a whole number of at least 1.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        exams: Sequence[Mapping[str, Any]],
        names: Sequence[str],
        saver: SaveReconstructions,
        overwrite: bool = False,
        batch_size: int = 1,
        write_index: Callable[[Path, Sequence[Mapping[str, Any]]], None] | None = None,
    ) -> None:
        require_whole(batch_size=batch_size)
        if batch_size < 1:
            raise ValueError(f"--batch_size must be at least 1, got {batch_size}; 1 reconstructs exam by exam")
        self.evaluator, self.exams, self.names, self.saver = evaluator, exams, list(names), saver
        self.overwrite, self.batch_size, self.write_index = overwrite, batch_size, write_index
        self.error: BaseException | None = None
        # An engine does not run again after an exception has left it.
        evaluator.add_event_handler(Events.EXCEPTION_RAISED, self._remember)

    def __call__(self) -> None:
        """Reconstruct this process's share of the exams; the first process reports the failures of all.

        Raises:
            ValueError: there is no exam, or the only one cannot be reconstructed.
            SomeFailed: some of several exams failed.
        """
        if not self.names:
            raise ValueError(
                "nothing to reconstruct: give --input, a folder or zip with two radiographs, or --frontal and "
                f"--lateral; the demo is --input {BUNDLE_ROOT}/docs/demo"
            )
        ledger = Ledger(self.saver.output_dir, len(self.names), self.write_index)
        with ledger, self.saver.writing:
            self._reconstruct_all(ledger)
        failed = [row["error"] for row in ledger.rows if row["status"] == "failed"]
        if failed and is_first():
            raise SomeFailed(f"{len(failed)} of {len(ledger.rows)} exams", failed)

    def _reconstruct_all(self, ledger: Ledger) -> None:
        exams, beside = self._read(ledger.share), self.saver.writing.workers
        if beside:
            exams = iter(ThreadBuffer(exams, buffer_size=self.batch_size))
        line, behind = _Line(ledger, self.names), beside + self.batch_size if beside else 0
        with line:
            for exam in exams:
                if exam.item is not None:
                    if self.saver.named(exam.item["image"]) in line.places:  # its folder is not decided yet
                        self._reconstruct(line.waiting)
                        line.account()
                    self._look(exam)
                line.exams.append(exam)
                if len(line.waiting) >= self.batch_size:
                    self._reconstruct(line.waiting)
                line.account(behind)
            self._reconstruct(line.waiting)

    def _read(self, indices: Iterable[int]) -> Iterator[_Exam]:
        for index in indices:
            exam = _Exam(index)
            try:
                exam.item = self.exams[index]
            except Exception as error:  # no failure of one exam may stop the others
                exam.outcome = partial(_fail, error)
            yield exam

    def _look(self, exam: _Exam) -> None:
        """Decide on the folder of an exam, and whether there is something to do."""
        assert exam.item is not None  # it was read
        image = exam.item["image"]
        try:
            exam.folder, exam.place = self.saver.folder(image), self.saver.named(image)
            record = None if self.overwrite else self.saver.found(image)
            if record is None:
                require_replaceable(exam.folder, RESULT_FILE)
            else:
                logger.info("%s: kept, same inputs and settings; repeat it with --overwrite true", exam.folder)
                exam.outcome = partial(_row, "kept", exam.folder.name, record)
        except Exception as error:
            exam.outcome = partial(_fail, error)

    def _reconstruct(self, exams: Sequence[_Exam]) -> None:
        """Reconstruct a batch of exams, or if it fails, each on its own, so that a bad one costs only itself."""
        error = self._evaluate([exam.item for exam in exams]) if exams else None
        if error is not None and len(exams) > 1:
            logger.warning("%d exams together: %s; they are reconstructed one by one", len(exams), _message(error))
            del error  # its traceback holds the tensors of the batch
            for exam in exams:
                self._reconstruct([exam])
            return
        for exam in exams:
            exam.outcome = partial(self._written, exam) if error is None else partial(_fail, error)

    def _evaluate(self, items: Sequence[Mapping[str, Any] | None]) -> Exception | None:
        """Return the error that stopped the evaluator, or None."""
        self.error = None  # also an interruption comes by EXCEPTION_RAISED
        self.evaluator.data_loader = DataLoader(Dataset(items), batch_size=len(items))
        self.evaluator.state.epoch_length = 1
        try:
            self.evaluator.run()
        except Exception as error:
            self.error = error
        stopped, self.error = self.error, None
        if stopped is not None and not isinstance(stopped, Exception):
            raise stopped
        return stopped

    def _written(self, exam: _Exam) -> dict[str, Any]:
        assert exam.item is not None and exam.folder is not None  # it was looked at
        self.saver.writing.wait(exam.folder)
        record = self.saver.found(exam.item["image"])
        if record is None:
            raise RuntimeError(f"{exam.folder.name}: the evaluator saved no result; its handlers include the saver")
        return _row("done", exam.folder.name, record)

    def _remember(self, engine: Engine, error: BaseException) -> None:
        self.error = error


class _Line:
    """Exams in their order, from their reading to their row in the account.

    As a context manager it accounts at the end, also of an interrupted run, for all that were reconstructed.
    """

    def __init__(self, ledger: Ledger, names: Sequence[str]) -> None:
        self.ledger, self.names = ledger, names
        self.exams: deque[_Exam] = deque()
        hidden = None if ledger.several and is_first() else True
        self.bar = tqdm(total=len(ledger.share), desc="exams", unit="exam", disable=hidden)

    def __enter__(self) -> _Line:
        return self

    def __exit__(self, *error: object) -> None:
        with self.bar:
            self.account()

    @property
    def waiting(self) -> list[_Exam]:
        """Return the exams that are still to be reconstructed."""
        return [exam for exam in self.exams if exam.outcome is None]

    @property
    def places(self) -> set[Path | None]:
        """Return the folders named after the exams."""
        return {exam.place for exam in self.exams}

    def account(self, left: int = 0) -> None:
        """Account for the first exams until so many are left, or one that was not reconstructed."""
        while len(self.exams) > left and self.exams[0].outcome is not None:
            exam = self.exams.popleft()
            self.ledger.add(dict.fromkeys(COLUMNS, "") | {"exam": self.names[exam.index]} | self._outcome(exam))
            self.bar.update()

    def _outcome(self, exam: _Exam) -> dict[str, Any]:
        assert exam.outcome is not None  # the caller has asked
        try:
            return exam.outcome()
        except Exception as error:
            if not self.ledger.several:
                raise
            logger.error("%s: %s", self.names[exam.index], _message(error))
            return {"status": "failed", "error": _message(error)}


def _fail(error: Exception) -> dict[str, Any]:
    raise error


def _row(status: str, folder: str, record: Record) -> dict[str, Any]:
    return {
        "status": status,
        "folder": folder,
        "seconds": record.seconds,
        **{f"reprojection_{view}": error for view, error in record.reprojection_error.items()},
        "warnings": len(record.warnings),
    }


def _message(error: Exception) -> str:
    """Return the message for the user: the stated cause if there is one, else the error's type and text."""
    cause = stated_cause(error)
    return str(cause) if cause is not None else f"unexpected {type(error).__name__}: {error}"
