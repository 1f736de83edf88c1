"""What an integration installs, and where."""

import os
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
INTEGRATIONS = REPOSITORY / "bundle" / "integrations"


def pins(path):
    """The versions by package. Every line is one: a file that a release does not have is not asked for."""
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split("==") for line in lines)


@pytest.mark.parametrize("name", ["deploy", "monailabel"])
def test_an_integration_installs_what_the_bundle_requires(name):
    ours, bundle = pins(INTEGRATIONS / name / "requirements.txt"), pins(REPOSITORY / "requirements.txt")
    common = ours.keys() & bundle.keys()
    assert {package: ours[package] for package in common} == {package: bundle[package] for package in common}
    assert {"monai", "torch", "numpy", "pydicom"} <= common


def test_monai_label_s_environment_is_not_begun_with_a_python_that_its_requirements_refuse(tmp_path):
    old = tmp_path / "python3.10"
    old.write_text('#!/bin/sh\n[ "$1" = -V ] && echo Python 3.10.4 || exit 1\n')
    old.chmod(0o755)
    command = ["sh", INTEGRATIONS / "monailabel" / "install.sh", tmp_path / "environment"]
    done = subprocess.run(command, env={**os.environ, "PYTHON": str(old)}, capture_output=True, text=True)
    told = f"error: {old} is Python 3.10.4; MONAI Label's requirements need Python 3.11 or newer: set PYTHON\n"
    assert (done.returncode, done.stderr) == (1, told)
    assert not (tmp_path / "environment").exists()
