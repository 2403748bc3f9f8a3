"""The report's page in a real browser: what a reader would notice, on a made-up study and on real ones."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import CHROMIUM, Browser
from PIL import Image
from report_pages import StudyPage, demo_page, made_up_page, synthetic_study_page

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium (make browser)"),
]

SHOWN = "[...document.querySelectorAll('#results > tbody > tr[data-row]')].filter(row => !row.hidden)"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the made-up study."""
    return made_up_page(tmp_path_factory.mktemp("browser")).html


@pytest.fixture(
    scope="module",
    params=[
        "made up",
        pytest.param("synthetic study", marks=pytest.mark.nightly),
        pytest.param("demo", marks=[pytest.mark.ray, pytest.mark.nightly]),
    ],
)
def study(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> StudyPage:
    """One study after the other."""
    if request.param == "demo":
        request.getfixturevalue("_cluster")
    make = {"made up": made_up_page, "synthetic study": synthetic_study_page, "demo": demo_page}[request.param]
    return make(tmp_path_factory.mktemp("study"))


def shown(browser: Browser) -> list[list[str]]:
    """The text of every cell of the rows of the results that are to be seen."""
    cells: list[list[str]] = browser.run(f"{SHOWN}.map(row => [...row.cells].map(cell => cell.textContent.trim()))")
    return cells


def first_column(browser: Browser) -> list[str]:
    return [cells[0] for cells in shown(browser)]


@pytest.mark.parametrize("width", [1400, 400])
@pytest.mark.parametrize("dark", [False, True])
def test_page_opens_without_errors_or_requests_and_fits_its_window_and_colour_scheme(
    browser: Browser, study: StudyPage, tmp_path: Path, width: int, dark: bool
) -> None:
    browser.events.clear()
    browser.show(study.html, width=width, dark=dark)
    browser.run("Promise.all([...document.images].map(image => image.decode()))")
    browser.run("document.querySelectorAll('details').forEach(details => { details.open = true })")
    assert browser.run("document.documentElement.scrollWidth") <= width
    paper = browser.run("getComputedStyle(document.body).backgroundColor")
    ink = browser.run("getComputedStyle(document.body).color")
    assert contrast(paper, ink) > 7
    soft = browser.run("getComputedStyle(document.querySelector('.notes')).color")
    assert contrast(paper, soft) > 4.5
    assert (luminance(paper) < 0.1) is dark
    assert len(browser.screenshot(tmp_path / "page.png")) > 20_000
    assert browser.complaints() == []
    assert browser.requests() == [study.html.as_uri()]


def test_pictures_load_and_plots_are_drawn(browser: Browser, study: StudyPage) -> None:
    browser.show(study.html)
    sizes = browser.run("[...document.images].map(image => image.complete ? image.naturalWidth : 0)")
    assert len(sizes) >= 3 * 3
    assert min(sizes) > 100
    assert browser.run("[...document.querySelectorAll('video, audio, iframe, object, embed')].length") == 0
    drawn = browser.run("[...document.querySelectorAll('.plot svg')].map(svg => svg.querySelectorAll('path').length)")
    assert len(drawn) >= 5
    assert min(drawn) > 10


def test_tables_hold_what_the_runs_have_scored(browser: Browser, study: StudyPage) -> None:
    browser.show(study.html)
    assert browser.run("[...document.querySelectorAll('table')].every(table => table.tBodies[0].rows.length > 0)")
    assert browser.run("document.querySelectorAll('#paper table').length") == 4
    rows = {cells[0]: cells for cells in shown(browser)}
    assert rows.keys() == study.scores.keys()
    unfolded = f"{SHOWN}.map(row => row.nextElementSibling.textContent)"
    details = dict(zip(first_column(browser), browser.run(unfolded), strict=True))
    for name, scores in study.scores.items():
        means = [[(j + f) / 2 for j, f in scores], [j for j, _ in scores], [f for _, f in scores]]
        assert rows[name][1:4] == [as_shown(values) for values in means]
        for value in means[0]:
            assert f"{value:.1f}" in details[name]
    for name, labels in study.labels.items():
        counted = sum(labels[use] for use in ("training", "validation"))
        percent = 100 * counted / (labels["training_frames"] + labels["validation_frames"])
        assert float(rows[name][7]) == pytest.approx(percent, rel=5e-3)
        for use in ("training", "validation"):
            if labels[f"{use}_frames"]:
                assert f"{use} {labels[use]} of {labels[f'{use}_frames']} frames" in details[name]


def test_rows_beside_the_paper_hold_the_same_scores(browser: Browser, study: StudyPage) -> None:
    browser.show(study.html)
    ours = browser.run(
        "[...document.querySelectorAll('#paper tr.ours')].filter(row => row.cells.length > 1)"
        ".map(row => [...row.cells].map(cell => cell.firstChild.textContent.trim()))"
    )
    assert ours
    for name, _, *cells in ours:
        means = [[(j + f) / 2 for j, f in study.scores[name]], *zip(*study.scores[name], strict=True)]
        # A table of YouTube-VOS has other columns, which stay empty.
        assert cells[:3] in ([as_shown(values) for values in means], ["–"] * 3)
    for words in browser.run("[...document.querySelectorAll('#paper .contrast')].map(span => span.textContent)"):
        found = re.match(r"[+−][\d.]+ against (.+) \(\d+ sequences, p .*\)$", words)
        assert found, words
        assert found[1] in study.scores


def test_copy_scores_are_those_of_the_stored_masks(browser: Browser, study: StudyPage) -> None:
    browser.show(study.html)
    table = "document.querySelector('[aria-label=\"Copy scores\"] table')"
    shown = browser.run(f"[...{table}.tBodies[0].rows].map(row => [...row.cells].map(cell => cell.textContent))")
    assert shown
    for name, *numbers in shown:
        truth, first, difference = (float(number.replace("−", "-")) for number in numbers)
        assert difference == pytest.approx(first - truth, abs=0.11)
        if name in study.predicted:
            # Every second pixel of the page's masks; all of them here.
            assert [truth, first] == pytest.approx(similarities(study.predicted[name], study.dataset), abs=2)


@pytest.mark.parametrize("width", [1400, 400])
def test_a_click_on_any_header_sorts_by_its_column(browser: Browser, study: StudyPage, width: int) -> None:
    browser.show(study.html, width=width)
    everything = sorted(shown(browser))
    num_columns = browser.run("document.querySelectorAll('#results > thead th').length")
    assert num_columns == 9
    for column in range(num_columns):
        header = f"document.querySelectorAll('#results > thead th')[{column}]"
        directions = []
        for _ in range(2):
            browser.click(f"{header}.querySelector('button')")
            directions.append(browser.run(f"{header}.ariaSort"))
            assert is_sorted([cells[column] for cells in shown(browser)], column, directions[-1])
            assert sorted(shown(browser)) == everything
        assert sorted(directions) == ["ascending", "descending"]


def is_sorted(texts: list[str], column: int, direction: str) -> bool:
    """Whether a column is in order: words without regard to case, numbers by size, what is missing at the end."""
    values: list[Any]
    if column in (0, 8):
        values = [text.casefold() or None for text in texts]
    else:
        found = [re.match(r"[<−]?[\d.]+", text) for text in texts]
        values = [None if m is None else float(m[0].replace("−", "-").lstrip("<")) for m in found]
    known = [value for value in values if value is not None]
    return known == sorted(known, reverse=direction == "descending") and None not in values[: len(known)]


def test_search_and_filters_leave_what_they_name(browser: Browser, study: StudyPage) -> None:
    browser.show(study.html)
    labels = first_column(browser)
    word = labels[0].split()[0].lower()
    browser.click("document.querySelector('#search')")
    browser.send("Input.insertText", text=word)
    left = first_column(browser)
    assert left == [label for label in labels if word in label.lower()]
    assert 0 < len(left) < len(labels)
    assert browser.run("document.querySelector('#count').textContent") == f"{len(left)} of {len(labels)} rows"
    browser.run("document.querySelector('#search').value = ''; filter()")

    choices = browser.run(
        "[...document.querySelectorAll('select[data-axis]')].map(s => [...s.options].map(option => option.value))"
    )
    assert choices
    for number, (everything, *values) in enumerate(choices):
        found = []
        for value in values:
            choose = f"const s = document.querySelectorAll('select[data-axis]')[{number}]; s.value = {value!r};"
            browser.run(f"{{ {choose} s.dispatchEvent(new Event('input')) }}")
            found += first_column(browser)
            browser.run(f"{{ {choose} s.value = {everything!r}; s.dispatchEvent(new Event('input')) }}")
        trained = [label for label in labels if " · " in label]
        assert sorted(found) == sorted(trained), "each trained configuration has one value of each axis"
    browser.click("document.querySelector('#finished')")
    assert first_column(browser) == [label for label in labels if study.scores[label]]


def test_tabulator_reaches_search_filters_and_every_header(browser: Browser, study: StudyPage) -> None:
    browser.show(study.html)
    wanted = "[...document.querySelectorAll('.controls input, .controls select, #results > thead button')]"
    total = browser.run(f"{wanted}.length")
    reached: list[int] = []
    for _ in range(60):
        if len(reached) == total:
            break
        browser.key("Tab", 9)
        place = browser.run(f"{wanted}.indexOf(document.activeElement)")
        if place >= 0:
            assert browser.run("document.activeElement.matches(':focus-visible')")
            reached.append(place)
    assert reached == list(range(total))


def test_names_that_look_like_html_are_shown_as_they_are(browser: Browser, page: Path) -> None:
    browser.show(page)
    assert browser.run("document.querySelector('h1').textContent") == "study & <script>"
    assert "ahead with J&F" in browser.run("document.querySelector('.headline').textContent")
    assert 'copy "the" <first> mask' in first_column(browser)


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


def as_shown(values: Sequence[float]) -> str:
    """Mean and deviation over seeds as a cell gives them."""
    if not values:
        return "–"
    mean = sum(values) / len(values)
    spread = math.sqrt(sum((value - mean) ** 2 for value in values) / max(1, len(values) - 1))
    return f"{mean:.1f}" + (f" ± {spread:.1f}" if len(values) > 1 else "")


def similarities(predicted: Path, dataset: Path) -> tuple[float, float]:
    """Mean J of stored masks against the truth and against the first mask, in percent, by object, frame and video."""
    means = []
    for video in sorted(path for path in predicted.iterdir() if path.is_dir() and path.name[0] != "."):
        true, pred = (
            np.stack([np.asarray(Image.open(path)) for path in sorted((root / video.name).glob("*.png"))])
            for root in (dataset / "Annotations" / "480p", predicted)
        )
        values = [
            [iou(mask == index, other == index) for mask, now in zip(pred[1:], true[1:], strict=True)
             for other in (now, true[0])]
            for index in np.unique(true[0])[1:]
        ]  # fmt: skip
        means.append(np.array(values).reshape(len(values), -1, 2).mean((0, 1)))
    truth, first = 100 * np.mean(means, 0)
    return float(truth), float(first)


def iou(one: np.ndarray, two: np.ndarray) -> float:
    union = np.count_nonzero(one | two)
    return np.count_nonzero(one & two) / union if union else 1.0
