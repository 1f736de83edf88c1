"""Visible files of a folder, without hidden files and those that macOS adds, and the files that identify results."""

from __future__ import annotations

from pathlib import Path, PurePath

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
    """Return the visible files at any depth below a folder, sorted."""
    return [path for path in sorted(folder.rglob("*")) if path.is_file() and not is_hidden(path.relative_to(folder))]


def sizes(folder: Path) -> dict[str, int]:
    """Return the bytes of every file at any depth in ``folder``, by its path below it; empty if there is no folder."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in paths}
