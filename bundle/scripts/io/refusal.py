"""Conversion of failures on inputs and outputs to one-line errors that fit a log."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MAX_CHARACTERS = 900
"""Longest message, since names, values and library errors have any length; a longer one loses its middle."""


@contextmanager
def refusals(name: str = "") -> Iterator[None]:
    """Turn every failure on an input, inside the block or the decorated function, into a ``ValueError`` of one line.

    Args:
        name: name of the input, which is put before the message.

    Raises:
        ValueError: the block raised a ``ValueError`` or a file system error.
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
    """Turn a file system error, inside the block that writes ``path``, into a ``ValueError`` of one line.

    Raises:
        ValueError: for example, the disk is full, the folder is not writable, or a file is in the way of a folder.
    """
    try:
        yield
    except OSError as error:
        remedy = "make room there, correct the permissions, or write to another folder"
        raise ValueError(one_line(f"{path}: cannot be written ({error}); {remedy}")) from error


def one_line(text: str) -> str:
    """Return ``text`` on one line: blanks replace unprintable characters, and a long text loses its middle."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    half = MAX_CHARACTERS // 2
    return line if len(line) <= MAX_CHARACTERS else f"{line[:half]} ... {line[-half:]}"
