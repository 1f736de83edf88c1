"""Text files: reading of JSON, strict JSON output, and atomic writing."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scripts.io.atomic import whole_file
from scripts.io.intake import read_bytes


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        ValueError: the file is unreadable or not JSON.
    """
    data = read_bytes(path)
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not JSON ({error}); correct it") from error


def strict_json(value: Any) -> str:
    """Convert a value to JSON text for any parser: infinities, which JSON lacks, become ``"inf"`` and ``"-inf"``.

    Raises:
        ValueError: the value contains NaN.
    """
    return json.dumps(_without_infinity(value), indent=2, allow_nan=False)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file atomically; what UTF-8 cannot hold, such as bytes of a file name, becomes ``?``."""
    with whole_file(path) as partial:
        partial.write_bytes(text.encode("utf-8", "replace"))


def _without_infinity(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _without_infinity(entry) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_infinity(entry) for entry in value]
    return str(value) if isinstance(value, float) and math.isinf(value) else value
