"""Options as they come from the command line."""

from __future__ import annotations


def as_bool(value: bool | str) -> bool:
    """A switch: Fire makes a bool of ``True`` and ``False``, but leaves ``true`` and ``false`` strings.

    Raises:
        ValueError: neither.
    """
    if isinstance(value, bool):
        return value
    words = {"true": True, "false": False}
    if str(value).lower() not in words:
        raise ValueError(f"a switch is true or false, got {value!r}")
    return words[str(value).lower()]
