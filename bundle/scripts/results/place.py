"""Choice of the folder for an exam's result, never one with the result of other files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from scripts.io.folders import RESULT_FILE

_DIGITS = 8


def place_of(folder: Path, inputs_sha256: Iterable[str]) -> Path:
    """Return ``folder``, or one with a digest of the inputs in its name if ``folder`` holds results of other files.

    Two exams with the same name thus each keep their result, whichever comes first, and each is found again.

    Args:
        folder: folder named after the exam.
        inputs_sha256: digests of the exam's files; their paths do not matter.

    Raises:
        ValueError: both folders hold results of other files.
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
    """Return the sorted digests of the files that gave a result; None if there is no readable result."""
    try:
        return sorted(json.loads(path.read_bytes())["inputs_sha256"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
