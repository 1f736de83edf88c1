"""Presentation of errors to users."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from types import TracebackType

import torch

from scripts.io.refusal import one_line

TRACEBACK_VARIABLE = "BUNDLE_TRACEBACK"
INTERRUPTED = 130
_FOR_LESS_MEMORY = (
    "to use less memory, take a smaller --batch_size, reconstruct with --sample_batch 1, or use --device cpu"
)


class SomeFailed(ValueError):
    """Error for some failures among many, raised after all others are done; its text lists the failures.

    Args:
        count: how many of how many, e.g. ``2 of 5 cases``.
        failures: description of each failure.
    """

    def __init__(self, count: str, failures: Iterable[str]) -> None:
        failures = list(failures)
        super().__init__(count, failures)
        self.failures = failures

    def __str__(self) -> str:
        return "\n".join([f"{self.args[0]} failed:", *self.failures])


def stated_cause(error: BaseException) -> ValueError | None:
    """Return the outermost error of a chain of causes that tells the user what to do, or None if there is none.

    This is a ``ValueError``, or one that replaces an error of the file system or of a full GPU. Errors further out are
    MONAI's wrappers, which are ``RuntimeError``; errors further in come from libraries.
    """
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, ValueError):
            return link
        if isinstance(link, OSError) and link.strerror:
            return ValueError(one_line(f"{link}; check the path, its permissions and the space on the disk"))
        if isinstance(link, torch.OutOfMemoryError):
            return ValueError(one_line(f"{link}; {_FOR_LESS_MEMORY}"))
        link = link.__cause__
    return None


def explain_errors() -> None:
    """Make an uncaught error with a :func:`stated_cause` end the program with that one message.

    MONAI wraps errors once per level of the configuration, which buries the message under pages of traceback. Every
    error that this bundle raises on bad input is a ``ValueError`` that says what to do; other errors keep their
    traceback, and so do all errors if the environment variable ``BUNDLE_TRACEBACK`` is set. :class:`SomeFailed` is
    printed as it is: its traceback is useless, since every failure arose elsewhere. An interrupted program says so and
    ends with status 130, as is usual in shells.
    """
    sys.excepthook = _explain


def _explain(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    if isinstance(error, KeyboardInterrupt):
        print("interrupted; finished results are kept", file=sys.stderr)
        raise SystemExit(INTERRUPTED)
    cause = stated_cause(error)
    if isinstance(cause, SomeFailed):
        print(cause, file=sys.stderr)
    elif cause is not None and not os.environ.get(TRACEBACK_VARIABLE):
        print(f"error: {cause}\n(set {TRACEBACK_VARIABLE}=1 to see where it arose)", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, traceback)
