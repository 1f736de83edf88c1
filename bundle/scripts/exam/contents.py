"""What of a folder belongs to an exam: told by what the files hold, not by their names."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from scripts.exam.read import is_dicom_radiograph, is_radiograph
from scripts.geometry import VIEWS
from scripts.io.folders import RESULT_FILE, SUMMARY_FILE, visible

ACQUISITION_FILE = "acquisition.json"
"""With the radiographs of an exam: how they were taken, under the names of the options."""
_DISC_DIRECTORY = "DICOMDIR"
"""PS3.10 section 8.6 fixes the name. A patient's disc has one, and beside it a viewer with pictures of its own."""


def radiographs(folder: Path) -> list[Path]:
    """The radiographs at any depth below a folder, sorted; of a patient's disc only those in DICOM."""
    is_disc = any(path.name.upper() == _DISC_DIRECTORY for path in visible(folder))
    return sorted(filter(is_dicom_radiograph if is_disc else is_radiograph, _files(folder)))


def acquisition_files(folder: Path) -> list[Path]:
    """The acquisition files at any depth below a folder, sorted."""
    return sorted(path for path in _files(folder) if path.name == ACQUISITION_FILE)


def is_one_exam(folder: Path) -> bool:
    """Whether a folder holds an acquisition file, a radiograph, a disc, or two sub-folders with a radiograph each."""
    inside = [path for path in visible(folder) if not _is_output(path)]
    names = {path.name.upper() for path in inside}
    if {ACQUISITION_FILE.upper(), _DISC_DIRECTORY} & names or any(map(is_radiograph, inside)):
        return True
    folders = [path for path in inside if path.is_dir()]
    return len(folders) == len(VIEWS) and all(_holds_one(path) for path in folders)


def exams_in(folder: Path) -> list[Path]:
    """The exams in a folder of many: folders, zips and links that lead nowhere, which fail by name; no results."""
    return [path for path in visible(folder) if _may_be_exam(path) and not _is_output(path)]


def _may_be_exam(path: Path) -> bool:
    return path.is_dir() or path.suffix.lower() == ".zip" or (path.is_symlink() and not path.exists())


def _is_output(folder: Path) -> bool:
    """Whether this bundle wrote a folder: a result, or the folder of a run, which holds no radiographs of its own."""
    if os.path.isfile(folder / RESULT_FILE):
        return True
    return os.path.isfile(folder / SUMMARY_FILE) and not radiographs(folder)


def _holds_one(folder: Path) -> bool:
    try:
        return len(radiographs(folder)) == 1
    except OSError:  # reading it will say why
        return False


def _files(folder: Path, above: tuple[Path, ...] = ()) -> Iterator[Path]:
    """The visible files below a folder but those of results; a link to a folder above it is not followed."""
    real = folder.resolve()
    if real in above or os.path.isfile(folder / RESULT_FILE):
        return
    for path in visible(folder):
        if path.is_dir():
            yield from _files(path, (*above, real))
        else:
            yield path
