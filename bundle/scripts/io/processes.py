"""The processes of one run: those that a launcher such as ``torchrun`` started together, or this one alone.

A launcher states each process's rank and their number in its environment. Every process does a share of the work, and
the first one writes what concerns all. This is ignite's ``idist`` with a group that any machine can form.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, TypeVar

import ignite.distributed as idist
import torch

T = TypeVar("T")
_LAUNCHED = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_GPUS = "CUDA_VISIBLE_DEVICES"
_PATIENCE = timedelta(days=7)
"""How long a process waits for a slower one; a launcher ends all when one has died."""


def join() -> None:
    """Join the processes that the launcher has started, each with its own GPU if there are any.

    Without a launcher, or if this process has joined before, nothing happens. The group uses gloo, since only results
    are exchanged.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) > 1 and idist.get_world_size() == 1:
        idist.initialize("gloo", timeout=_PATIENCE)
        if torch.cuda.is_available():
            torch.cuda.set_device(idist.get_local_rank() % torch.cuda.device_count())


def environment_alone() -> dict[str, str]:
    """Return the environment for a program that this process starts: without the launcher, on this process's GPU."""
    environment = {name: value for name, value in os.environ.items() if name not in _LAUNCHED}
    if idist.get_world_size() > 1 and torch.cuda.is_available():
        seen = os.environ.get(_GPUS, ",".join(map(str, range(torch.cuda.device_count())))).split(",")
        environment[_GPUS] = seen[torch.cuda.current_device()]
    return environment


def is_first() -> bool:
    """Return whether this process writes what concerns all."""
    return idist.get_rank() == 0


def block(items: Sequence[T]) -> Sequence[T]:
    """Return this process's share of ``items``: consecutive ones, so that joining all shares restores the order."""
    rank, count = idist.get_rank(), idist.get_world_size()
    return items[len(items) * rank // count : len(items) * (rank + 1) // count]


def gathered(value: T) -> list[T]:
    """Return the values of all processes, in order of rank, once each has called this.

    Raises:
        ValueError: another process has died.
    """
    try:
        every: Any = idist.all_gather((value,))
    except RuntimeError as error:
        raise ValueError(
            "another process of this run has died; run the command again, which does only what is missing"
        ) from error
    return [one for (one,) in every]
