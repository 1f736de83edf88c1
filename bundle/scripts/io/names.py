"""Conversion of external names to valid file names."""

from __future__ import annotations

import hashlib
import re

_MAX_BYTES = 150
"""Longest name in bytes: file systems allow 255, of which scratch names and suffixes take some."""
_DIGITS = 8


def safe_name(text: str) -> str:
    """Convert ``text`` to a file name of letters of any script, digits, ``.``, ``_`` and ``-``, without a leading dot.

    A name that is too long ends in a digest of the whole, so that names that differ only at their end stay different.
    """
    name = re.sub(r"[^\w.-]+", "_", text).lstrip("._-") or "unnamed"
    if len(name.encode()) <= _MAX_BYTES:
        return name
    digest = hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:_DIGITS]
    return name.encode()[: _MAX_BYTES - _DIGITS - 1].decode(errors="ignore") + f"-{digest}"
