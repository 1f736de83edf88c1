"""Validation of command-line options."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

SEEDS = 2**32
"""Number of seeds that NumPy accepts."""


def as_bool(value: bool | str) -> bool:
    """Convert a switch to bool: Fire converts ``True`` and ``False``, but leaves ``true`` and ``false`` as strings.

    Raises:
        ValueError: the value is neither.
    """
    if isinstance(value, bool):
        return value
    words = {"true": True, "false": False}
    if str(value).lower() not in words:
        raise ValueError(f"a switch must be true or false, got {value!r}")
    return words[str(value).lower()]


def require_whole(**options: Any) -> None:
    """Raise ValueError unless every option is a whole number; Fire leaves everything but numbers as strings."""
    _require(Integral, "a whole number", options)


def require_seed(**options: Any) -> None:
    """Raise ValueError unless every option is a whole number that all random generators take."""
    require_whole(**options)
    for name, value in options.items():
        if not 0 <= value < SEEDS:
            shown = value if abs(value) < 10**30 else "a number of more than 30 digits"
            raise ValueError(f"--{name} must be 0 to {SEEDS - 1}, got {shown}")


def require_number(**options: Any) -> None:
    """Raise ValueError unless every option is a number."""
    _require(Real, "a number", options)


def require_probability(**options: Any) -> None:
    """Raise ValueError unless every option is a number from 0 to 1."""
    require_number(**options)
    for name, value in options.items():
        if not 0 <= value <= 1:
            raise ValueError(f"--{name} must be a probability from 0 to 1, got {value}")


def _require(kind: type, name_of_kind: str, options: dict[str, Any]) -> None:
    for name, value in options.items():
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ValueError(f"--{name} takes {name_of_kind}, got {value!r}")
