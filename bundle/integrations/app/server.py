"""A page on this machine alone: two films in, a CT out, without typing."""

from __future__ import annotations

import hmac
import logging
import os
import secrets
import signal
import sys
import webbrowser
from argparse import ArgumentParser
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path

from answers import QUESTIONS
from desk import Busy, Desk
from flask import Flask, Response, abort, redirect, render_template, request, send_file
from werkzeug.exceptions import HTTPException
from werkzeug.serving import BaseWSGIServer, make_server
from workflow import Workflow

from scripts import BUNDLE_ROOT
from scripts.geometry import VIEWS
from scripts.io.errors import explain_errors
from scripts.report.document import ASSETS

HERE = Path(__file__).resolve().parent
ADDRESS = "127.0.0.1"
MAX_BYTES = 2**30
"""Limit on all files of an upload together."""
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "frame-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
_REPORT_POLICY = "sandbox allow-scripts; frame-ancestors 'self'"
_HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_ASSETS = {"page.js": HERE, "page.css": HERE, "style.css": ASSETS}
"""Folders of the files that the page loads; its style begins with that of the reports."""
_RESULTS = {"report.html": "report.html", "ct.nii.gz": "ct.nii.gz", "ct-dicom.zip": "dicom.zip"}
"""Files in the result's folder by their name on the page."""


def create_app(desk: Desk, key: str, max_bytes: int = MAX_BYTES) -> Flask:
    """Return the page's server, for the loopback interface only.

    A request needs the key, which the first one has in its address and the others in a cookie, so that neither pages of
    other origins nor other users of the machine get an answer. It must name this machine as its host, so that no other
    name can be bound to the address, and one that changes something must come from the page itself.

    Args:
        desk: the exam that the page works on.
        key: secret of this server.
        max_bytes: limit on an upload.
    """
    app = Flask(__name__, template_folder=HERE, static_folder=None)
    app.config.update(TRUSTED_HOSTS=[ADDRESS, "localhost"], MAX_CONTENT_LENGTH=max_bytes)

    @app.before_request
    def admit() -> None:
        known = request.cookies.get(_cookie(), "")
        if request.endpoint != "enter" and not hmac.compare_digest(known.encode(), key.encode()):
            abort(403, "open the address that the terminal shows")
        if request.method == "POST" and request.headers.get("Origin") != request.host_url.rstrip("/"):
            abort(403, "requests are accepted from the page itself only")

    @app.after_request
    def protect(response: Response) -> Response:
        response.headers.setdefault("Content-Security-Policy", _POLICY)
        response.headers.update(_HEADERS)
        return response

    @app.errorhandler(Busy)
    def refuse_busy(error: Busy) -> tuple[str, int, Mapping[str, str]]:
        return str(error), 409, {"Content-Type": "text/plain; charset=utf-8"}

    @app.errorhandler(HTTPException)
    def refuse(error: HTTPException) -> tuple[str, int, Mapping[str, str]]:
        return f"error: {error.description}", error.code or 500, {"Content-Type": "text/plain; charset=utf-8"}

    @app.get("/enter/<given>")
    def enter(given: str) -> Response:
        if not hmac.compare_digest(given.encode(), key.encode()):
            abort(403, "open the address that the terminal shows")
        response = redirect("/")
        response.set_cookie(_cookie(), key, httponly=True, samesite="Strict")
        return response

    @app.get("/")
    def page() -> str:
        return render_template("page.html", stage=_shown(desk), max_bytes=max_bytes)

    @app.get("/<any(" + ",".join(f'"{name}"' for name in _ASSETS) + "):name>")
    def asset(name: str) -> Response:
        return send_file(_ASSETS[name] / name)

    @app.get("/stage")
    def stage() -> str:
        return _shown(desk)

    @app.post("/<any(films,answers,start,clear):deed>")
    def change(deed: str) -> str:
        deeds: Mapping[str, Callable[[], None]] = {
            "films": lambda: desk.take((file.filename or "", file.stream) for file in request.files.getlist("films")),
            "answers": lambda: desk.answer(request.form.to_dict()),
            "start": desk.start,
            "clear": desk.clear,
        }
        deeds[deed]()
        return _shown(desk)

    @app.get("/result/<any(" + ",".join(f'"{name}"' for name in _RESULTS) + "):name>")
    def result(name: str) -> Response:
        folder = desk.stage.result
        if folder is None:
            abort(404, "there is no result")
        response = send_file(folder / _RESULTS[name], as_attachment="save" in request.args, download_name=name)
        response.headers["Content-Security-Policy"] = _REPORT_POLICY
        return response

    return app


def _cookie() -> str:
    """Return the cookie's name, with the port because cookies are shared by all ports of a host."""
    return f"key-{request.environ['SERVER_PORT']}"


def _shown(desk: Desk) -> str:
    return render_template("stage.html", stage=desk.stage, questions=QUESTIONS, views=VIEWS)


def server(app: Flask, port: int = 0) -> BaseWSGIServer:
    """Return a server on the loopback interface; with port 0, on a free port."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # addresses hold the key
    return make_server(ADDRESS, port, app, threaded=True)


def _has_screen() -> bool:
    """Return whether a browser would open a window and not take the terminal."""
    return os.name == "nt" or sys.platform == "darwin" or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve the page until interrupted, then remove all files of its exams."""
    parser = ArgumentParser("python bundle/integrations/app", description=__doc__)
    parser.add_argument(
        "--config_file", nargs="+", default=[Path(BUNDLE_ROOT) / "configs" / "inference.json"], help="workflow to run"
    )
    parser.add_argument("--port", type=int, default=0, help="port on the loopback interface; 0 for a free one")
    given = parser.parse_args(arguments)
    explain_errors()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    key = secrets.token_urlsafe(32)
    with closing(Desk(Workflow(given.config_file))) as desk:
        running = server(create_app(desk, key), given.port)
        address = f"http://{ADDRESS}:{running.port}/enter/{key}"
        print(f"Open {address} in a browser on this machine. Ctrl+C ends it and removes all files.", flush=True)
        if _has_screen():
            webbrowser.open(address)
        running.serve_forever()
