"""Discovery of the exams to reconstruct."""

from __future__ import annotations

import os
import re
import reprlib
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from scripts.exam.contents import exams_in, is_one_exam
from scripts.exam.read import CLAIMS
from scripts.exam.views import BOTH, ViewChoice
from scripts.geometry import VIEWS
from scripts.io.names import safe_name
from scripts.io.refusal import refusals
from scripts.io.text import read_json

Source = str | Path | Sequence[str] | Mapping[str, str]
"""Location of one exam; see :func:`find_exams`."""
_SUFFIXES = (".zip", *CLAIMS)


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
            many: a folder of such folders and zips, or a ``.json`` list of sources. Without it and a pair, the list is
            empty.
        frontal: frontal radiograph of a single exam, instead of ``input``.
        lateral: lateral radiograph of that exam.
        geometry_file: JSON geometry of that exam; needed unless the files or options state it.
        choice: views to use; an exam may lack the other one.

    Raises:
        ValueError: an exam does not exist, or one of its files is missing; the message says what is wrong.
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
        return []
    if not isinstance(input, (str, Path)):
        return _items([_checked(input, "--input", choice)])
    path = Path(input)
    if not os.path.lexists(path):
        raise ValueError(f"{path}: no such folder or file; --input is an exam, or a folder of exams")
    if path.suffix == ".json" and not path.is_dir():
        return _items(_read_list(path, choice))
    if not path.is_dir() or is_one_exam(path):
        return _items([str(path)])
    exams = exams_in(path)
    if not exams:
        raise ValueError(
            f"{path}: holds no radiographs and no folder or zip with some; give the folder of an exam or of exams"
        )
    return _items([str(p) for p in exams])


def exam_name(source: Source) -> str:
    """Return the name of an exam: that of its folder, its zip or packed file, or the folder of its two files.

    If the names of the two files begin with the same words, as in ``A_pa.dcm`` and ``A_lat.dcm``, these words are
    added, because the folder may hold several exams.
    """
    if isinstance(source, (str, Path)):
        path = _absolute(source)
        return path.name if path.is_dir() else _without_suffix(path.name)
    files = [source[view] for view in VIEWS if view in source] if isinstance(source, Mapping) else source
    paths = [_absolute(file) for file in files]
    words = [re.split(r"[\W_]+", _without_suffix(path.name)) for path in paths]
    shared = os.path.commonprefix(words) if len(words) > 1 else []
    return "_".join([paths[0].parent.name, *shared])


def _without_suffix(name: str) -> str:
    """Return a name without its file type's suffix; text after other dots, as in a UID, belongs to the name."""
    known = next((suffix for suffix in _SUFFIXES if name.lower().endswith(suffix)), "")
    return name[: len(name) - len(known)] or name


def _absolute(path: str | Path) -> Path:
    """Return the absolute path without resolving links, so that a link keeps its own name."""
    return Path(os.path.abspath(path))


def _items(sources: Sequence[Source]) -> list[dict[str, Any]]:
    """Return sources with their names, numbering repeated names from the second on."""
    items: list[dict[str, Any]] = []
    taken: set[str] = set()
    for source in sources:
        name = exam_name(source)
        numbered = (name if number == 1 else f"{name}-{number}" for number in count(1))
        unique = next(name for name in numbered if _folder(name) not in taken)
        taken.add(_folder(unique))
        items.append({"image": source, "name": unique})
    return items


def _folder(name: str) -> str:
    """Return the folder name as a case-insensitive file system sees it."""
    return safe_name(name).casefold()


def _read_list(path: Path, choice: ViewChoice) -> list[Source]:
    """Read the sources in a JSON list; relative paths are relative to the file."""
    sources = read_json(path)
    if not isinstance(sources, list) or not sources:
        raise ValueError(f"{path}: expected a list of exams, got {type(sources).__name__}; see docs/radiographs.md")
    return [_resolved(_checked(source, path, choice), path.resolve().parent) for source in sources]


def _resolved(source: Source, beside: Path) -> Source:
    if isinstance(source, Mapping):
        return {name: str(beside / p) for name, p in source.items()}
    return str(beside / source) if isinstance(source, (str, Path)) else [str(beside / p) for p in source]


def _checked(source: Any, where: str | Path, choice: ViewChoice) -> Source:
    """Return the source; raise ValueError if its type is not allowed."""
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
