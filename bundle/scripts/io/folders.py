"""Visible files of a folder, without hidden files and those that macOS adds, and the files that identify results."""

from __future__ import annotations

import logging
from collections import deque
from pathlib import Path, PurePath

logger = logging.getLogger(__name__)
RESULT_FILE = "result.json"
"""File in the folder of every reconstruction."""
SUMMARY_FILE = "summary.csv"
"""File in the folder of a run, which holds those of its reconstructions."""


def is_hidden(path: PurePath) -> bool:
    """Return whether a relative path is hidden or in a hidden folder."""
    return any(part.startswith(".") or part == "__MACOSX" for part in path.parts)


def visible(folder: Path) -> list[Path]:
    """Return the visible files and folders in a folder, sorted."""
    return sorted(path for path in folder.iterdir() if not is_hidden(PurePath(path.name)))


def visible_files(folder: Path) -> list[Path]:
    """Return the visible files at any depth below a folder, sorted.

    Links to folders are followed. A folder with several paths is searched once, by the path without links if it has one
    below ``folder``; those above ``folder`` are not searched. One that may not be read is left out, with a warning.
    """
    found, left, seen = [], deque([folder]), {*folder.resolve().parents}
    while left:
        place = left.popleft()
        if (real := place.resolve()) in seen:
            continue
        seen.add(real)
        for path in _readable(place):
            if path.is_file():
                found.append(path)
            elif path.is_symlink() and path.is_dir():
                left.append(path)
            elif path.is_dir():
                left.appendleft(path)
    return sorted(found)


def _readable(folder: Path) -> list[Path]:
    """Return what is visible in a folder, or nothing if it may not be read."""
    try:
        return visible(folder)
    except PermissionError as error:
        logger.warning("%s: left out, since it cannot be read (%s); correct its permissions", folder, error.strerror)
        return []


def sizes(folder: Path) -> dict[str, int]:
    """Return the bytes of every file at any depth in ``folder``, by its path below it; empty if there is no folder."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in paths}
