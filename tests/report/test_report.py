"""The report's numbers against numbers worked out here from the raw per-sequence scores."""

from __future__ import annotations

import csv
import dataclasses
import io
import itertools
import math
import statistics
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from synthetic_study import RawRun, curve, made_up_scores, memory_run, write_study

from ovos_ray.errors import TrackingError
from ovos_ray.report.build import Report, build_report, compare_study, render_table
from ovos_ray.report.numbers.axes import axis_effects
from ovos_ray.report.numbers.comparison import compare
from ovos_ray.report.numbers.rows import Comparison, Row
from ovos_ray.report.numbers.significance import against_best, paired
from ovos_ray.report.numbers.verdict import verdict
from ovos_ray.report.read import load_study
from ovos_ray.report.runs import Study

SEQUENCES = [f"seq-{number}" for number in range(8)]
QUALITY = {("2-step", "xmem-tiny"): 45.0, ("2-step", "stcn-tiny"): 42.0, ("T-step", "xmem-tiny"): 38.0}


def raw_runs() -> list[RawRun]:
    rng = np.random.default_rng(0)
    hardness = rng.normal(0, 12, len(SEQUENCES))
    runs = []
    for (strategy, network), quality in QUALITY.items():
        for seed in range(3):
            settings = {"method.backward": strategy, "network.name": network}
            scores = made_up_scores(rng, quality + rng.normal(0, 1), SEQUENCES, hardness)
            tags = {"ovos.label_percent": "2.1"}
            runs.append(RawRun(f"{strategy}-{seed}", settings, seed, scores, curve=curve(quality), tags=tags))
    half_done = {"method.backward": "T-step", "network.name": "stcn-tiny"}
    runs += [
        RawRun("single", half_done, 0, made_up_scores(rng, 30, SEQUENCES, hardness)),
        RawRun("failed", half_done, 1, status="FAILED", tags={"ovos.error": "DataError: no such file"}),
        RawRun("running", half_done, 2, status="RUNNING", curve=curve(30, 200)),
        RawRun("never", {"method.backward": "1-step", "network.name": "stcn-tiny"}, 0, status="FAILED"),
        RawRun("stopped", {"method.backward": "3-step"}, 0, tags={"ovos.stopped_early": "200"}, curve=curve(20, 200)),
        RawRun("copy the first mask", scores=made_up_scores(rng, 20, SEQUENCES, hardness), kind="baseline"),
        RawRun("untrained", scores=made_up_scores(rng, 10, SEQUENCES, hardness), kind="baseline"),
    ]
    return runs


@pytest.fixture(scope="session")
def raw() -> list[RawRun]:
    return raw_runs()


@pytest.fixture(scope="session")
def study_uri(tmp_path_factory: pytest.TempPathFactory, raw: list[RawRun]) -> str:
    uri = f"sqlite:///{tmp_path_factory.mktemp('study')}/mlflow.db"
    write_study(uri, "strategies", raw)
    return uri


@pytest.fixture(scope="session")
def report(study_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Report:
    return build_report("strategies", study_uri, tmp_path_factory.mktemp("report"))


def raw_of(raw: Sequence[RawRun], strategy: str, network: str) -> list[RawRun]:
    chosen = {"method.backward": strategy, "network.name": network}
    return [run for run in raw if dict(run.settings) == chosen]


def row_of(comparison: Comparison, strategy: str, network: str) -> Row:
    return next(row for row in comparison.rows if (row.strategy, row.network) == (strategy, network))


def by_hand(values: Sequence[float]) -> tuple[float, float]:
    mean = sum(values) / len(values)
    return mean, math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))


def test_means_and_deviations_equal_those_of_the_raw_scores(report: Report, raw: list[RawRun]) -> None:
    for strategy, network in QUALITY:
        runs = raw_of(raw, strategy, network)
        row = row_of(report.comparison, strategy, network)
        for metric, values in (
            ("final/j", [run.j for run in runs]),
            ("final/f", [run.f for run in runs]),
            ("final/jf", [(run.j + run.f) / 2 for run in runs]),
        ):
            score = row.statistic(metric)
            assert score is not None
            mean, std = by_hand(values)
            assert [score.mean, score.std] == pytest.approx([mean, std], abs=1e-9)
            assert score.num == 3
            assert score.text() == f"{mean:.1f} ± {std:.1f}"


def test_best_comes_first_and_the_order_is_that_of_the_means(report: Report, raw: list[RawRun]) -> None:
    means = {key: statistics.fmean((r.j + r.f) / 2 for r in raw_of(raw, *key)) for key in QUALITY}
    expected = sorted(means, key=lambda key: -means[key])
    assert [(row.strategy, row.network) for row in report.comparison.rows[:3]] == expected
    assert [row.strategy for row in report.comparison.baselines] == ["copy the first mask", "untrained"]


def test_exports_hold_the_same_numbers(report: Report, raw: list[RawRun]) -> None:
    lines = {line["configuration"]: line for line in csv.DictReader(io.StringIO(report.csv.read_text()))}
    runs = raw_of(raw, "2-step", "xmem-tiny")
    mean, std = by_hand([(run.j + run.f) / 2 for run in runs])
    line = lines["2-step · xmem-tiny"]
    assert (float(line["jf_mean"]), float(line["jf_std"])) == pytest.approx((mean, std))
    assert (line["seeds"], line["label_percent"], line["method.backward"]) == ("3", "2.1", "2-step")
    assert f"| {mean:.1f} ± {std:.1f} |" in report.markdown.read_text()
    assert rf"\textbf{{{mean:.1f} $\pm$ {std:.1f}}}" in report.latex.read_text()
    assert report.latex.read_text().count(r"\\") == len(report.comparison.rows) + 2 + 1


def test_failed_running_stopped_and_single_seed_trials_are_shown_as_such(report: Report, raw: list[RawRun]) -> None:
    comparison = report.comparison
    row = row_of(comparison, "T-step", "stcn-tiny")
    single = next(run for run in raw if run.name == "single")
    score = row.statistic("final/jf")
    assert score is not None
    assert score.mean == pytest.approx((single.j + single.f) / 2)
    assert (score.std, score.num) == (None, 1)
    assert set(row.note.split(", ")) == {"1 failed", "1 running", "single seed"}
    assert row_of(comparison, "1-step", "stcn-tiny").statistic("final/jf") is None
    assert row_of(comparison, "1-step", "stcn-tiny").note == "1 failed"
    stopped = next(row for row in comparison.rows if row.strategy == "3-step")
    assert stopped.statistic("final/jf") is None
    assert stopped.note == "1 stopped early"
    page = report.html.read_text()
    assert "14 trials: 10 finished, 1 running, 1 stopped, 2 failed." in page
    assert "DataError: no such file" in page


def test_paired_test_equals_brute_force_over_all_signs(report: Report, raw: list[RawRun]) -> None:
    def by_sequence(strategy: str, network: str) -> list[float]:
        runs = raw_of(raw, strategy, network)
        return [
            statistics.fmean(
                (run.scores[sequence, o][0] + run.scores[sequence, o][1]) / 2 for run in runs for o in (1, 2)
            )
            for sequence in SEQUENCES
        ]

    one, two = by_sequence("2-step", "xmem-tiny"), by_sequence("2-step", "stcn-tiny")
    differences = [a - b for a, b in zip(one, two, strict=True)]
    ranks = {value: rank for rank, value in enumerate(sorted(differences, key=abs), 1)}
    observed = sum(ranks[d] for d in differences if d > 0)
    total = len(differences) * (len(differences) + 1) / 2
    extreme = min(observed, total - observed)
    sums = [
        sum(rank for rank, sign in zip(range(1, 9), signs, strict=True) if sign)
        for signs in itertools.product((0, 1), repeat=8)
    ]
    p = min(1.0, 2 * sum(value <= extreme for value in sums) / len(sums))

    found = paired(row_of(report.comparison, "2-step", "xmem-tiny"), row_of(report.comparison, "2-step", "stcn-tiny"))
    assert found is not None
    assert found.difference == pytest.approx(statistics.fmean(differences))
    assert found.p_sequences == pytest.approx(p)
    assert found.p_seeds is not None
    assert found.p == max(found.p_sequences, found.p_seeds), "it must show over the sequences and over the seeds"
    assert found.wins == sum(d > 0 for d in differences)
    assert found.low <= found.difference <= found.high
    assert found.num_sequences == 8
    assert found.smallest_p == pytest.approx(2 / 2**8)


def test_holm_correction_follows_its_definition(report: Report) -> None:
    found = against_best(report.comparison)
    ordered = sorted(found.values(), key=lambda result: max(result.p_sequences, result.p_seeds or 0.0))
    largest = 0.0
    for rank, result in enumerate(ordered):
        p = max(result.p_sequences, result.p_seeds or 0.0)
        largest = max(largest, min(1.0, p * (len(ordered) - rank)))
        assert result.p_holm == pytest.approx(largest)


def test_axis_effect_uses_only_runs_that_agree_in_all_else(report: Report, raw: list[RawRun]) -> None:
    effect = next(e for e in axis_effects(report.comparison) if e.axis == "method.backward")
    best, other = effect.values
    assert (best.value, other.value) == ("2-step", "T-step")
    final = {
        (r.settings["method.backward"], r.settings["network.name"], r.seed): (r.j + r.f) / 2
        for r in raw
        if r.scores and r.kind == "trial"
    }
    rest = [key[1:] for key in final if key[0] == "2-step" and ("T-step", key[1], key[2]) in final]
    pairs = [final["2-step", network, seed] - final["T-step", network, seed] for network, seed in rest]
    assert len(pairs) == 4
    assert other.num_pairs == 4
    assert other.difference == pytest.approx(statistics.fmean(pairs))
    assert other.wins == sum(pair > 0 for pair in pairs)


def test_same_scores_give_no_difference() -> None:
    scores = made_up_scores(np.random.default_rng(1), 40, SEQUENCES, np.zeros(8))
    study = Study("s", "1", "uri", tuple(memory_run(strategy, 0, scores) for strategy in ("2-step", "T-step")))
    comparison = compare(study)
    found = paired(comparison.rows[0], comparison.rows[1])
    assert found is not None
    assert (found.difference, found.p) == (0.0, 1.0)


def test_run_that_others_are_nested_under_is_never_a_trial(study_uri: str) -> None:
    runs = [RawRun("a", {}, 0, {("a", 1): (50.0, 50.0)})]
    parent = write_study(study_uri, "mislabelled", runs)
    from mlflow import MlflowClient

    MlflowClient(study_uri).set_tag(parent, "ovos.kind", "trial")
    comparison = compare_study("mislabelled", study_uri)
    assert [run.name for row in comparison.rows for run in row.runs] == ["a"]


def test_older_runs_of_a_seed_are_left_out_and_counted() -> None:
    old = memory_run("2-step", 0, {("a", 1): (10.0, 10.0)}, start_ms=1)
    new = memory_run("2-step", 0, {("a", 1): (50.0, 50.0)}, start_ms=2, run_id="new")
    unfinished = memory_run("2-step", 0, {("a", 1): (0.0, 0.0)}, start_ms=3, run_id="later", status="running")
    (row,) = compare(Study("s", "1", "uri", (old, new, unfinished))).rows
    score = row.statistic("final/jf")
    assert score is not None
    assert score.mean == 50.0
    assert row.note == "single seed, 2 older runs left out"


def test_random_initial_weights_are_noted() -> None:
    runs = [memory_run("2-step", seed, {("a", 1): (50.0, 50.0)}, run_id=str(seed)) for seed in (0, 1)]
    asked = [dataclasses.replace(run, params={**run.params, "network.init": "random"}) for run in runs]
    staged = [dataclasses.replace(run, params={**run.params, "pretrain.recipe": "trainables.x"}) for run in asked]
    notes = [compare(Study("s", "1", "uri", tuple(some))).rows[0].note for some in (runs, asked, staged)]
    assert notes == ["", "from random weights", ""]


def test_study_without_any_finished_trial_makes_a_page_that_says_so(study_uri: str, tmp_path: Path) -> None:
    write_study(study_uri, "empty", [RawRun("a", {}, 0, status="RUNNING")])
    report = build_report("empty", study_uri, tmp_path)
    assert "No trial is finished and scored yet." in report.html.read_text()


def test_study_without_any_run_is_said_to_have_none(study_uri: str, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    MlflowClient(study_uri).create_experiment("nothing", artifact_location=(tmp_path / "artifacts").as_uri())
    report = build_report("nothing", study_uri, tmp_path / "out")
    assert report.html.read_text().count("This study has no trials yet.") == 2
    assert not (tmp_path / "artifacts").exists(), "nowhere to attach it"


def test_page_and_table_are_attached_to_the_sweep(study_uri: str, report: Report) -> None:
    (sweep,) = load_study("strategies", study_uri).of_kind("sweep")
    assert "2-step · xmem-tiny" in sweep.tags["mlflow.note.content"]
    folder = Path(study_uri.removeprefix("sqlite:///")).parent / "mlruns" / "strategies" / sweep.run_id
    assert (folder / "artifacts" / "report" / "report.html").read_text() == report.html.read_text()


def test_terminal_table_needs_no_curves_and_no_plots(study_uri: str, report: Report) -> None:
    from rich.console import Console

    console = Console(width=80, file=io.StringIO())
    console.print(render_table(compare_study("strategies", study_uri)))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    best = report.comparison.best
    assert best is not None
    score = best.statistic("final/jf")
    assert score is not None
    assert score.text() in text
    assert "copy the first mask" in text


def test_unknown_experiment_and_missing_store_are_named_errors(study_uri: str, tmp_path: Path) -> None:
    with pytest.raises(TrackingError, match=r"no experiment 'typo'") as caught:
        load_study("typo", study_uri)
    assert "strategies" in str(caught.value)
    with pytest.raises(TrackingError, match="no tracking store"):
        load_study("strategies", f"sqlite:///{tmp_path}/absent.db")
    assert not (tmp_path / "absent.db").exists()


def test_labels_are_told_apart_by_what_they_were_used_for() -> None:
    counts = {"training": 60, "training_frames": 1200, "validation": 80, "validation_frames": 80, "pretraining": 1000}
    tags = {"ovos.label_percent": "10.94", **{f"ovos.labels.{use}": str(number) for use, number in counts.items()}}
    runs = [memory_run("2-step", seed, {("a", 1): (50.0, 50.0)}, run_id=str(seed), tags=tags) for seed in (0, 1)]
    words = "training 60 of 1,200 frames, validation 80 of 80 frames; not in the percentage: pretraining 1,000 images"
    comparison = compare(Study("s", "1", "uri", tuple(runs)))
    assert comparison.rows[0].label_counts == words
    assert f"Labelled frames: 10.9 % ({words})." in verdict(comparison, {}, ()).data

    tags = {key: text for key, text in tags.items() if not key.endswith(("validation", "pretraining"))}
    tags |= {"ovos.labels.validation_frames": "0"}
    fewer = memory_run("T-step", 0, {("a", 1): (50.0, 50.0)}, tags=tags)
    rows = {row.strategy: row for row in compare(Study("s", "1", "uri", (*runs, fewer))).rows}
    assert rows["T-step"].label_counts == "training 60 of 1,200 frames"
    assert rows["2-step"].label_counts == words
    assert dataclasses.replace(rows["2-step"], runs=(*runs, fewer)).label_counts == "", "two budgets are none"
