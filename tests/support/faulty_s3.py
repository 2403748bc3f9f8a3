"""An S3 server (moto) in a process of its own that, if asked to, fails as buckets do.

Of its answers some are errors, some come too late and some are cut short.
"""

from __future__ import annotations

import collections
import json
import random
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from processes import answers, free_port, wait_for
from werkzeug.serving import run_simple

KINDS = ("error", "busy", "late", "cut")
LATE_S = 3.5
"""Longer than Arrow waits for an answer, which is 3 s."""


class Faulty:
    """Answers of another application, of which a share fails; which ones follows from their number."""

    def __init__(self, app: Callable[..., Iterable[bytes]]) -> None:
        self.app, self.share, self.kinds, self.lock = app, 0.0, list(KINDS), threading.Lock()
        self.draw, self.counts = random.Random(7), collections.Counter[str]()

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/_faults":
            share, *self.kinds = environ["QUERY_STRING"].split(",")
            self.share = float(share)
            start("200 OK", [])
            return [json.dumps(self.counts).encode()]
        with self.lock:
            fails, kind = self.draw.random() < self.share, self.draw.choice(self.kinds)
            self.counts[f"{environ['REQUEST_METHOD']} {kind if fails else 'fine'}"] += 1
        if fails and kind in ("error", "busy"):
            start("500 Internal Server Error" if kind == "error" else "503 Slow Down", [("Content-Length", "0")])
            return []
        if fails and kind == "late":
            time.sleep(LATE_S)
        answer = b"".join(self.app(environ, start))
        # The headers promise all of it; after half of it the connection ends.
        return [answer[: len(answer) // 2] if fails and kind == "cut" else answer]


class Server:
    """The server, as tests see it; `uri` is that of an empty bucket."""

    uri = "s3://ovos"

    def __init__(self, port: int) -> None:
        self.port = port

    def fail(self, share: float, *kinds: str) -> dict[str, int]:
        """Lets this share of the answers fail from now on; returns how many answers there were before, by kind."""
        query = f"{share},{','.join(kinds or KINDS)}"
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/_faults?{query}") as answer:
            counts: dict[str, int] = json.loads(answer.read())
        return counts


@contextmanager
def serving() -> Iterator[Server]:
    """Starts the server; pyarrow is led to it by the variables that lead it to MinIO or Ceph."""
    from pyarrow import fs

    port = free_port()
    server = subprocess.Popen(
        [sys.executable, __file__, str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    endpoint = f"http://127.0.0.1:{port}"
    variables = {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    try:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in variables.items():
                patch.setenv(name, value)
            wait_for(lambda: answers(port, "/"), 60)
            fs.S3FileSystem(endpoint_override=endpoint, allow_bucket_creation=True).create_dir("ovos")
            yield Server(port)
    finally:
        server.terminate()
        server.wait(30)


def upload(folder: Any, uri: str) -> None:
    """Copies a folder into a bucket."""
    from pyarrow import fs

    target, path = fs.FileSystem.from_uri(uri)
    fs.copy_files(str(folder), path, source_filesystem=fs.LocalFileSystem(), destination_filesystem=target)


if __name__ == "__main__":
    run_simple("127.0.0.1", int(sys.argv[1]), Faulty(DomainDispatcherApplication(create_backend_app)), threaded=True)
