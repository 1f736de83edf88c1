"""Executors of the preparation on one machine."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import torch

from scripts.io.options import require_whole


def local_processes(workers: int) -> ProcessPoolExecutor | None:
    """Return an executor of ``workers`` processes with one thread each; None for one, which needs no other process.

    Raises:
        ValueError: ``workers`` is not a whole number.
    """
    require_whole(workers=workers)
    if workers <= 1:
        return None
    # spawn: forking a process that has used torch's threads can hang
    return ProcessPoolExecutor(workers, get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,))
