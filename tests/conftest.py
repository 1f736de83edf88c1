"""The fixtures of all tests, where tests run: who only hands them out with ``-n`` need not import torch and MONAI."""

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Load the fixtures; in the workers of ``-n``, ``numprocesses`` is None."""
    if not config.getoption("numprocesses", None):
        config.pluginmanager.import_plugin("tests.fixtures")
