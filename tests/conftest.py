"""Loads the fixtures of all tests, except in the controller of ``-n``, which would import torch and MONAI in vain."""

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Load the fixtures; in the workers of ``-n``, ``numprocesses`` is None."""
    if not config.getoption("numprocesses", None):
        config.pluginmanager.import_plugin("tests.fixtures")
