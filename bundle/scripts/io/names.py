"""Names from outside, made fit for a file system."""

from __future__ import annotations

import re

_MAX_BYTES = 150
"""File systems allow 255, and scratch names and suffixes take some."""


def safe_name(text: str) -> str:
    """``text`` as a file name: letters of any script, digits, ``.``, ``_``, ``-``, and no leading dot."""
    name = re.sub(r"[^\w.-]+", "_", text).lstrip("._-")
    return name.encode()[:_MAX_BYTES].decode(errors="ignore") or "unnamed"
