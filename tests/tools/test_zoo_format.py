"""The zoo's code format: formatting keeps programs the same, and unformatted files are named."""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tools import zoo_rules
from tools.zoo_format import code_format, formatted, reformat

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "bundle").rglob("*.py"))


def program(source: str) -> tuple[list[str], list[str]]:
    """The statements of a file, its imports sorted and apart: isort sorts them otherwise than ruff."""
    statements = [ast.dump(statement) for statement in ast.parse(source).body]
    imports = sorted(text for text in statements if text.startswith("Import"))
    return imports, [text for text in statements if text not in imports]


@pytest.mark.parametrize("files", [SOURCES[::30], pytest.param(SOURCES, marks=pytest.mark.slow)], ids=["some", "all"])
def test_a_formatted_file_is_the_same_program(files):
    for path in files:
        assert program(formatted(path.read_text())) == program(path.read_text()), path


def folder_of(parent: Path, source: str) -> Path:
    (parent / "scripts").mkdir()
    (parent / "scripts" / "a.py").write_text(source)
    return parent


FAULTS = {
    "quotes": ("x = 'a'\n", "scripts/a.py is not formatted by isort and black"),
    "order of imports": ("import sys\nimport os\n\nprint(os, sys)\n", "scripts/a.py is not formatted"),
    "name": ("def f(x_T):\n    return x_T\n", "N803 argument name 'x_T'"),
    "unused": ("import os\n", "scripts/a.py:1:1: F401"),
    "exceptions": ("try:\n    pass\nexcept (OSError, IOError):\n    raise\n", "B014"),
    "executable": ("#!/usr/bin/env python\n", "EXE001"),
    "comprehension": ("x = list([1])\n", "C410"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_named(tmp_path, fault):
    source, message = FAULTS[fault]
    assert any(message in line for line in code_format(folder_of(tmp_path, source)))


def test_what_can_be_formatted_is(tmp_path):
    folder = folder_of(tmp_path, "import sys\nimport os\nprint( os,sys, 'a', )\n")
    reformat(folder)
    assert (folder / "scripts" / "a.py").read_text() == 'import os\nimport sys\n\nprint(os, sys, "a")\n'
    assert not list(code_format(folder))


def test_a_release_is_checked():
    assert zoo_rules.rules("minimal", "name", "")["code format"] is code_format


@pytest.mark.slow
def test_the_bundle_passes_what_runtests_calls(tmp_path):
    """From the root of the zoo, where its settings lie and the bundle is in ``models``."""
    shutil.copytree(ROOT / "tools" / "zoo_style", tmp_path, dirs_exist_ok=True)
    for path in SOURCES:
        copy = tmp_path / "models" / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(path.read_text())
    reformat(tmp_path)
    for command in ("isort --check", "black --skip-magic-trailing-comma --check", "flake8 --count"):
        done = subprocess.run(
            [sys.executable, "-m", *command.split(), str(tmp_path)], cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
