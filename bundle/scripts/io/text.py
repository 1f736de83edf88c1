"""Text files: JSON from outside, and text written atomically."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from scripts.io.atomic import whole_file
from scripts.io.intake import read_bytes


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        ValueError: not a readable file, or not JSON.
    """
    data = read_bytes(path)
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not JSON ({error}); correct it") from error


def write_text(path: Path, text: str) -> None:
    """Write a text file that appears whole or not at all."""
    with whole_file(path) as partial:
        partial.write_text(text)
