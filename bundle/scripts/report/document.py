"""Self-contained HTML documents: nothing is loaded from anywhere, and no text from outside becomes markup."""

from __future__ import annotations

import base64
import hashlib
import json
from html import escape
from pathlib import Path
from string import Template
from typing import Any

ASSETS = Path(__file__).parent / "assets"
"""Templates, style and scripts, found beside this file at run time."""
NOTICE = "Research only: NOT FOR DIAGNOSTIC USE"


class Html(str):
    """Markup; every other string is text, and is escaped where it enters a document."""


def tag(name: str, *children: Any, **attributes: Any) -> Html:
    """An element with its closing tag.

    Args:
        name: of the element.
        children: markup, or anything else as text.
        attributes: ``class_`` stands for ``class``, ``data_plane`` for ``data-plane``; one that is None is left out.
    """
    given = {key.rstrip("_").replace("_", "-"): value for key, value in attributes.items() if value is not None}
    opening = "".join(f' {key}="{escape(str(value))}"' for key, value in given.items())
    return Html(f"<{name}{opening}>{joined(*children)}</{name}>")


def joined(*children: Any) -> Html:
    """Children one after the other, text escaped."""
    return Html("".join(child if isinstance(child, Html) else escape(str(child)) for child in children))


def asset(name: str) -> Html:
    """A text file of :data:`ASSETS`."""
    return Html((ASSETS / name).read_text(encoding="utf-8"))


def filled(name: str, **parts: Any) -> Html:
    """A template of :data:`ASSETS` with its ``$names`` replaced, text escaped."""
    return Html(Template(asset(name)).substitute({key: joined(value) for key, value in parts.items()}))


def json_text(value: Any) -> Html:
    """JSON for a script element: no character of it can end the element or open a comment."""
    return Html(json.dumps(value, allow_nan=False).replace("<", "\\u003c"))


def document(title: str, body: Html, script: str) -> bytes:
    """A whole page, UTF-8, whose policy lets the browser run ``script`` and show embedded pictures, nothing else.

    Args:
        title: of the window.
        body: the content below the notice.
        script: name of its file in :data:`ASSETS`.
    """
    style, code = asset("style.css"), asset(script)
    hashes = {"style_hash": _sha256(style), "script_hash": _sha256(code)}
    page = filled("document.html", title=title, notice=NOTICE, body=body, style=style, script=code, **hashes)
    # A file name may hold bytes that are no text; they reach Python as lone surrogates, which UTF-8 has no place for.
    return page.encode("utf-8", "replace")


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
