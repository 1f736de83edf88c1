"""Self-contained HTML documents that load nothing and escape all external text."""

from __future__ import annotations

import base64
import gzip
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

ASSETS = Path(__file__).resolve().parent / "assets"
"""Folder of the templates, the style sheet and the scripts."""
_TEMPLATES = Environment(
    loader=FileSystemLoader(ASSETS), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)
_TEMPLATES.policies["json.dumps_kwargs"] = {"allow_nan": False}


def document(template: str, scripts: Sequence[str], libraries: Sequence[str] = (), **content: Any) -> bytes:
    """Fill a template and return the whole page in UTF-8.

    The page's policy lets the browser apply the style sheet, run these scripts and libraries, and show embedded
    pictures, nothing else.

    Args:
        template: file name in :data:`ASSETS`; it extends ``base.html``.
        scripts: file names in :data:`ASSETS`, run in this order.
        libraries: file names in :data:`ASSETS` of scripts that the page carries compressed and runs only when one of
            ``scripts`` asks for it.
        content: variables of the template; every text is escaped.

    Raises:
        jinja2.UndefinedError: the template uses a variable that ``content`` lacks.
    """
    style, *code = map(_asset, ("style.css", *scripts, *libraries))
    page = _TEMPLATES.get_template(template).render(
        style=style,
        style_sha256=_sha256(style),
        scripts=code[: len(scripts)],
        scripts_sha256=[_sha256(text) for text in code],
        libraries={name: packed(text.encode()) for name, text in zip(libraries, code[len(scripts) :], strict=True)},
        **content,
    )
    # A file name may hold bytes that are not text. Python keeps them as lone surrogates, which UTF-8 cannot encode.
    return page.encode("utf-8", "replace")


def packed(data: bytes) -> str:
    """Return base64 of gzip of ``data``, the same for the same bytes."""
    return base64.b64encode(gzip.compress(data, compresslevel=6, mtime=0)).decode()


def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
