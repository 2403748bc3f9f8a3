"""The server behind the page: on this machine only, and only for whoever has the address it printed.

It listens on 127.0.0.1. Every address begins with a random token; requests that name another host (a page elsewhere
whose name was made to lead here), or that come from another page, are refused. Videos and frames are asked for by
number, so that no path comes from outside.
"""

from __future__ import annotations

import gzip
import hmac
import json
import secrets
import sys
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import numpy as np

from ovos_ray.data.masks import MAX_PIXELS
from ovos_ray.errors import OvosError
from ovos_ray.label.prompts import MOST_CLICKS, Click
from ovos_ray.label.session import Session

__all__ = ["LabelServer"]

_PAGE = Path(__file__).with_name("page")
_FILES = {
    "": ("label.html", "text/html; charset=utf-8"),
    "label.css": ("label.css", "text/css; charset=utf-8"),
    "label.js": ("label.js", "text/javascript; charset=utf-8"),
    "canvas.js": ("canvas.js", "text/javascript; charset=utf-8"),
}
_POLICY = (
    "default-src 'none'; img-src 'self' blob: data:; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_Answer = tuple[str, bytes, dict[str, str]]


class LabelServer(ThreadingHTTPServer):
    """Serves the page of a session; `with LabelServer(session) as server: server.serve_forever()`.

    It listens on any free port where `port` is 0.
    """

    daemon_threads = True

    def __init__(self, session: Session, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.session = session
        self.token = secrets.token_urlsafe(24)
        self.lock = threading.Lock()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says nothing of a browser that has gone on to another frame before it had this one."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)

    @property
    def url(self) -> str:
        """The address of the page, with its token."""
        return f"http://127.0.0.1:{self.server_address[1]}/{self.token}/"


class _Handler(BaseHTTPRequestHandler):
    server: LabelServer
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "ovos-ray", ""
    timeout = 60

    def do_GET(self) -> None:
        self._answer(_READ)

    def do_POST(self) -> None:
        self._answer(_WRITE)

    def log_message(self, format: str, *args: Any) -> None:
        """Logs nothing: the address holds the token."""

    def _answer(self, calls: dict[str, Callable[[Session, dict[str, int], bytes], _Answer]]) -> None:
        parts = urlsplit(self.path)
        _, token, *rest = (*parts.path.split("/", 2), "")
        name = rest[0]
        port = self.server.server_address[1]
        hosts = [f"127.0.0.1:{port}", f"localhost:{port}"]
        origin = self.headers.get("Origin")
        if self.headers.get("Host") not in hosts or (origin is not None and origin.partition("//")[2] not in hosts):
            return self._refuse(HTTPStatus.FORBIDDEN, "another host")
        if not hmac.compare_digest(token.encode(), self.server.token.encode()):
            return self._refuse(HTTPStatus.FORBIDDEN, "open the address that ovos-ray label printed")
        if calls is _READ and name in _FILES:
            file, kind = _FILES[name]
            return self._send(HTTPStatus.OK, (kind, (_PAGE / file).read_bytes(), {}))
        if name not in calls:
            return self._refuse(HTTPStatus.NOT_FOUND, "there is nothing of this name")
        try:
            query = {key: int(value) for key, value in parse_qsl(parts.query)}
            body = self._body() if calls is _WRITE else b""
            with self.server.lock:
                answer = calls[name](self.server.session, query, body)
        except (ValueError, KeyError, IndexError, OverflowError):
            return self._refuse(HTTPStatus.BAD_REQUEST, "no such frame, or an incomplete request")
        except (OvosError, OSError) as error:
            remedy = getattr(error, "remedy", None)
            return self._refuse(HTTPStatus.CONFLICT, getattr(error, "message", str(error)), remedy)
        return self._send(HTTPStatus.OK, answer)

    def _body(self) -> bytes:
        length = int(self.headers.get("Content-Length") or 0)
        if not 0 <= length <= MAX_PIXELS:
            self.close_connection = True
            raise ValueError(length)
        return self.rfile.read(length)

    def _refuse(self, status: HTTPStatus, problem: str, remedy: str | None = None) -> None:
        if self.headers.get("Content-Length", "0") != "0":
            self.close_connection = True  # what was sent is not read, and would be taken for the next request
        self._send(status, _json({"problem": problem, "remedy": remedy}))

    def _send(self, status: HTTPStatus, answer: _Answer) -> None:
        kind, content, headers = answer
        self.send_response(status)
        all_headers = {**_HEADERS, **headers, "Content-Type": kind, "Content-Length": str(len(content))}
        for key, value in all_headers.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(content)


def _json(value: object) -> _Answer:
    return "application/json", json.dumps(value).encode(), {}


def _mask(session: Session, query: dict[str, int], _: bytes) -> _Answer:
    """H·W object ids: of the label, or of what was propagated."""
    packed = session.propagated(query["video"], query["frame"]) if query.get("propagated") else None
    if packed is None:
        packed = gzip.compress(session.label(query["video"], query["frame"]).tobytes(), 1)
    return "application/octet-stream", packed, {"Content-Encoding": "gzip"}


def _prompt(session: Session, query: dict[str, int], body: bytes) -> _Answer:
    """H·W times 0 or 1: where the object in a box is. The body holds the clicks, each three int32: x, y, 1 or 0."""
    x0, y0, x1, y1 = (query[side] for side in ("x0", "y0", "x1", "y1"))
    numbers = np.frombuffer(body[: 12 * (MOST_CLICKS + 1)], "<i4").reshape(-1, 3).tolist()
    clicks = [Click(x, y, bool(positive)) for x, y, positive in numbers]
    mask = session.prompt(query["video"], query["frame"], (x0, y0, x1, y1), clicks)
    return "application/octet-stream", gzip.compress(mask.tobytes(), 1), {"Content-Encoding": "gzip"}


def _save(session: Session, query: dict[str, int], body: bytes) -> _Answer:
    mask = np.frombuffer(body, np.uint8).reshape(query["height"], query["width"])
    return _json(session.save(query["video"], query["frame"], mask))


_READ: dict[str, Callable[[Session, dict[str, int], bytes], _Answer]] = {
    "videos": lambda session, query, _: _json(session.overview()),
    "state": lambda session, query, _: _json(session.state(query["video"])),
    "frame": lambda session, query, _: ("image/jpeg", session.frame(query["video"], query["frame"]), {}),
    "mask": _mask,
}
_WRITE: dict[str, Callable[[Session, dict[str, int], bytes], _Answer]] = {
    "save": _save,
    "prompt": _prompt,
    "remove": lambda session, query, _: _json(session.remove(query["video"], query["frame"])),
    "propagate": lambda session, query, _: _json(session.propagate(query["video"])),
    "stop": lambda session, query, _: _json(session.stop(query["video"])),
}
