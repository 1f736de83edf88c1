"""Options as they come from the command line."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

SEEDS = 2**32
"""How many seeds there are: NumPy takes no more."""


def as_bool(value: bool | str) -> bool:
    """Read a switch. Fire turns ``True`` and ``False`` into bools, but leaves ``true`` and ``false`` strings.

    Raises:
        ValueError: neither.
    """
    if isinstance(value, bool):
        return value
    words = {"true": True, "false": False}
    if str(value).lower() not in words:
        raise ValueError(f"a switch is true or false, got {value!r}")
    return words[str(value).lower()]


def require_whole(**options: Any) -> None:
    """Raise ValueError unless every option is a whole number; Fire leaves whatever is no number a string."""
    _require(Integral, "a whole number", options)


def require_seed(**options: Any) -> None:
    """Raise ValueError unless every option is a whole number that all random generators take."""
    require_whole(**options)
    for name, value in options.items():
        if not 0 <= value < SEEDS:
            shown = value if abs(value) < 10**30 else "a number of more than 30 digits"
            raise ValueError(f"--{name} is 0 to {SEEDS - 1}, got {shown}")


def require_number(**options: Any) -> None:
    """Raise ValueError unless every option is a number."""
    _require(Real, "a number", options)


def _require(kind: type, name_of_kind: str, options: dict[str, Any]) -> None:
    for name, value in options.items():
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ValueError(f"--{name} takes {name_of_kind}, got {value!r}")
