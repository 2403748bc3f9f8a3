"""The page's server and what it writes: masks that `pack` reads, nothing of others replaced, nobody else let in."""

from __future__ import annotations

import gzip
import http.client
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from ovos_ray import networks
from ovos_ray.cli.app import app
from ovos_ray.data.folders.open import open_dataset
from ovos_ray.data.masks import DAVIS_PALETTE, encode_jpeg
from ovos_ray.errors import DataError
from ovos_ray.evaluate.infer.inference import predict_video
from ovos_ray.label.prompts import mask_from_box
from ovos_ray.label.server import LabelServer
from ovos_ray.label.session import Session
from ovos_ray.label.suggest import look_at, suggested_frame
from ovos_ray.label.videos import find_videos
from ovos_ray.packing.pack import pack

SIZE, FRAMES = (32, 48), 7


def a_mask(*ids: int) -> np.ndarray:
    mask = np.zeros(SIZE, np.uint8)
    for index in ids:
        mask[2 + 9 * index : 10 + 9 * index, 8:30] = index
    return mask


def picture(t: int) -> np.ndarray:
    wide = np.random.default_rng(0).integers(0, 256, (6, 14, 3)).astype(np.uint8)
    return np.asarray(Image.fromarray(wide).resize((80, SIZE[0]), Image.Resampling.BICUBIC))[:, 3 * t : 3 * t + SIZE[1]]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder of two videos, `clip` as frames and `film` as a file, without masks."""
    import av

    root = tmp_path / "videos-of-mine"
    (root / "clip").mkdir(parents=True)
    for t in range(FRAMES):
        (root / f"clip/{t:05d}.jpg").write_bytes(encode_jpeg(picture(t)))
    with av.open(str(root / "film.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = SIZE[1], SIZE[0], "yuv420p"
        for t in range(FRAMES):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture(t)), format="rgb24")))
        container.mux(stream.encode())
    return root


class Client:
    """Speaks to a server as the page does."""

    def __init__(self, server: LabelServer) -> None:
        self.parts = urlsplit(server.url)

    def send(self, method: str, path: str, body: bytes | None = None, **headers: str) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection(self.parts.hostname, self.parts.port, timeout=30)
        connection.request(method, path, body, {key.capitalize(): value for key, value in headers.items()})
        return connection.getresponse()

    def ask(self, name: str) -> Any:
        answer = self.send("GET", self.parts.path + name)
        assert answer.status == 200, answer.read()
        return json.loads(answer.read())

    def post(self, name: str, body: bytes = b"") -> tuple[int, Any]:
        answer = self.send("POST", self.parts.path + name, body)
        return answer.status, json.loads(answer.read())

    def save(self, video: int, frame: int, mask: np.ndarray) -> tuple[int, Any]:
        return self.post(
            f"save?video={video}&frame={frame}&height={mask.shape[0]}&width={mask.shape[1]}", mask.tobytes()
        )

    def wait(self, video: int, key: str = "done") -> Any:
        for _ in range(600):
            state = self.ask(f"state?video={video}")
            if state[key] if key == "done" else not state[key]["running"]:
                return state
            time.sleep(0.05)
        raise AssertionError(state)


@pytest.fixture
def client(root: Path) -> Iterator[Client]:
    yield from serving(Session(root))


def serving(session: Session) -> Iterator[Client]:
    with LabelServer(session) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield Client(server)
        server.shutdown()
        thread.join()
        session.close()


def test_masks_are_written_where_pack_reads_them(client, root, tmp_path):
    assert [one["name"] for one in client.ask("videos")["videos"]] == ["clip", "film"]
    for video, frame in ((0, 4), (1, 2)):
        state = client.wait(video)
        assert (state["frames"], state["labels"]) == (FRAMES, [])
        assert 0 <= state["suggestion"] < FRAMES
        status, state = client.save(video, frame, a_mask(1, 2))
        assert (status, state["labels"]) == (200, [frame])
    written = Image.open(root / "masks/clip/00004.png")
    assert (written.mode, bytes(written.getpalette())) == ("P", DAVIS_PALETTE)
    np.testing.assert_array_equal(np.asarray(written), a_mask(1, 2))
    index = pack(open_dataset(root, "folder", "folder"), tmp_path / "shards", labels="first", split="train")
    assert {video.name: video.label_frames for video in index.videos} == {"clip": (4,), "film": (2,)}
    answer = client.send("GET", client.parts.path + "mask?video=1&frame=2")
    assert gzip.decompress(answer.read()) == a_mask(1, 2).tobytes()
    frame = client.send("GET", client.parts.path + "frame?video=1&frame=6").read()
    assert frame.startswith(b"\xff\xd8")


def test_what_was_written_here_may_be_corrected_and_what_was_not_is_never_replaced(client, root):
    target = root / "masks/clip/00001.png"
    assert client.save(0, 1, a_mask(1))[0] == 200
    assert client.save(0, 1, a_mask(2))[0] == 200
    np.testing.assert_array_equal(np.asarray(Image.open(target)), a_mask(2))
    assert client.save(0, 3, a_mask(1))[1]["labels"] == [1, 3]
    assert client.post("remove?video=0&frame=3")[1]["labels"] == [1]
    Image.fromarray(a_mask(1)).save(target)  # as another program would
    changed = target.read_bytes()
    for answer in (client.save(0, 1, a_mask(2)), client.save(0, 5, a_mask(2)), client.post("remove?video=0&frame=1")):
        assert answer[0] == 409
        assert "was not written by this page" in answer[1]["problem"]
    assert target.read_bytes() == changed
    Image.fromarray(a_mask(1)).save(root / "film.png")
    assert client.save(1, 0, a_mask(2))[0] == 409
    assert client.ask("videos")["videos"][1]["foreign"].endswith("film.png")
    assert sorted(path.name for path in (root / "masks").rglob("*.png")) == ["00001.png"]


def test_masks_that_fit_no_frame_are_refused(client, root):
    assert client.save(0, 1, a_mask())[1]["problem"] == "the mask shows no object"
    assert client.save(0, 1, a_mask(1)[:10])[0] == 409
    assert client.save(0, 99, a_mask(1))[0] == 409
    assert client.post("save?video=0&frame=1&height=3&width=4", b"short")[0] == 400
    assert client.post("save?video=9&frame=1&height=1&width=1", b"x")[0] == 400
    for length in ("x", "-1", str(10**9)):
        answer = client.send(
            "POST", client.parts.path + "save?video=0&frame=1&height=1&width=1", **{"content-length": length}
        )
        assert answer.status == 400
    assert client.post("propagate?video=0")[1]["remedy"].startswith("start with --checkpoint")
    assert not (root / "masks").exists()


def test_a_box_and_clicks_become_a_mask(client, root):
    image = np.full((*SIZE, 3), (70, 110, 150), np.uint8) + np.random.default_rng(0).integers(0, 9, (*SIZE, 3))
    image[8:24, 10:26] += np.array((100, -20, -90))
    image[8:24, 34:44] += np.array((100, -20, -90))
    (root / "clip/00002.jpg").write_bytes(encode_jpeg(image.astype(np.uint8)))

    def asked(box: str, *clicks: tuple[int, int, int]) -> np.ndarray:
        sides = "&".join(f"{side}={value}" for side, value in zip(("x0", "y0", "x1", "y1"), box.split(), strict=True))
        body = np.array(clicks, "<i4").tobytes()
        answer = client.send("POST", f"{client.parts.path}prompt?video=0&frame=2&{sides}", body)
        content = answer.read()
        assert answer.status == 200, content
        return np.frombuffer(gzip.decompress(content), np.uint8).reshape(SIZE)

    mask = asked("8 6 28 26")
    assert set(np.unique(mask)) == {0, 1}
    assert np.abs(np.argwhere(mask).min(0) - (8, 10)).max() <= 1
    assert np.abs(np.argwhere(mask).max(0) - (23, 25)).max() <= 1
    decoded = np.asarray(Image.open(root / "clip/00002.jpg"))
    clicks = [(39, 16, 1), (18, 22, 0)]
    np.testing.assert_array_equal(asked("8 6 28 26", *clicks), mask_from_box(decoded, (8, 6, 28, 26), clicks))
    assert asked("8 6 28 26", *clicks)[16, 39] == 1
    assert not (root / "masks").exists(), "nothing is written before it is saved"


def test_hostile_boxes_and_clicks_are_refused(client):
    def status(query: str, body: bytes = b"") -> int:
        answer = client.send("POST", f"{client.parts.path}prompt?video=0&frame=1&{query}", body)
        assert answer.headers["Content-Type"] == "application/json"
        assert json.loads(answer.read())["problem"]
        return answer.status

    box = "x0=2&y0=2&x1=20&y1=20"
    assert status("x0=2&y0=2&x1=20") == 400, "a side is missing"
    assert status("x0=a&y0=2&x1=20&y1=20") == 400
    assert status(f"x0={'9' * 5000}&y0=2&x1=20&y1=20") == 400
    assert status(f"x0={'9' * 300}&y0=2&x1=20&y1=20") == 409
    assert status("x0=-9&y0=-9&x1=0&y1=0") == 409
    assert status(box, b"12345") == 400, "no three numbers"
    assert status(box, np.array([[99, 2, 1]], "<i4").tobytes()) == 409, "outside of the frame"
    assert status(box, np.array([[2, -1, 1]], "<i4").tobytes()) == 409
    assert status(box, b"\0" * 12_000_000) == 409, "a million clicks"
    assert status("video=9&" + box) == 400
    assert status(box.replace("x0", "frame=99&x0")) == 400
    assert client.send("GET", f"{client.parts.path}prompt?video=0&frame=1&{box}").status == 404
    assert client.send("POST", f"/{'x' * 32}/prompt?video=0&frame=1&{box}", b"").status == 403


def test_only_who_has_the_address_is_let_in_and_no_other_page(client):
    path, port = client.parts.path, client.parts.port
    assert client.parts.hostname == "127.0.0.1"
    assert len(path) > 30
    assert client.send("GET", path).status == 200
    assert client.send("GET", "/").status == 403
    assert client.send("GET", "/" + "x" * 32 + "/videos").status == 403
    assert client.send("GET", path + "videos", host="elsewhere.example").status == 403, "DNS rebinding"
    assert client.send("GET", path + "videos", host=f"127.0.0.1:{port + 1}").status == 403
    assert client.send("GET", path + "videos", host=f"localhost:{port}").status == 200
    assert client.send("POST", path + "propagate?video=0", b"", origin="https://elsewhere.example").status == 403
    assert client.send("POST", path + "propagate?video=0", b"", origin="null").status == 403
    for name in ("../server.py", "%2e%2e/server.py", "page/label.html", "label.css/..", "frame?video=clip&frame=0"):
        assert client.send("GET", path + name).status in (400, 404), name
    assert client.send("GET", path + "save?video=0&frame=0").status == 404, "only POST changes anything"
    page = client.send("GET", path)
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert page.headers["Referrer-Policy"] == "no-referrer", "the token stays here"
    assert b"http" not in page.read(), "nothing from elsewhere"


@pytest.mark.parametrize("video", [0, 1])
def test_the_preview_is_the_prediction_both_ways(root, video):
    network = networks.build("xmem-tiny", seed=1)
    served = serving(Session(root, network, shortest_side=0))
    client = next(served)
    client.wait(video)
    client.save(video, 3, a_mask(1))
    client.save(video, 5, a_mask(1, 2))
    client.post(f"propagate?video={video}")
    state = client.wait(video, "propagation")
    assert state["propagation"]["frames"] == list(range(FRAMES))
    frames = [
        np.asarray(Image.open(client.send("GET", f"{client.parts.path}frame?video={video}&frame={t}")).convert("RGB"))
        for t in range(FRAMES)
    ]
    if video == 0:
        frames = [np.asarray(Image.open(path)) for path in sorted((root / "clip").iterdir())]
    before = list(predict_video(network, frames[3::-1], {0: a_mask(1)}, shortest_side=0))[:0:-1]
    after = list(predict_video(network, frames[3:], {0: a_mask(1), 2: a_mask(1, 2)}, shortest_side=0))
    for t, wanted in enumerate(before + after):
        answer = client.send("GET", f"{client.parts.path}mask?video={video}&frame={t}&propagated=1")
        found = np.frombuffer(gzip.decompress(answer.read()), np.uint8)
        assert np.mean(found != wanted.ravel()) < 0.01, t  # the browser's JPEG is decoded by another library here
    next(served, None)


def test_one_video_may_be_given_and_what_is_none_is_refused(root, tmp_path):
    assert find_videos(root / "film.mp4")[1] == ["film"]
    folder, names = find_videos(root / "clip")
    assert (folder.root, names) == (root, ["clip"])
    (tmp_path / "empty").mkdir()
    for name, message in (("absent", "no such file or folder"), ("empty", "neither a video nor a folder of videos")):
        with pytest.raises(DataError, match=message):
            find_videos(tmp_path / name)
    with pytest.raises(DataError, match="neither a video nor"):
        find_videos(root / "clip/00000.jpg")


def test_the_suggested_frame_is_the_typical_one():
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 30, (40, 60, 3))
    frames = [np.clip(noise + level, 0, 255).astype(np.uint8) for level in (0, 100, 104, 100, 108, 200, 250)]
    assert suggested_frame([look_at(frame) for frame in frames]) in (1, 2, 3, 4)
    assert suggested_frame([look_at(frames[0])]) == 0


def test_the_end_says_what_has_no_mask_yet_and_what_comes_next(root, monkeypatch):
    def interrupted(_: LabelServer) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(LabelServer, "serve_forever", interrupted)

    def ending() -> str:
        result = CliRunner().invoke(app, ["label", str(root), "--no-browser"])
        assert result.exit_code == 0, result.output
        return " ".join(result.output.split())

    assert "2 of 2 videos without a mask: clip, film;" in ending()
    assert "next:" not in ending()
    (root / "masks/clip").mkdir(parents=True)
    Image.fromarray(a_mask(1)).save(root / "masks/clip/00000.png")
    assert "1 of 2 videos without a mask: film;" in ending()
    assert "next: ovos-ray pack" in ending()


@pytest.mark.parametrize("note", ["", "[]", '{"sha256": 7}', "[" * 100_000])
def test_a_damaged_note_makes_all_masks_those_of_others(root: Path, note: str) -> None:
    session = Session(root)
    session.save(0, 2, a_mask(1))
    (path,) = (root / "masks/.ovos-ray/labels").glob("clip*.json")
    path.write_text(note)
    assert session.state(0)["foreign"]
    with pytest.raises(DataError, match="not written by this page"):
        session.save(0, 2, a_mask(2))
    session.close()
