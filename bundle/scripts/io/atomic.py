"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A scratch path beside ``path``, same suffixes, that takes its name when the block succeeds.

    What a killed process left behind is overwritten by the next one with the same ``path``.
    """
    partial = path.with_name(f".partial-{path.name}")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def require_replaceable(path: Path, known_by: str) -> None:
    """Raise ValueError if :func:`whole_folder` would refuse ``path``; call this before work that would be in vain."""
    free = not path.exists() or (path.is_dir() and not any(path.iterdir()))
    if not free and not (path / known_by).is_file():
        raise ValueError(f"{path}: exists and holds no {known_by}, so it is not replaced; write elsewhere or remove it")


@contextmanager
def whole_folder(path: Path, known_by: str) -> Iterator[Path]:
    """A new scratch folder beside ``path`` that takes its place when the block succeeds, an older one included.

    Parents are made. What a killed process left behind is swept away by the next one with the same ``path``.

    Args:
        path: where the folder goes.
        known_by: a file below it that shows what it is: nothing without it is replaced, for it is somebody's data.

    Raises:
        ValueError: something else is there.
    """
    require_replaceable(path, known_by)
    partial, old = path.with_name(f".partial-{path.name}"), path.with_name(f".old-{path.name}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        shutil.rmtree(old, ignore_errors=True)
        if path.exists():
            os.rename(path, old)
        os.rename(partial, path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
