"""The account of a batch: a row per exam, kept even if the run is killed, in time linear in the number of exams."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import ignite.distributed as idist

from scripts.io.atomic import whole_file
from scripts.io.folders import SUMMARY_FILE
from scripts.io.processes import gathered, is_first
from scripts.io.text import write_text
from scripts.metrics.tables import to_csv

INDEX_FILE = "index.html"
_SHARE = re.compile(r"summary-\d+\.csv")
Row = dict[str, Any]


class Ledger:
    """Account of the exams of a batch in ``summary.csv`` and ``index.html``.

    As a context manager it completes both files when the block ends. Until then, a single process appends a line to
    ``summary.csv`` after every exam, and writes the index whenever the number of exams has doubled, so that a killed
    run has an account. Of several processes, each appends to its own ``summary-RANK.csv``; at the end the first one
    writes the account of all, in order of the exams, and removes these files.

    Args:
        folder: output folder, created if needed.
        total: number of exams of all processes.
        write_index: ``write_index(path, rows)``; None for no index.

    Attributes:
        share: indices of this process's exams.
        several: whether there are several exams.
        rows: rows of this process and, after the block, of all.
    """

    def __init__(
        self, folder: Path, total: int, write_index: Callable[[Path, Sequence[Mapping[str, Any]]], None] | None
    ) -> None:
        self.folder, self.total, self.write_index = folder, total, write_index
        self.processes = idist.get_world_size()
        self.share = range(idist.get_rank(), total, self.processes)
        self.several = total > 1
        self.rows: list[Row] = []
        name = SUMMARY_FILE if self.processes == 1 else f"summary-{idist.get_rank()}.csv"
        self.path = folder / name

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self._complete()
        elif self.processes == 1 and self.rows:
            self._write_index()

    def add(self, row: Row) -> None:
        """Add the row of the next exam of :attr:`share`; all rows have the same columns."""
        self.rows.append(row)
        if len(self.rows) == 1:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_text(self.path, to_csv([row]))
        else:
            with self.path.open("a", encoding="utf-8", errors="replace") as file:
                file.write(to_csv([row], header=False))
        count = len(self.rows)
        if self.processes == 1 and count & (count - 1) == 0:  # a power of two
            self._write_index()

    def _complete(self) -> None:
        """Write the account of all processes; none goes on, and may end the others by an error, before it is there."""
        rows: list[Row] = [{}] * self.total
        for rank, of_rank in enumerate(gathered(self.rows)):
            rows[rank :: self.processes] = of_rank
        self.rows = rows
        if is_first():
            write_text(self.folder / SUMMARY_FILE, to_csv(rows))
            self._write_index()
            for path in self.folder.iterdir():
                if _SHARE.fullmatch(path.name):
                    path.unlink()
        idist.barrier()

    def _write_index(self) -> None:
        if self.write_index is not None:
            with whole_file(self.folder / INDEX_FILE) as partial:
                self.write_index(partial, self.rows)
