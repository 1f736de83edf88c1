"""Text files, written atomically."""

from __future__ import annotations

from pathlib import Path

from scripts.io.atomic import whole_file


def write_text(path: Path, text: str) -> None:
    """Write a text file that appears whole or not at all."""
    with whole_file(path) as partial:
        partial.write_text(text)
