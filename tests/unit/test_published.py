"""Official weights by name, against a server that breaks off, sends other files, or is not there."""

from __future__ import annotations

import dataclasses
import hashlib
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from ovos_ray import networks
from ovos_ray.cli.app import app
from ovos_ray.cli.models import models as models_verb
from ovos_ray.errors import ConfigError, WeightsError
from ovos_ray.networks import published
from ovos_ray.train.load_network import load_network


class Server(ThreadingHTTPServer):
    """Serves one file, with ranges; `breaks_after` bytes it breaks off, once."""

    content: bytes
    etag = '"one"'
    breaks_after: int | None = None

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[tuple[str | None, int]] = []


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        content, start, wanted = self.server.content, 0, self.headers.get("Range")
        if wanted and self.headers.get("If-Range") == self.server.etag:
            start = int(re.fullmatch(r"bytes=(\d+)-", wanted).group(1))
        status = 416 if start >= len(content) else 206 if start else 200
        self.send_response(status)
        self.send_header("ETag", self.server.etag)
        if status == 416:
            self.send_header("Content-Range", f"bytes */{len(content)}")
        self.send_header("Content-Length", str(0 if status == 416 else len(content) - start))
        self.end_headers()
        end, self.server.breaks_after = self.server.breaks_after, None
        sent = content[start:end] if status != 416 else b""
        self.server.asked.append((wanted, len(sent)))
        self.wfile.write(sent)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    networks.export_weights(networks.build("stcn-tiny", seed=3), tmp_path / "source.safetensors", "stcn-tiny")
    with Server() as server:
        server.content = (tmp_path / "source.safetensors").read_bytes()
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{server.server_address[1]}/tiny.safetensors"
        model = published.PublishedModel("stcn-tiny", "tiny.safetensors", url, "a page", 1, "noise")
        monkeypatch.setattr(published, "PUBLISHED", {"tiny": model, "elsewhere": dataclasses.replace(model, url=None)})
        monkeypatch.setattr("ovos_ray.train.load_network.PUBLISHED", published.PUBLISHED)
        monkeypatch.setenv("OVOS_MODELS", str(tmp_path / "models"))
        monkeypatch.chdir(tmp_path)
        yield server
        server.shutdown()
        thread.join()


def known(monkeypatch: pytest.MonkeyPatch, **changes: str) -> None:
    monkeypatch.setitem(published.PUBLISHED, "tiny", dataclasses.replace(published.PUBLISHED["tiny"], **changes))


def test_a_name_is_fetched_once_and_pinned_and_works_offline_afterwards(server, tmp_path):
    network = load_network("tiny")
    wanted = networks.build("stcn-tiny", seed=3).state_dict()
    assert all(torch.equal(value, wanted[key]) for key, value in network.state_dict().items())
    digest = hashlib.sha256(server.content).hexdigest()
    assert (tmp_path / "models/tiny.safetensors.sha256").read_text() == f"{digest}  tiny.safetensors\n"
    server.shutdown()
    load_network("tiny")
    assert len(server.asked) == 1
    names = {path.name for path in (tmp_path / "models").iterdir() if path.name[0] != "."}
    assert names == {"tiny.safetensors", "tiny.safetensors.sha256"}


@pytest.mark.parametrize("at", [1, 5000])
def test_a_download_that_broke_off_is_resumed(server, tmp_path, at):
    server.breaks_after = at
    with pytest.raises(WeightsError, match="broke off after") as error:
        published.fetch("tiny")
    assert "goes on where this one stopped" in error.value.remedy
    assert not (tmp_path / "models/tiny.safetensors").exists()
    seen = []
    assert published.fetch("tiny", lambda done, total: seen.append((done, total))).read_bytes() == server.content
    assert server.asked[1] == (f"bytes={at}-", len(server.content) - at)
    assert seen[-1] == (len(server.content), len(server.content))


def test_what_was_whole_before_a_kill_is_not_fetched_again(server, tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models/tiny.safetensors.part").write_bytes(server.content)
    (tmp_path / "models/tiny.safetensors.part.etag").write_text(server.etag)
    assert published.fetch("tiny").read_bytes() == server.content
    assert server.asked == [(f"bytes={len(server.content)}-", 0)]


def test_a_file_that_was_replaced_meanwhile_is_fetched_whole(server):
    server.breaks_after = 700
    with pytest.raises(WeightsError):
        published.fetch("tiny")
    server.content, server.etag = server.content[::-1], '"two"'
    assert published.fetch("tiny").read_bytes() == server.content


@pytest.mark.parametrize("kind", ["sha256", "md5"])
def test_a_wrong_sum_is_refused_and_leaves_nothing(server, tmp_path, monkeypatch, kind):
    known(monkeypatch, **{kind: "0" * 32})
    with pytest.raises(WeightsError, match=rf"its {'SHA-256' if kind == 'sha256' else 'MD5'} is \w+, not 0+"):
        load_network("tiny")
    assert [path.name for path in (tmp_path / "models").iterdir() if path.name[0] != "."] == []
    known(monkeypatch, **{kind: getattr(hashlib, kind)(server.content).hexdigest()})
    assert load_network("tiny")


def test_a_file_that_changed_since_it_was_first_seen_is_refused(server, tmp_path):
    path = published.fetch("tiny")
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(WeightsError, match=r"tiny\.safetensors\.sha256 holds since it was first seen"):
        load_network("tiny")


def test_without_a_server_or_an_address_the_error_says_where_to_put_the_file(server, tmp_path, monkeypatch):
    known(monkeypatch, url="http://127.0.0.1:9/tiny.safetensors")
    with pytest.raises(WeightsError, match="cannot be fetched") as error:
        load_network("tiny")
    assert "put tiny.safetensors into" in error.value.remedy
    with pytest.raises(WeightsError, match="has no address") as error:
        load_network("elsewhere")
    assert error.value.remedy == "get it from a page"
    (tmp_path / "models").mkdir(exist_ok=True)
    (tmp_path / "models/tiny.safetensors").write_bytes(server.content)  # by hand
    assert load_network("elsewhere")


def test_a_file_or_folder_of_that_name_comes_first(server, tmp_path):
    (tmp_path / "tiny").mkdir()
    with pytest.raises(WeightsError, match="holds neither"):
        load_network("tiny")
    assert server.asked == []


def test_the_verb_lists_shows_and_fetches(server, capsys):
    models_verb()
    models_verb("tiny")
    listed = capsys.readouterr().out
    assert "elsewhere" in listed
    assert "pinned then (kept beside the file)" in listed
    models_verb("tiny", fetch=True)
    assert capsys.readouterr().out.strip().endswith("models/tiny.safetensors")
    models_verb("tiny")
    assert hashlib.sha256(server.content).hexdigest() in capsys.readouterr().out
    with pytest.raises(ConfigError, match="no published model"):
        models_verb("tinny")


def test_the_table_names_networks_there_are_and_secure_addresses():
    table = published.PUBLISHED
    assert {model.network for model in table.values()} <= set(networks.names())
    assert all(model.url is None or model.url.startswith("https://") for model in table.values())
    assert len({model.file for model in table.values()}) == len(table)


def test_a_server_leads_to_no_other_scheme(server, monkeypatch):
    """Nor from https to http, which anybody on the way may answer; here the other way round, as there is no https."""

    def leads_away(handler: _Handler) -> None:
        handler.send_response(302)
        handler.send_header("Location", "ftp://127.0.0.1/tiny.safetensors")
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    monkeypatch.setattr(_Handler, "do_GET", leads_away)
    with pytest.raises(WeightsError, match=r"ftp://127\.0\.0\.1/tiny\.safetensors, which is not http"):
        published.fetch("tiny")


def test_a_file_without_an_end_fills_no_disk(server, monkeypatch, tmp_path):
    monkeypatch.setattr(published, "_MOST_BYTES", len(server.content) - 1)
    with pytest.raises(WeightsError, match="which no weights have"):
        published.fetch("tiny")


def test_names_of_models_are_whole_in_a_narrow_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    shown = CliRunner().invoke(app, ["models"]).output
    assert all(f" {name} " in shown for name in published.PUBLISHED)
