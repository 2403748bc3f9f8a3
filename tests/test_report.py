"""The report's numbers against numbers worked out here from the raw per-sequence scores."""

from __future__ import annotations

import base64
import csv
import io
import itertools
import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from synthetic_study import RawRun, curve, made_up_scores, save_mask, square, write_study, write_videos

from ovos_ray.config import ExperimentConfig, flatten, override
from ovos_ray.errors import TrackingError
from ovos_ray.track import pictures
from ovos_ray.track.comparison import Comparison, Row, compare
from ovos_ray.track.paper import paper_tables
from ovos_ray.track.report import Report, build_report, compare_study, render_table
from ovos_ray.track.significance import against_best, axis_effects, paired
from ovos_ray.track.study import Run, Study, load_study

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
    assert found.p == pytest.approx(p)
    assert found.wins == sum(d > 0 for d in differences)
    assert found.low <= found.difference <= found.high
    assert found.num_sequences == 8
    assert found.smallest_p == pytest.approx(2 / 2**8)


def test_holm_correction_follows_its_definition(report: Report) -> None:
    found = against_best(report.comparison)
    ordered = sorted(found.values(), key=lambda result: result.p)
    largest = 0.0
    for rank, result in enumerate(ordered):
        largest = max(largest, min(1.0, result.p * (len(ordered) - rank)))
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


def memory_run(strategy: str, seed: int, scores: dict[tuple[str, int], tuple[float, float]], **changes: object) -> Run:
    j = statistics.fmean(v[0] for v in scores.values())
    f = statistics.fmean(v[1] for v in scores.values())
    values: dict[str, object] = {
        "run_id": f"{strategy}{seed}",
        "name": strategy,
        "kind": "trial",
        "status": "finished",
        "seed": seed,
        "params": {"method.backward": strategy, "network.name": "xmem", "method.name": "one_shot"},
        "tags": {},
        "metrics": {"final/jf": (j + f) / 2, "final/j": j, "final/f": f},
        "start_ms": seed,
        "scores": {(s, str(o)): {"j_mean": v[0], "f_mean": v[1]} for (s, o), v in scores.items()},
    }
    return Run(**{**values, **changes})  # type: ignore[arg-type]


DAVIS_2017_VAL = (
    "bike-packing blackswan bmx-trees breakdance camel car-roundabout car-shadow cows dance-twirl dog dogs-jump "
    "drift-chicane drift-straight goat gold-fish horsejump-high india judo kite-surf lab-coat libby loading "
    "mbike-trick motocross-jump paragliding-launch parkour pigs scooter-black shooting soapbox"
)


def test_difference_to_the_paper_is_given_only_for_the_same_network_dataset_and_split() -> None:
    full = {(name, 1): (80.0, 86.0) for name in DAVIS_2017_VAL.split()}
    params = {
        "method.name": "one_shot",
        "network.name": "xmem",
        "evaluation.protocol": "davis2017",
        "evaluation.root": "/data/DAVIS",
        "evaluation.split": "val",
    }

    def table_4(scores: dict[tuple[str, int], tuple[float, float]], **changes: str) -> tuple[float | None, str]:
        runs = tuple(
            memory_run(s, 0, scores, params={**params, "method.backward": s, **changes}) for s in ("2-step", "T-step")
        )
        table = paper_tables(compare(Study("s", "1", "uri", runs)))[3]
        line = next(line for line in table.lines if line.section == "2-step backward" and line.method == "1-shot XMem")
        assert line.values == (82.7, 79.4, 86.1)
        return line.ours[0].differences[0], line.ours[0].reason

    difference, reason = table_4(full)
    assert difference == pytest.approx(83.0 - 82.7)
    assert reason == ""
    fewer = dict(list(full.items())[:29])
    assert table_4(fewer) == (None, "not comparable: scored on DAVIS val (29 sequences)")
    small = table_4(full, **{"network.name": "xmem-tiny"})
    assert small == (None, "not comparable: xmem-tiny is not the paper's network")
    other = table_4(full, **{"evaluation.protocol": "davis2016"})
    assert other[0] is None


def test_published_rows_agree_with_themselves() -> None:
    tables = paper_tables(compare(Study("s", "1", "uri", ())))
    # J&F is the mean of J and F, G that of its four; the published numbers are rounded, and a few are off by more.
    off = []
    for table in tables:
        width = len(table.groups[0][1])
        for line in table.lines:
            for start in range(0, len(line.values), width):
                head, *parts = line.values[start : start + width]
                if head is not None and None not in parts and abs(head - statistics.fmean(map(float, parts))) > 0.11:  # type: ignore[arg-type]
                    off.append((table.number, line.method))
    assert len(off) <= 4, off
    stcn = next(line for line in tables[1].lines if line.method.startswith("1-shot STCN"))
    assert stcn.values[:5] == (79.3, 77.6, 81.4, 74.8, 83.4)
    assert "J_S, J_U, F_S, F_U" in tables[1].notes[0]


def test_copy_score_and_pictures_come_from_stored_predictions(tmp_path: Path) -> None:
    sequences = ["a", "b"]
    write_videos(tmp_path / "data", sequences)
    params = {
        "method.name": "one_shot",
        "network.name": "xmem-tiny",
        "evaluation.protocol": "davis2017",
        "evaluation.root": str(tmp_path / "data"),
        "evaluation.split": "val",
    }
    runs = []
    for strategy, shift, quality in (("2-step", 8, 90.0), ("T-step", 0, 20.0)):
        for sequence, t in itertools.product(sequences, range(6)):
            save_mask(tmp_path / strategy / sequence / f"{t:05d}.png", square(t * shift))
        scores = {(sequence, 1): (quality, quality) for sequence in sequences}
        tags = {"ovos.predictions": str(tmp_path / strategy)}
        runs.append(memory_run(strategy, 0, scores, params={**params, "method.backward": strategy}, tags=tags))
    comparison = compare(Study("s", "1", "uri", tuple(runs)))
    perfect, copying = (found["a"] for found in pictures.traces(comparison.rows).values())
    # Two 24-pixel squares t·8 pixels apart overlap by 24 - 8t of 24 + 8t columns.
    overlap = [100 * max(0, 24 - 8 * t) / (24 + min(24, 8 * t)) for t in range(1, 6)]
    assert perfect.truth == pytest.approx([100.0] * 5)
    assert perfect.first == pytest.approx(overlap)
    assert copying.truth == pytest.approx(overlap)
    assert copying.copy_score == pytest.approx(100 - statistics.fmean(overlap))
    assert perfect.copy_score == pytest.approx(statistics.fmean(overlap) - 100)
    made = pictures.galleries(comparison.rows)
    assert {gallery.sequence for gallery in made} == {"a", "b"}
    assert [strip.label for strip in made[0].strips] == ["truth", *(row.label for row in comparison.rows)]
    assert all(strip.image.startswith("data:image/webp;base64,") for strip in made[0].strips)
    assert made[0].strips[0].film


def test_predictions_that_are_gone_cost_pictures_not_the_report(tmp_path: Path) -> None:
    run = memory_run("2-step", 0, {("a", 1): (50.0, 50.0)}, tags={"ovos.predictions": str(tmp_path / "gone")})
    comparison = compare(Study("s", "1", "uri", (run,)))
    assert pictures.traces(comparison.rows) == {}
    assert pictures.galleries(comparison.rows) == ()


def test_training_clip_is_shown_there_and_back(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    from ovos_ray import networks
    from ovos_ray.data.layout import open_dataset
    from ovos_ray.data.shards import pack
    from ovos_ray.track.cycle import cycle_gallery

    write_videos(tmp_path / "data", ["a", "b"], frames=8)
    pack(open_dataset(tmp_path / "data", layout="davis2017"), tmp_path / "shards", labels="first", split="train")
    settings = {
        "method.backward": "2-step",
        "network.name": "stcn-tiny",
        "data.shards": str(tmp_path / "shards"),
        "data.clip_length": 4,
        "data.crop_size": 64,
        "train.steps": 3,
    }
    config = override(ExperimentConfig(), settings)
    params = {k: v if isinstance(v, str) else json.dumps(v) for k, v in flatten(config).items()}
    (tmp_path / "run").mkdir()
    save_file(networks.build("stcn-tiny", seed=1).state_dict(), tmp_path / "run" / "network.safetensors")
    tags = {"ovos.predictions": str(tmp_path / "run" / "predictions")}
    scores = {("a", 1): (50.0, 50.0)}
    (row,) = compare(Study("s", "1", "uri", (memory_run("2-step", 0, scores, params=params, tags=tags),))).rows
    gallery = cycle_gallery(row)
    assert gallery is not None
    assert gallery.sequence in ("a", "b")
    assert ["forward" in gallery.strips[0].label, "backward" in gallery.strips[1].label] == [True, True]
    strip = Image.open(io.BytesIO(base64.b64decode(gallery.strips[1].image.partition(",")[2]))).convert("L")
    grey = [float(np.std(np.asarray(strip)[:, t * 184 + 5 : t * 184 + 175])) < 2 for t in range(4)]
    # Frames 3, one of 1 and 2, and 0 are walked; the other one is left grey.
    assert grey[0] is grey[3] is False
    assert sorted(grey[1:3]) == [False, True]

    elsewhere = memory_run("2-step", 0, scores, params=params, tags={"ovos.predictions": "/gone/predictions"})
    assert cycle_gallery(compare(Study("s", "1", "uri", (elsewhere,))).rows[0]) is None


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


def test_study_without_any_finished_trial_makes_a_page_that_says_so(study_uri: str, tmp_path: Path) -> None:
    write_study(study_uri, "empty", [RawRun("a", {}, 0, status="RUNNING")])
    report = build_report("empty", study_uri, tmp_path)
    assert "No trial is finished and scored yet." in report.html.read_text()


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
