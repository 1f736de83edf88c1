"""Names from outside, made fit for a file system."""

from __future__ import annotations

import hashlib
import re

_MAX_BYTES = 150
"""File systems allow 255, and scratch names and suffixes take some."""
_DIGITS = 8


def safe_name(text: str) -> str:
    """``text`` as a file name: letters of any script, digits, ``.``, ``_``, ``-``, and no leading dot.

    What is too long ends in a digest of the whole, so that names that differ at their end alone stay different.
    """
    name = re.sub(r"[^\w.-]+", "_", text).lstrip("._-") or "unnamed"
    if len(name.encode()) <= _MAX_BYTES:
        return name
    digest = hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:_DIGITS]
    return name.encode()[: _MAX_BYTES - _DIGITS - 1].decode(errors="ignore") + f"-{digest}"
