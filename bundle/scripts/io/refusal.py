"""What is wrong with an input or an output, as one line that fits a log."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MAX_CHARACTERS = 900
"""Names, values and what a library says may be of any length; of a longer message the beginning and the end is kept."""


@contextmanager
def refusals(name: str = "") -> Iterator[None]:
    """Turn every failure on an input, inside the block or the decorated function, into a ``ValueError`` of one line.

    Args:
        name: of the input; goes before the message.

    Raises:
        ValueError: a ``ValueError`` or an error of the file system came up.
    """
    prefix = f"{name}: " if name else ""
    try:
        yield
    except ValueError as error:
        raise ValueError(one_line(f"{prefix}{error}")) from error
    except OSError as error:
        reason = f"{error.filename}: cannot be read ({error.strerror}); check the path and its permissions"
        raise ValueError(one_line(prefix + reason)) from error


@contextmanager
def write_refusals(path: str | Path) -> Iterator[None]:
    """Turn a refusal of the file system, inside the block that writes ``path``, into a ``ValueError`` of one line.

    Raises:
        ValueError: the disk is full, the place cannot be written to, a file stands where a folder should.
    """
    try:
        yield
    except OSError as error:
        remedy = "make room there, correct the permissions, or write to another folder"
        raise ValueError(one_line(f"{path}: cannot be written ({error}); {remedy}")) from error


def one_line(text: str) -> str:
    """``text`` on one line: blanks replace what cannot be printed, and a long text loses its middle."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    half = MAX_CHARACTERS // 2
    return line if len(line) <= MAX_CHARACTERS else f"{line[:half]} ... {line[-half:]}"
