"""Atomic writing of picture files."""

from __future__ import annotations

import os
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

SUFFIXES = (".png", ".pdf", ".svg")
"""Formats of picture files."""


def save_whole(figure: Figure, path: str | Path) -> None:
    """Save a figure in the format given by the suffix of ``path``; a PDF embeds its fonts as type 42.

    Raises:
        ValueError: the suffix is none of :data:`SUFFIXES`.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{path} ends in {path.suffix!r}, which is not one of {', '.join(SUFFIXES)}; rename it")
    partial = path.with_name(f".partial-{os.getpid()}-{path.name}")
    try:
        with rc_context({"pdf.fonttype": 42}):
            figure.savefig(partial, dpi=150)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
