"""Self-contained HTML documents that load nothing and escape all external text."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

ASSETS = Path(__file__).resolve().parent / "assets"
"""Folder of the templates, the style sheet and the scripts."""
_TEMPLATES = Environment(
    loader=FileSystemLoader(ASSETS), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)
_TEMPLATES.policies["json.dumps_kwargs"] = {"allow_nan": False}


def document(template: str, script: str, **content: Any) -> bytes:
    """Fill a template and return the whole page in UTF-8.

    The page's policy lets the browser apply the style sheet, run ``script`` and show embedded pictures, nothing else.

    Args:
        template: file name in :data:`ASSETS`; it extends ``base.html``.
        script: file name in :data:`ASSETS`.
        content: variables of the template; every text is escaped.

    Raises:
        jinja2.UndefinedError: the template uses a variable that ``content`` lacks.
    """
    style, code = ((ASSETS / name).read_text(encoding="utf-8") for name in ("style.css", script))
    page = _TEMPLATES.get_template(template).render(
        style=style, style_sha256=_sha256(style), script=code, script_sha256=_sha256(code), **content
    )
    # A file name may hold bytes that are not text. Python keeps them as lone surrogates, which UTF-8 cannot encode.
    return page.encode("utf-8", "replace")


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
