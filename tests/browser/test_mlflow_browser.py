"""MLflow's own pages on a study of ours: they answer the ablation question without our page."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from browser import CHROMIUM, Browser
from synthetic_study import RawRun, curve, made_up_scores, write_study

from ovos_ray.report.build import build_report
from ovos_ray.report.read import load_study

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium (make browser)"),
]
SEQUENCES = [f"seq-{number}" for number in range(8)]
TEXT = "(document.body?.innerText ?? '')"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two strategies, two seeds each, with their report attached."""
    folder = tmp_path_factory.mktemp("mlflow")
    rng = np.random.default_rng(0)
    runs = []
    for strategy, quality in (("2-step", 60.0), ("T-step", 40.0)):
        for seed in (0, 1):
            scores = made_up_scores(rng, quality, SEQUENCES, np.zeros(8))
            tags = {"ovos.strategy": strategy, "ovos.label_percent": "1.4"}
            settings = {"method.backward": strategy}
            runs.append(RawRun(f"{strategy}-seed-{seed}", settings, seed, scores, tags=tags, curve=curve(quality)))
    uri = f"sqlite:///{folder}/mlflow.db"
    write_study(uri, "ablation", runs)
    build_report("ablation", uri, folder / "out")
    return uri


@pytest.fixture(scope="module")
def server(store: str) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store, "--port", str(port)]
    folder = Path(store.removeprefix("sqlite:///")).parent
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with open(folder / "server.log", "wb") as log:
        process = subprocess.Popen(
            [*command, "--workers", "1"],
            cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    try:
        _wait_until_up(address, process)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(20)


def _wait_until_up(address: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=5):
                return
        except OSError:
            time.sleep(0.3)
    raise AssertionError("the MLflow server did not start")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


def test_sweep_shows_summary_table_and_children(browser: Browser, server: str, store: str) -> None:
    study = load_study("ablation", store, curves=())
    (sweep,) = study.of_kind("sweep")
    browser.open(f"{server}/#/experiments/{study.experiment_id}/runs/{sweep.run_id}")
    browser.wait_for(f"{TEXT}.includes('2-step · xmem-tiny is ahead with J&F')")
    browser.wait_for(f"{TEXT}.includes('2-step-seed-1') && {TEXT}.includes('T-step-seed-0')")
    browser.open(f"{server}/#/experiments/{study.experiment_id}/runs/{sweep.run_id}/artifacts")
    browser.wait_for(f"{TEXT}.includes('report')")


def test_comparing_trials_shows_what_differs_and_what_it_scores(browser: Browser, server: str, store: str) -> None:
    study = load_study("ablation", store, curves=())
    trials = study.of_kind("trial")
    chosen = quote(json.dumps([run.run_id for run in trials]))
    browser.open(f"{server}/#/compare-runs?runs={chosen}&experiments={quote(json.dumps([study.experiment_id]))}")
    browser.wait_for(f"{TEXT}.includes('method.backward') && {TEXT}.includes('final/jf')")
    text = browser.run(TEXT)
    for run in trials:
        assert run.name in text
        assert f"{run.metrics['final/jf']:.6f}"[:4] in text


def test_charts_grouped_by_strategy_are_bars_of_mean_scores(
    browser: Browser, server: str, store: str, tmp_path: Path
) -> None:
    study = load_study("ablation", store, curves=())
    browser.open(f"{server}/#/experiments/{study.experiment_id}/runs?compareRunsMode=CHART")
    browser.click("[...document.querySelectorAll('button')].find(e => e.textContent.trim() === 'Group by')")
    browser.wait_for("document.querySelectorAll('[role^=menuitem]').length")
    browser.send("Input.insertText", text="strategy")
    browser.click("[...document.querySelectorAll('[role^=menuitem]')].find(e => /ovos.strategy/.test(e.textContent))")
    browser.key("Escape", 27)
    bars = "[...document.querySelectorAll('.bars text, .barlayer text')].map(e => e.textContent)"
    expected = {
        f"{np.mean([r.metrics['final/jf'] for r in study.of_kind('trial') if r.tags['ovos.strategy'] == s]):.2f}"
        for s in ("2-step", "T-step")
    }
    browser.wait_for(f"{json.dumps(sorted(expected))}.every(value => {bars}.includes(value))")
    assert len(browser.screenshot(tmp_path / "charts.png")) > 20_000
