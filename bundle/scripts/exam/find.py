"""Finding the exams to reconstruct."""

from __future__ import annotations

import os
import reprlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scripts.exam.read import is_radiograph
from scripts.exam.views import ACQUISITION_FILE, BOTH, ViewChoice
from scripts.geometry import VIEWS
from scripts.io.folders import visible
from scripts.io.names import safe_name
from scripts.io.refusal import refusals
from scripts.io.text import read_json

Source = str | Path | Sequence[str] | Mapping[str, str]
"""Where one exam is; see :func:`find_exams`."""


@refusals()
def find_exams(
    input: str | Path | Sequence[str] | Mapping[str, str] | None = None,
    frontal: str | Path | None = None,
    lateral: str | Path | None = None,
    geometry_file: str | Path | None = None,
    choice: ViewChoice = BOTH,
) -> list[dict[str, Any]]:
    """List exams as items for a MONAI data set, with their source under ``image`` and their name under ``name``.

    Args:
        input: one exam (a folder, a zip, a packed file, a list of two files, a mapping ``{frontal, lateral}``), or
            many: a folder of such folders and zips, or a ``.json`` list of sources.
        frontal: one frontal radiograph, instead of ``input``.
        lateral: its lateral radiograph.
        geometry_file: the geometry of that pair, JSON; needed unless the files or options tell it.
        choice: which views are used; an exam may lack the other one.

    Raises:
        ValueError: nothing to reconstruct, half a pair, or two exams of one name; the message says what is wrong.
    """
    pair = {"frontal": frontal, "lateral": lateral, "geometry_file": geometry_file}
    given = {name: str(path) for name, path in pair.items() if path}
    if input and given:
        raise ValueError(f"give --input or a pair of files, not both: got input={str(input)!r} and {sorted(given)}")
    if given:
        missing = [f"--{view}" for view in choice.used if view not in given]
        if missing:
            hint = choice.hint if len(missing) == 1 else ""
            raise ValueError(f"one exam needs {choice.options}; missing {' and '.join(missing)}{hint}")
        return _items([given])
    if not input:
        raise ValueError(f"nothing to reconstruct: give --input, or {choice.options}")
    if not isinstance(input, (str, Path)):
        return _items([_checked(input, "--input", choice)])
    path = Path(input)
    if not path.exists():
        raise ValueError(f"{path}: no such folder or file; --input is an exam, or a folder of exams")
    if path.suffix == ".json" and not path.is_dir():
        return _items(_read_list(path, choice))
    if not path.is_dir() or _is_one_exam(path):
        return _items([str(path)])
    exams = [p for p in visible(path) if p.is_dir() or p.suffix.lower() == ".zip"]
    if not exams:
        raise ValueError(
            f"{path}: holds no radiographs and no folder or zip with some; give the folder of an exam or of exams"
        )
    return _items([str(p) for p in exams])


def exam_name(source: Source) -> str:
    """What an exam is called: its folder, zip or packed file, or the folder of its first file."""
    if isinstance(source, Mapping):
        return _real(next(source[view] for view in VIEWS if view in source)).parent.name
    if not isinstance(source, (str, Path)):
        return _real(source[0]).parent.name
    path = _real(source)
    return path.name if path.is_dir() else path.name.split(".")[0]


def _real(path: str | Path) -> Path:
    """``Path.resolve``, but a link to itself stays as it is, and its reader reports it."""
    return Path(os.path.realpath(path))


def _items(sources: Sequence[Source]) -> list[dict[str, Any]]:
    seen: dict[str, Source] = {}
    for source in sources:
        folder = safe_name(exam_name(source))
        if folder in seen:
            raise ValueError(f"two exams would both be written to {folder!r}: {seen[folder]} and {source}; rename one")
        seen[folder] = source
    return [{"image": source, "name": exam_name(source)} for source in sources]


def _is_one_exam(folder: Path) -> bool:
    """Whether a folder holds an acquisition file, a radiograph, or two sub-folders with one radiograph each."""
    inside = visible(folder)
    if (folder / ACQUISITION_FILE).is_file() or any(map(is_radiograph, inside)):
        return True
    folders = [path for path in inside if path.is_dir()]
    return len(folders) == len(VIEWS) and all(sum(map(is_radiograph, visible(path))) == 1 for path in folders)


def _read_list(path: Path, choice: ViewChoice) -> list[Source]:
    """The sources in a JSON list; relative paths are relative to the file."""
    sources = read_json(path)
    if not isinstance(sources, list) or not sources:
        raise ValueError(f"{path}: expected a list of exams, got {type(sources).__name__}; see docs/radiographs.md")
    return [_resolved(_checked(source, path, choice), path.resolve().parent) for source in sources]


def _resolved(source: Source, beside: Path) -> Source:
    if isinstance(source, Mapping):
        return {name: str(beside / p) for name, p in source.items()}
    return str(beside / source) if isinstance(source, (str, Path)) else [str(beside / p) for p in source]


def _checked(source: Any, where: str | Path, choice: ViewChoice) -> Source:
    """Return the source if its kind is one of those allowed; raise ValueError otherwise."""
    if isinstance(source, Mapping):
        paths, is_exam = list(source.values()), {*choice.used} <= source.keys() <= {*VIEWS, "geometry_file"}
    elif isinstance(source, (list, tuple)):
        paths, is_exam = list(source), len(choice.used) <= len(source) <= len(VIEWS)
    else:
        paths, is_exam = [source], True
    if is_exam and all(path and isinstance(path, (str, Path)) for path in paths):
        return source
    several = "two paths" if choice.is_both else "a list of one or two"
    raise ValueError(
        f"{where}: an exam is a path, {several}, or an object with {' and '.join(choice.used)}; got "
        f"{reprlib.repr(source)}{choice.hint}"
    )
