"""Reading of tensor files written by ``torch.save``, with verification of every byte."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import torch

from scripts.io.refusal import one_line


def read_tensors(path: Path, map_location: torch.device | str | None = None) -> dict[str, Any]:
    """Read the dictionary in a file to ``map_location``.

    Raises:
        ValueError: the file is damaged, or does not hold a dictionary.
    """
    try:
        check_sums(path)
        value = torch.load(path, map_location=map_location, weights_only=True)
    except Exception as error:  # on foreign or damaged bytes zipfile and the unpickler raise errors of any kind
        raise ValueError(one_line(f"{path}: damaged, or not written by torch.save ({_said(error)})")) from error
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        raise ValueError(f"{path}: holds a {type(value).__name__}, not a dictionary by name")
    return value


def check_sums(path: Path) -> None:
    """Compare the checksums in a file of PyTorch, which ``torch.load`` and ``torch.jit.load`` don't.

    Raises:
        zipfile.BadZipFile: one is wrong, or the file is damaged otherwise.
    """
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise zipfile.BadZipFile(f"wrong checksum of {damaged}")


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".split("\n")[0]
