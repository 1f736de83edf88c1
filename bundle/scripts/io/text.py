"""Text files, written atomically."""

from __future__ import annotations

import os
from pathlib import Path


def write_text(path: Path, text: str) -> None:
    """Write a text file that appears whole or not at all."""
    partial = path.with_name(f".partial-{os.getpid()}-{path.name}")
    try:
        partial.write_text(text)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
