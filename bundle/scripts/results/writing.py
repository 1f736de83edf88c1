"""Writing of results beside the network, in other processes."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import Any, NamedTuple

import torch

from scripts.io.options import require_whole


class _Job(NamedTuple):
    """A job and its arguments, kept to repeat it, and its outcome."""

    call: tuple[Any, ...]
    future: Future[Any]


class Writing:
    """Jobs that each write one folder: done at once, or by other processes while this one goes on.

    As a context manager it ends the other processes when the block ends. They finish their jobs if the user interrupts
    the run, and end with this process if it is killed.

    Args:
        workers: number of other processes; 0 for none.

    Raises:
        ValueError: ``workers`` is not a whole number of at least 0.
    """

    def __init__(self, workers: int = 0) -> None:
        require_whole(workers=workers)
        if workers < 0:
            raise ValueError(f"--workers must be at least 0, got {workers}; 0 writes results in the process itself")
        self.workers = workers
        self._jobs: dict[Path, _Job] = {}
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Writing:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        """Wait until every job has its outcome, and end the processes."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None

    def submit(self, folder: Path, write: Callable[..., Any], *args: Any) -> None:
        """Call ``write(folder, *args)``: now, or in another process, in which case :meth:`wait` must follow."""
        if self.workers == 0:
            write(folder, *args)
        else:
            self._jobs[folder] = self._started(write, folder, *args)

    def wait(self, folder: Path) -> None:
        """Wait until the job of ``folder`` is done; nothing happens if there is none.

        Wait for jobs in the order in which they were submitted.

        Raises:
            RuntimeError: the process that did it has died. The jobs submitted later are done all the same.
            Exception: that of the job.
        """
        if folder not in self._jobs:
            return
        future = self._jobs.pop(folder).future
        try:
            future.result()
        except BrokenExecutor as error:  # all jobs that were not done are lost, and the oldest is held to blame
            self._end()
            for other, job in self._jobs.items():
                if isinstance(job.future.exception(), BrokenExecutor):
                    self._jobs[other] = self._started(*job.call)
            raise RuntimeError(
                f"{folder.name}: the process that wrote it has died, perhaps for lack of memory; run the command again "
                "with fewer --workers"
            ) from error

    def _started(self, *call: Any) -> _Job:
        if self._pool is None:
            # spawn: forking a process that has used torch's threads can hang
            self._pool = ProcessPoolExecutor(self.workers, get_context("spawn"), initializer=_prepare)
        try:
            return _Job(call, self._pool.submit(*call))
        except BrokenExecutor as error:
            lost: Future[Any] = Future()
            lost.set_exception(error)
            return _Job(call, lost)


def _prepare() -> None:
    """Prepare a writing process: one thread, deaf to the keyboard, and ended when its parent has died."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None  # this runs in a child
    parent.join()
    os._exit(1)
