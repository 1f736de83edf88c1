"""Selection of the files of a folder that belong to an exam, by content and not by name."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from scripts.exam.read import holds_both_views, is_dicom_radiograph, is_lost, is_radiograph
from scripts.geometry import VIEWS
from scripts.io.folders import RESULT_FILE, SUMMARY_FILE, visible

ACQUISITION_FILE = "acquisition.json"
"""File next to the radiographs of an exam with their acquisition, keyed by option names."""
_DISC_DIRECTORY = "DICOMDIR"
"""Index of a DICOM medium, named by PS3.10 section 8.6. A patient disc also holds a viewer with its own pictures."""


def radiographs(folder: Path) -> list[Path]:
    """Return the radiographs at any depth below a folder, sorted; from a patient's disc only those in DICOM.

    A file that has lost its content counts as one: reading it will say so, instead of reading another in its place.
    """
    is_disc = any(path.name.upper() == _DISC_DIRECTORY for path in visible(folder))
    is_film = is_dicom_radiograph if is_disc else is_radiograph
    return sorted(path for path in _files(folder) if is_film(path) or is_lost(path))


def passed_over(folder: Path) -> list[Path]:
    """Return the files at any depth below a folder that are no part of its exam, sorted."""
    own = {*radiographs(folder), *acquisition_files(folder)}
    return sorted(path for path in _files(folder) if path not in own)


def acquisition_files(folder: Path) -> list[Path]:
    """Return the acquisition files at any depth below a folder, sorted."""
    return sorted(path for path in _files(folder) if path.name == ACQUISITION_FILE)


def is_one_exam(folder: Path) -> bool:
    """Return whether a folder holds an acquisition file, a radiograph, a disc, or two sub-folders with a view each."""
    inside = [path for path in visible(folder) if not _is_output(path)]
    names = {path.name.upper() for path in inside}
    if {ACQUISITION_FILE.upper(), _DISC_DIRECTORY} & names or any(map(is_radiograph, inside)):
        return True
    folders = [path for path in inside if path.is_dir()]
    return len(folders) == len(VIEWS) and all(_holds_one(path) for path in folders)


def exams_in(folder: Path) -> list[Path]:
    """Return the exams in a folder of many: folders, zips, and broken links, which fail later; results are skipped."""
    return [path for path in visible(folder) if _may_be_exam(path) and not _is_output(path)]


def _may_be_exam(path: Path) -> bool:
    return path.is_dir() or path.suffix.lower() == ".zip" or (path.is_symlink() and not path.exists())


def _is_output(folder: Path) -> bool:
    """Return whether this bundle wrote a folder: a result, or a run's folder without radiographs of its own."""
    if os.path.isfile(folder / RESULT_FILE):
        return True
    return os.path.isfile(folder / SUMMARY_FILE) and not any(map(is_radiograph, _files(folder)))


def _holds_one(folder: Path) -> bool:
    try:
        films = radiographs(folder)
        return len(films) == 1 and not holds_both_views(films[0])
    except OSError:  # reading it will say why
        return False


def _files(folder: Path, above: tuple[Path, ...] = ()) -> Iterator[Path]:
    """Yield the visible files below a folder except for results; links to folders above are not followed."""
    real = folder.resolve()
    if real in above or os.path.isfile(folder / RESULT_FILE):
        return
    for path in visible(folder):
        if path.is_dir():
            yield from _files(path, (*above, real))
        else:
            yield path
