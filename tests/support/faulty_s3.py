"""An S3 server (moto) that fails as buckets do: of its answers some are errors, some too late, some cut short.

    python faulty_s3.py PORT SHARE

`GET /_faults?share=0.05` sets the share of failing answers and returns how many there were of each kind.
"""

from __future__ import annotations

import collections
import json
import random
import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple

LATE_S = 6.0
"""Longer than a client waits for an answer."""


class Faulty:
    """Answers of another application, of which a share fails; which ones follows from their number."""

    def __init__(self, app: Callable[..., Iterable[bytes]]) -> None:
        self.app, self.share, self.lock = app, 0.0, threading.Lock()
        self.draw, self.counts = random.Random(7), collections.Counter[str]()

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/_faults":
            if query := environ["QUERY_STRING"]:
                self.share = float(query.removeprefix("share="))
            start("200 OK", [])
            return [json.dumps(self.counts).encode()]
        with self.lock:
            fails, kind = self.draw.random() < self.share, self.draw.choice(["error", "busy", "late", "cut"])
            self.counts[f"{environ['REQUEST_METHOD']} {kind if fails else 'fine'}"] += 1
        if fails and kind in ("error", "busy"):
            start("500 Internal Server Error" if kind == "error" else "503 Slow Down", [("Content-Length", "0")])
            return []
        if fails and kind == "late":
            time.sleep(LATE_S)
        answer = b"".join(self.app(environ, start))
        # The headers promise all of it; after half of it the connection ends.
        return [answer[: len(answer) // 2] if fails and kind == "cut" else answer]


if __name__ == "__main__":
    served = Faulty(DomainDispatcherApplication(create_backend_app))
    served.share = float(sys.argv[2])
    run_simple("127.0.0.1", int(sys.argv[1]), served, threaded=True)
