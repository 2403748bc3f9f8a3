"""The report's page in a real browser: what a reader would notice."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from browser import CHROMIUM, Browser
from synthetic_study import RawRun, curve, made_up_scores, save_mask, square, write_study, write_videos

from ovos_ray.track.report import build_report

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium (make browser)"),
]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a study with pictures, unfinished trials and names that would break careless HTML."""
    folder = tmp_path_factory.mktemp("browser")
    rng = np.random.default_rng(0)
    sequences = ["camel", "goat", "india"]
    write_videos(folder / "data", sequences)
    hardness = np.array([0.0, 5.0, 12.0])
    runs = []
    for strategy, quality, shift in (("2-step", 60.0, 8), ("T-step", 40.0, 0)):
        for seed in range(2):
            settings = {
                "method.backward": strategy,
                "evaluation.root": str(folder / "data"),
                "evaluation.protocol": "davis2017",
                "data.max_skip": ((0.0, 5), (0.1, 10), (0.8, 5)),
            }
            predictions = folder / strategy / str(seed)
            for sequence in sequences:
                for t in range(6):
                    save_mask(predictions / sequence / f"{t:05d}.png", square(t * shift))
            scores = made_up_scores(rng, quality, sequences, hardness)
            scores = {key: value for key, value in scores.items() if key[1] == 1}
            tags = {"ovos.predictions": str(predictions), "ovos.label_percent": "1.4"}
            runs.append(RawRun(f"{strategy}-{seed}", settings, seed, scores, tags=tags, curve=curve(quality)))
    runs.append(RawRun("broken", {"method.backward": "3-step"}, 0, status="FAILED", tags={"ovos.error": "<b>no</b>"}))
    runs.append(RawRun('copy "the" <first> mask', scores={("camel", 1): (20.0, 20.0)}, kind="baseline"))
    uri = f"sqlite:///{folder}/mlflow.db"
    write_study(uri, "study & <script>", runs)
    report = build_report("study & <script>", uri, folder / "out")
    attached = {path.name for path in (folder / "mlruns").rglob("figures/*")}
    assert attached == {f"{sequence}.jpg" for sequence in sequences}
    return report.html


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


def first_column(browser: Browser) -> list[str]:
    script = "[...document.querySelectorAll('#results > tbody > tr[data-row]')].filter(r => !r.hidden)"
    labels: list[str] = browser.run(f"{script}.map(r => r.cells[0].textContent.trim())")
    return labels


def test_page_loads_without_errors_and_asks_the_network_for_nothing(browser: Browser, page: Path) -> None:
    browser.events.clear()
    browser.show(page)
    noise = ("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled")
    assert [event for event in browser.events if event["method"] in noise] == []
    requests = [e["params"]["request"]["url"] for e in browser.events if e["method"] == "Network.requestWillBeSent"]
    assert [url for url in requests if not url.startswith("data:")] == [page.as_uri()]
    assert browser.run("document.querySelector('h1').textContent") == "study & <script>"
    assert "ahead with J&F" in browser.run("document.querySelector('.headline').textContent")


def test_tables_are_filled_and_pictures_load(browser: Browser, page: Path) -> None:
    browser.show(page)
    assert len(first_column(browser)) == 4
    assert browser.run("document.querySelectorAll('#paper table').length") == 4
    pictures = "[...document.images]"
    assert browser.run(f"{pictures}.length") >= 3 * 3
    browser.run(f"Promise.all({pictures}.map(i => i.decode()))")
    assert browser.run(f"{pictures}.every(i => i.complete && i.naturalWidth > 0)") is True
    assert browser.run("document.querySelectorAll('.plot svg').length") >= 5
    assert "Copy score" in browser.run("document.querySelector('#pictures').textContent")


def test_sorting_filtering_and_unfolding_work_from_the_keyboard(browser: Browser, page: Path) -> None:
    browser.show(page)
    ranked = first_column(browser)
    assert ranked[0].startswith("2-step")
    browser.run("document.querySelectorAll('#results th button')[1].focus()")
    browser.key("Enter", 13)
    ascending = first_column(browser)
    assert ascending[0].startswith("copy")
    assert ascending[-1].startswith("3-step"), "a row without a score stays at the end"
    assert browser.run("document.querySelector('#results th[aria-sort]').getAttribute('aria-sort')") == "ascending"
    browser.key("Enter", 13)
    assert first_column(browser)[0].startswith("2-step")

    browser.run("document.querySelector('#search').value = 't-step'; filter()")
    assert [label[:6] for label in first_column(browser)] == ["T-step"]
    assert browser.run("document.querySelector('#count').textContent") == "1 of 4 rows"
    browser.run("document.querySelector('#search').value = ''; filter()")
    choose = "const s = document.querySelector('select[data-axis=\"method.backward\"]'); s.value = '2-step';"
    browser.run(f"{{ {choose} s.dispatchEvent(new Event('input')) }}")
    assert [label[:6] for label in first_column(browser)] == ["2-step"]

    browser.run("document.querySelector('tr[data-row]:not([hidden]) .toggle').focus()")
    browser.key("Enter", 13)
    detail = "document.querySelector('tr[data-row]:not([hidden])').nextElementSibling"
    assert browser.run(f"{detail}.hidden") is False
    assert "2-step-1" in browser.run(f"{detail}.textContent")


@pytest.mark.parametrize("width", [1400, 400])
@pytest.mark.parametrize("dark", [False, True])
def test_page_fits_its_window_and_follows_the_colour_scheme(
    browser: Browser, page: Path, tmp_path: Path, width: int, dark: bool
) -> None:
    browser.show(page, width=width, dark=dark)
    assert browser.run("document.documentElement.scrollWidth") <= width
    paper = browser.run("getComputedStyle(document.body).backgroundColor")
    ink = browser.run("getComputedStyle(document.body).color")
    assert contrast(paper, ink) > 7
    soft = browser.run("getComputedStyle(document.querySelector('.notes')).color")
    assert contrast(paper, soft) > 4.5
    assert (luminance(paper) < 0.1) is dark
    assert len(browser.screenshot(tmp_path / "page.png")) > 20_000


def test_button_switches_the_colour_scheme(browser: Browser, page: Path) -> None:
    browser.show(page)
    before = luminance(browser.run("getComputedStyle(document.body).backgroundColor"))
    browser.run("document.querySelector('#scheme').click()")
    after = luminance(browser.run("getComputedStyle(document.body).backgroundColor"))
    assert before > 0.8
    assert after < 0.1


def test_page_prints(browser: Browser, page: Path) -> None:
    browser.show(page, dark=True)
    document = base64.b64decode(browser.send("Page.printToPDF", printBackground=False)["data"])
    assert document.startswith(b"%PDF")


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2) of `rgb(r, g, b)`."""
    channels = [int(value) / 255 for value in colour.removeprefix("rgb(").removesuffix(")").split(",")]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, two: str) -> float:
    low, high = sorted((luminance(one), luminance(two)))
    return (high + 0.05) / (low + 0.05)
