"""Errors as a user should see them."""

from __future__ import annotations

import os
import sys
from types import TracebackType

TRACEBACK_VARIABLE = "BUNDLE_TRACEBACK"


def stated_cause(error: BaseException) -> ValueError | None:
    """The outermost ``ValueError`` of a chain of causes: the one that tells the user what to do. None if there is none.

    Further out are MONAI's wrappers, which are ``RuntimeError``; further in is what a library said to us.
    """
    link: BaseException | None = error
    while link is not None and not isinstance(link, ValueError):
        link = link.__cause__
    return link


def explain_errors() -> None:
    """From now on, an uncaught error caused by a ``ValueError`` ends the program with that one message.

    MONAI wraps errors once per level of the configuration, which buries the message under pages of traceback. Every
    error this bundle raises on bad input is a ``ValueError`` that says what to do; other errors keep their traceback,
    and so do all if the environment variable ``BUNDLE_TRACEBACK`` is set.
    """
    sys.excepthook = _explain


def _explain(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    cause = stated_cause(error)
    if cause is not None and not os.environ.get(TRACEBACK_VARIABLE):
        print(f"error: {cause}\n(set {TRACEBACK_VARIABLE}=1 to see where it arose)", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, traceback)
