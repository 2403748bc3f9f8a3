"""The label page in a real browser: a person draws a mask, sees it propagated, corrects it, goes to the next video."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from browser import CHROMIUM, Browser
from PIL import Image

from ovos_ray import networks
from ovos_ray.label.server import LabelServer
from ovos_ray.label.session import Session

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium (make browser)"),
]

SIZE = (60, 80)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / "videos" / name).mkdir(parents=True)
        for t in range(6):
            frame = Image.fromarray(rng.integers(0, 256, (6, 8, 3)).astype(np.uint8)).resize(SIZE[::-1])
            frame.save(tmp_path / "videos" / name / f"{t:05d}.png")
    return tmp_path / "videos"


@pytest.fixture
def browser(root: Path, tmp_path: Path) -> Iterator[Browser]:
    session = Session(root, networks.build("stcn-tiny", seed=1), shortest_side=0)
    with LabelServer(session) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        browser = Browser(tmp_path / "profile")
        browser.open(server.url)
        browser.wait_for(
            "typeof state !== 'undefined' && state && state.suggestion !== null && frame === state.suggestion"
        )
        yield browser
        browser.close()
        server.shutdown()
        thread.join()
        session.close()


def drag(browser: Browser, *points: tuple[float, float]) -> None:
    """Presses, moves and releases the mouse at points of the picture."""
    script = f"""(() => {{ const {{scale, x, y}} = view.place(), box = view.canvas.getBoundingClientRect();
        return {json.dumps(points)}.map(([px, py]) => [box.left + x + px * scale, box.top + y + py * scale]); }})()"""
    places = browser.run(script)
    for place, (x, y) in enumerate(places):
        kind = "mouseMoved" if place else "mousePressed"
        browser.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)
    browser.send("Input.dispatchMouseEvent", type="mouseReleased", x=x, y=y, button="left", clickCount=1)


def drawn(browser: Browser) -> np.ndarray:
    return np.array(browser.run("[...view.ids]"), np.uint8).reshape(SIZE)


def test_a_person_labels_a_folder_of_videos(browser, root):
    suggestion = browser.run("frame")
    browser.run("resize(10)")
    drag(browser, (20.5, 20.5), (40.5, 20.5))
    stroke = drawn(browser)
    rows, columns = np.nonzero(stroke)
    edges = np.array([rows.min(), rows.max(), columns.min(), columns.max()])
    assert np.abs(edges - (16, 25, 16, 45)).max() <= 1, (
        "a brush of ten pixels; the mouse stops at whole ones of the screen"
    )
    browser.key("e", 69)
    drag(browser, (30.5, 20.5))
    assert drawn(browser)[20, 30] == 0
    browser.click("document.querySelector('#undo')")
    np.testing.assert_array_equal(drawn(browser), stroke)
    browser.key("2", 50)
    browser.key("p", 80)
    for corner in ((50, 30), (70, 30), (70, 50), (50, 50)):
        drag(browser, corner)
    browser.run("view.canvas.focus()")
    browser.key("Enter", 13)
    mask = drawn(browser)
    square = np.argwhere(mask == 2)
    assert np.abs(square.min(0) - (30, 50)).max() <= 1
    assert np.abs(square.max(0) - (49, 69)).max() <= 1
    assert len(square) == pytest.approx(400, abs=60)
    browser.key("s", 83)
    browser.wait_for("state.labels.length === 1 && state.propagation && !state.propagation.running")
    written = root / f"masks/a/{suggestion:05d}.png"
    np.testing.assert_array_equal(np.asarray(Image.open(written)), mask)

    other = (suggestion + 2) % 6  # what the network makes of another frame becomes a label where it is corrected
    browser.run(f"show({other})")
    browser.wait_for(f"frame === {other} && shownMask === 'predicted'")
    browser.key("b", 66)
    browser.key("3", 51)
    drag(browser, (10, 50), (12, 50))
    assert browser.run("[...drafts.values()].map(draft => draft.saved)") == [True, False]
    browser.click("document.querySelector('#next')")
    browser.wait_for("video === 1 && state && size")
    assert sorted(path.name for path in (root / "masks/a").iterdir()) == sorted(
        f"{t:05d}.png" for t in (suggestion, other)
    )
    assert browser.run("document.querySelector('#progress').textContent") == "1 of 2 labelled"
    assert browser.run("drafts.size") == 0
    assert browser.complaints() == [], "no refusal by the content policy either"
    assert all(url.startswith("http://127.0.0.1:") for url in browser.requests())


def test_a_person_drags_a_box_and_clicks(browser, root):
    rng = np.random.default_rng(0)
    image = np.full((*SIZE, 3), (70, 110, 150)) + rng.normal(0, 5, (*SIZE, 3))
    image[15:45, 15:45] += (100, -40, -90)
    image[20:40, 55:75] += (100, -40, -90)
    for t in range(6):
        Image.fromarray(image.astype(np.uint8)).save(root / f"b/{t:05d}.png")
    browser.run("openVideo(1)")
    browser.wait_for("video === 1 && size && state.suggestion !== null && frame === state.suggestion")
    first, second = np.zeros(SIZE, bool), np.zeros(SIZE, bool)
    first[15:45, 15:45], second[20:40, 55:75] = True, True

    def shows(mask: np.ndarray, object_id: int, where: np.ndarray) -> bool:
        found = mask == object_id
        return np.count_nonzero(found & where) > 0.9 * np.count_nonzero(found | where)

    browser.key("+", 187)
    drag(browser, (30, 30))
    assert "drag a box around object 1 first" in browser.run("document.querySelector('#status').textContent")
    browser.key("x", 88)
    drag(browser, (13, 13), (30, 30), (47, 47))
    browser.wait_for("view.prompt && !view.asked")
    boxed = drawn(browser)
    assert shows(boxed, 1, first)
    browser.key("b", 66)
    drag(browser, (5, 55), (9, 55))
    painted = drawn(browser) - boxed
    assert painted.any()
    browser.click("document.querySelector('[data-tool=add]')")
    drag(browser, (65, 30))
    browser.wait_for("view.prompt.clicks.length === 1 && !view.asked")
    clicked = drawn(browser)
    assert shows(np.where(painted > 0, 0, clicked), 1, first | second), "a click outside of the box widens it"
    assert (clicked[painted > 0] == 1).all(), "what the brush has done stays"
    browser.click("document.querySelector('#undo')")
    np.testing.assert_array_equal(drawn(browser), boxed + painted)
    assert browser.run("view.prompt.clicks.length") == 0
    browser.click("document.querySelector('#redo')")
    np.testing.assert_array_equal(drawn(browser), clicked)
    browser.key("-", 189)
    drag(browser, (65.5, 30.5))
    browser.wait_for("view.prompt.clicks.length === 2 && !view.asked")
    assert drawn(browser)[30, 65] == 0
    browser.key("2", 50)
    browser.key("x", 88)
    drag(browser, (53, 18), (77, 42))
    browser.wait_for("view.prompt.object === 2 && !view.asked")
    browser.key("s", 83)
    browser.wait_for("state.labels.length === 1")
    (written,) = (root / "masks/b").iterdir()
    np.testing.assert_array_equal(np.asarray(Image.open(written)), drawn(browser))
    assert shows(drawn(browser), 2, second)
    assert browser.complaints() == []


def test_a_mask_of_somebody_else_is_shown_and_locked(browser, root):
    (root / "masks/b").mkdir(parents=True)
    Image.fromarray(np.pad(np.full((9, 9), 1, np.uint8), ((20, 31), (30, 41)))).save(root / "masks/b/00003.png")
    browser.run("openVideo(1)")
    browser.wait_for("video === 1 && size && frame === 3 && !document.querySelector('#banner').hidden")
    before = drawn(browser)
    assert before[25, 35] == 1
    drag(browser, (5, 5), (60, 50))
    np.testing.assert_array_equal(drawn(browser), before)
    assert browser.run("document.querySelector('#save').disabled")
