"""The folder of an exam's result: never one that holds the result of other files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from scripts.io.folders import RESULT_FILE

_DIGITS = 8


def place_of(folder: Path, inputs_sha256: Iterable[str]) -> Path:
    """``folder``, or if that holds the result of other files, one beside it whose name ends in a digest of these.

    So two exams of one name each keep their result, whichever comes first, and each is found again.

    Args:
        folder: where the exam's name alone would put it.
        inputs_sha256: digests of the exam's files; where they lie does not matter.

    Raises:
        ValueError: both hold results of other files.
    """
    inputs = sorted(inputs_sha256)
    digest = hashlib.sha256(" ".join(inputs).encode()).hexdigest()[:_DIGITS]
    places = (folder, folder.with_name(f"{folder.name}-{digest}"))
    for place in places:
        if _inputs(place / RESULT_FILE) == inputs:
            return place
    for place in places:
        if not (place / RESULT_FILE).exists():
            return place
    raise ValueError(f"{places[0]}, {places[1]}: hold results of other files, which are not replaced; write elsewhere")


def _inputs(path: Path) -> list[str] | None:
    """Digests of the files that gave a result, sorted; None if there is none that tells."""
    try:
        return sorted(json.loads(path.read_bytes())["inputs_sha256"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
