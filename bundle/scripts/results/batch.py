"""Reconstruction of many exams: a failure does not stop the others, and finished exams are not repeated."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events
from monai.data import DataLoader, Dataset
from monai.engines import Evaluator
from tqdm import tqdm

from scripts import BUNDLE_ROOT
from scripts.io.atomic import require_replaceable
from scripts.io.errors import SomeFailed, stated_cause
from scripts.io.folders import RESULT_FILE
from scripts.io.processes import is_first
from scripts.results.ledger import Ledger
from scripts.results.record import Record
from scripts.results.save import SaveReconstructions

logger = logging.getLogger(__name__)
COLUMNS = ("exam", "status", "folder", "seconds", "reprojection_frontal", "reprojection_lateral", "warnings", "error")


class ReconstructAll:
    """Batch run of an evaluator, exam by exam, summarised in ``summary.csv`` and ``index.html`` in ``output_dir``.

    The status is ``done``, ``kept`` (there was an earlier result of the same inputs and settings) or ``failed`` (with
    the error). The processes of a launcher deal the exams out among themselves; see
    :class:`~scripts.results.ledger.Ledger` for what each writes when.

    Args:
        evaluator: evaluator that reconstructs; its handlers include ``saver``.
        exams: data set of items with an ``image``; reading one may fail.
        names: names of the exams, in the same order.
        saver: handler that writes results and finds existing ones.
        overwrite: whether to repeat finished exams.
        write_index: ``write_index(path, rows)`` for the index; None for no index.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        exams: Sequence[Mapping[str, Any]],
        names: Sequence[str],
        saver: SaveReconstructions,
        overwrite: bool = False,
        write_index: Callable[[Path, Sequence[Mapping[str, Any]]], None] | None = None,
    ) -> None:
        self.evaluator, self.exams, self.names, self.saver = evaluator, exams, list(names), saver
        self.overwrite, self.write_index = overwrite, write_index
        self.error: Exception | None = None
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
        hidden = None if ledger.several and is_first() else True
        with ledger:
            for index in tqdm(ledger.share, "exams", unit="exam", disable=hidden):
                ledger.add(dict.fromkeys(COLUMNS, "") | {"exam": self.names[index]} | self._attempt(index, ledger))
        failed = [row["error"] for row in ledger.rows if row["status"] == "failed"]
        if failed and is_first():
            raise SomeFailed(f"{len(failed)} of {len(ledger.rows)} exams", failed)

    def _attempt(self, index: int, ledger: Ledger) -> dict[str, Any]:
        try:
            return self._one(index)
        except Exception as error:  # no failure of one exam may stop the others
            if not ledger.several:
                raise
            logger.error("%s: %s", self.names[index], _message(error))
            return {"status": "failed", "error": _message(error)}

    def _one(self, index: int) -> dict[str, Any]:
        item = self.exams[index]
        folder = self.saver.folder(item["image"])
        record = None if self.overwrite else self.saver.found(item["image"])
        if record is not None:
            logger.info("%s: kept, same inputs and settings; repeat it with --overwrite true", folder)
            return _row("kept", folder.name, record)
        self._reconstruct(item, folder)
        record = self.saver.found(item["image"])
        if record is None:
            raise RuntimeError(f"{folder.name}: the evaluator saved no result; its handlers include the saver")
        return _row("done", folder.name, record)

    def _reconstruct(self, item: Mapping[str, Any], folder: Path) -> None:
        require_replaceable(folder, RESULT_FILE)
        self.error = None
        self.evaluator.data_loader = DataLoader(Dataset([item]), batch_size=1)
        self.evaluator.state.epoch_length = 1
        self.evaluator.run()
        if self.error is not None:
            raise self.error

    def _remember(self, engine: Engine, error: Exception) -> None:
        self.error = error


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
