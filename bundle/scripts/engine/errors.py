"""Errors as a user should see them."""

from __future__ import annotations

import os
import sys
from types import TracebackType

TRACEBACK_VARIABLE = "BUNDLE_TRACEBACK"


def root_cause(error: BaseException) -> BaseException:
    """The first exception of a chain of causes."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def explain_errors() -> None:
    """From now on an uncaught error that started as a ``ValueError`` ends the program with its one message.

    MONAI wraps errors once per level of the configuration, which buries the message under pages of traceback. Every
    error this bundle raises on bad input is a ``ValueError`` that says what to do; other errors keep their traceback,
    and so do all if the environment variable ``BUNDLE_TRACEBACK`` is set.
    """
    sys.excepthook = _explain


def _explain(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    cause = root_cause(error)
    if isinstance(cause, ValueError) and not os.environ.get(TRACEBACK_VARIABLE):
        print(f"error: {cause}\n(set {TRACEBACK_VARIABLE}=1 to see where it arose)", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, traceback)
