"""The zoo's code format: black, isort and flake8 with the settings of Project-MONAI/model-zoo."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import black
import isort

_SETTINGS = Path(__file__).with_name("zoo_style")
"""Folder with the settings of the three tools from the zoo's own ``setup.cfg`` and ``pyproject.toml``."""


def reformat(folder: Path) -> None:
    """Format every Python file in ``folder``, as the zoo's ``runtests.sh --autofix`` does."""
    for path in sorted(folder.rglob("*.py")):
        path.write_text(formatted(path.read_text()))


@cache
def formatted(source: str) -> str:
    """Return the Python program ``source``, formatted by isort and black."""
    ordered = isort.code(source, config=isort.Config(settings_file=str(_SETTINGS / "setup.cfg")))
    return black.format_str(ordered, mode=_black_mode())


@cache
def _black_mode() -> black.Mode:
    settings = black.parse_pyproject_toml(str(_SETTINGS / "pyproject.toml"))
    return black.Mode(
        target_versions={black.TargetVersion[name.upper()] for name in settings["target_version"]},
        line_length=settings["line_length"],
        magic_trailing_comma=not settings["skip_magic_trailing_comma"],
    )


def code_format(folder: Path) -> Iterator[str]:
    """Check that isort, black and flake8 accept the Python files, like the zoo's ``runtests.sh --codeformat``.

    Its type checker, pytype, is left out; ``make types`` checks the types.
    """
    for path in sorted(folder.rglob("*.py")):
        if formatted(path.read_text()) != path.read_text():
            yield f"{path.relative_to(folder)} is not formatted by isort and black; write the release again"
    yield from _flake8(folder)


def _flake8(folder: Path) -> Iterator[str]:
    command = [sys.executable, "-m", "flake8", "--config", str(_SETTINGS / "setup.cfg"), "."]
    done = subprocess.run(command, cwd=folder, env=os.environ | {"PYTHONPATH": ""}, capture_output=True, text=True)
    yield from (re.sub(r"^\./", "", line) for line in done.stdout.splitlines())
    if done.returncode and not done.stdout:
        yield done.stderr.strip()[-500:]
