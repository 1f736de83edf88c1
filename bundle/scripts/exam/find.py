"""Finding the exams to reconstruct."""

from __future__ import annotations

import os
import reprlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scripts.exam.views import ACQUISITION_FILE, BOTH, ViewChoice
from scripts.geometry import VIEWS
from scripts.io.names import safe_name
from scripts.io.refusal import refusals
from scripts.io.text import read_json

Source = str | Path | Sequence[str] | Mapping[str, str]
"""Where one exam is; see :func:`find_exams`."""
_NOT_RADIOGRAPHS = {".zip", ".json", ".txt", ".md", ".csv", ".html", ".pdf", ".xml", ".log"}


@refusals()
def find_exams(
    input: str | Path | Sequence[str] | Mapping[str, str] | None = None,
    frontal: str | Path | None = None,
    lateral: str | Path | None = None,
    geometry_file: str | Path | None = None,
    choice: ViewChoice = BOTH,
) -> list[dict[str, Any]]:
    """Exams as items for a MONAI data set: the source of each under ``image``, what it is called under ``name``.

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
    exams = [p for p in _visible(path) if p.is_dir() or p.suffix.lower() == ".zip"]
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
    """``Path.resolve`` that lets a link to itself be, for its reader to report."""
    return Path(os.path.realpath(path))


def _items(sources: Sequence[Source]) -> list[dict[str, Any]]:
    items = [{"image": source, "name": exam_name(source)} for source in sources]
    seen: dict[str, Source] = {}
    for item in items:
        folder = safe_name(item["name"])
        if folder in seen:
            raise ValueError(
                f"two exams would both be written to {folder!r}: {seen[folder]} and {item['image']}; rename one"
            )
        seen[folder] = item["image"]
    return items


def _is_one_exam(folder: Path) -> bool:
    """Whether it says how its radiographs were taken, holds some, or two sub-folders with one each, as exports do."""
    if (folder / ACQUISITION_FILE).is_file() or _radiographs(folder):
        return True
    return [len(_radiographs(p)) for p in _visible(folder) if p.is_dir()] == [1, 1]


def _radiographs(folder: Path) -> list[Path]:
    """Files in a folder that may be some, by their suffix."""
    return [p for p in _visible(folder) if p.is_file() and p.suffix.lower() not in _NOT_RADIOGRAPHS]


def _visible(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if not p.name.startswith("."))


def _read_list(path: Path, choice: ViewChoice) -> list[Source]:
    """The sources in a JSON list; relative paths are relative to the file."""
    sources = read_json(path)
    if not isinstance(sources, list) or not sources:
        raise ValueError(f"{path}: expected a list of exams, got {type(sources).__name__}; see docs/radiographs.md")
    return [_resolved(_checked(source, path, choice), path.resolve().parent) for source in sources]


def _resolved(source: Source, beside: Path) -> Source:
    if isinstance(source, Mapping):
        return {name: str(beside / p) for name, p in source.items()}
    return str(beside / source) if isinstance(source, str) else [str(beside / p) for p in source]


def _checked(source: Any, where: str | Path, choice: ViewChoice) -> Source:
    """A source that is one by its kind; raises ValueError for all else."""
    if isinstance(source, Mapping):
        paths, is_exam = source.values(), {*choice.used} <= source.keys() <= {*VIEWS, "geometry_file"}
    else:
        paths = source if isinstance(source, (list, tuple)) else [source]
        is_exam = paths is not source or len(choice.used) <= len(paths) <= len(VIEWS)
    if is_exam and all(path and isinstance(path, (str, Path)) for path in paths):
        return source
    paths = "two paths" if choice.is_both else "a list of one or two"
    raise ValueError(
        f"{where}: an exam is a path, {paths}, or an object with {' and '.join(choice.used)}; got "
        f"{reprlib.repr(source)}{choice.hint}"
    )
