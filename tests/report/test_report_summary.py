"""What the report says first: who leads, against whom, and what a setting decides."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console
from synthetic_study import memory_run

from ovos_ray.report.numbers.axes import axis_effects
from ovos_ray.report.numbers.comparison import compare
from ovos_ray.report.numbers.rows import Comparison
from ovos_ray.report.numbers.significance import against_best
from ovos_ray.report.numbers.verdict import Verdict, verdict
from ovos_ray.report.page import leading_rows
from ovos_ray.report.pictures.figures import Palette
from ovos_ray.report.runs import Run, Study
from ovos_ray.report.terminal import render_report

SEQUENCES = "abcdefgh"


def run(name: str, seed: int, mean: float, **params: str) -> Run:
    """Scored `mean` and a little apart on every sequence; parameters with dots are written with double underscores."""
    scores = {(sequence, 1): (mean + place + seed, mean + place + seed) for place, sequence in enumerate(SEQUENCES)}
    keys = {key.replace("__", "."): value for key, value in params.items()}
    base = {"method.name": "one_shot", "method.reference": "predicted", "network.name": "xmem-tiny"}
    tags = {"ovos.label_percent": "100" if keys.get("method.name") == "supervised" else "2"}
    return memory_run(name, seed, scores, params={**base, **keys}, tags=tags, run_id=f"{name}-{seed}")


def summary(*runs: Run) -> tuple[Comparison, Verdict]:
    comparison = compare(Study("s", "1", "uri", runs))
    return comparison, verdict(comparison, against_best(comparison), axis_effects(comparison))


def study(**extra: Any) -> list[Run]:
    """Two strategies and full supervision, which reads other shards; two seeds each."""
    return [
        run(name, seed, mean, data__shards=f'["/data/{shards}"]', **params, **extra)
        for name, mean, shards, params in (
            ("two", 40.0, "first", {"method__backward": "2-step"}),
            ("t", 35.0, "first", {"method__backward": "T-step"}),
            ("full", 60.0, "all", {"method__backward": "2-step", "method__name": "supervised"}),
        )
        for seed in (0, 1)
    ]


def test_full_supervision_is_a_yardstick_and_no_rival() -> None:
    comparison, words = summary(*study())
    assert [row.strategy for row in comparison.rows] == ["fully supervised", "2-step", "T-step"]
    assert comparison.best is comparison.rows[1]
    assert words.headline == "2-step · xmem-tiny is ahead with J&F 44.0 ± 0.7 (2 seeds), not clearly."
    assert words.certainty.startswith("5.0 points of J&F ahead of T-step · xmem-tiny (39.0 ± 0.7).")
    assert "Over 2 seeds and 8 sequences: 95 % interval" in words.certainty, "one mean, one sign"
    assert "Full supervision with 100 % of the labels scores 64.0 ± 0.7" in words.supervision
    assert "20.0 points more (8 sequences, p = " in words.supervision
    behind = against_best(comparison)
    assert behind["fully supervised · xmem-tiny"].difference == pytest.approx(-20.0)
    assert behind["T-step · xmem-tiny"].difference == pytest.approx(5.0)
    assert [row.strategy for row in leading_rows(comparison)] == ["2-step", "T-step", "fully supervised"]

    alone, words = summary(*study()[4:])
    assert alone.best is alone.rows[0]
    assert words.supervision == ""


def test_strategies_are_one_setting_in_which_full_supervision_is_no_rival() -> None:
    comparison, _ = summary(*study())
    assert set(comparison.axes) == {"strategy", "data.shards"}
    (effect,) = axis_effects(comparison)
    assert (effect.axis, effect.together) == ("strategy", ())
    best, other = effect.values
    assert (best.value, other.value, other.num_pairs, other.difference) == ("2-step", "T-step", 2, 5.0)

    # Full supervision with the labels of first frames alone tells what the other labels are worth.
    few = run("few", 0, 50.0, data__shards='["/data/first"]', method__backward="2-step", method__name="supervised")
    comparison, _ = summary(*study(), few)
    effects = {effect.axis: effect for effect in axis_effects(comparison)}
    assert set(effects) == {"strategy", "data.shards"}
    assert effects["data.shards"].values[1].difference == pytest.approx(10.0)
    assert {row.label for row in comparison.rows if row.strategy == "fully supervised"} == {
        "fully supervised · xmem-tiny · shards all", "fully supervised · xmem-tiny · shards first",
    }  # fmt: skip


def test_settings_that_change_together_are_judged_together() -> None:
    runs = [
        run(name, seed, mean, method__backward="2-step", network__name=name, optimizer__learning_rate=rate)
        for name, mean, rate in (("xmem-tiny", 40.0, "0.001"), ("stcn-tiny", 30.0, "0.0001"))
        for seed in (0, 1)
    ]
    comparison, words = summary(*runs)
    (effect,) = axis_effects(comparison)
    assert (effect.axis, effect.together) == ("network.name", ("learning rate",))
    assert effect.values[1].difference == pytest.approx(10.0)
    assert "network (with learning rate)" in dict(words.axes)

    fast = run("fast", 0, 35.0, method__backward="2-step", network__name="xmem-tiny", optimizer__learning_rate="0.0001")
    comparison, _ = summary(*runs, fast)
    effects = {effect.axis: effect for effect in axis_effects(comparison)}
    assert effects["network.name"].together == effects["optimizer.learning_rate"].together == ()
    assert effects["network.name"].values[1].difference == pytest.approx(5.0)
    assert effects["optimizer.learning_rate"].values[1].difference == pytest.approx(5.0)


def test_names_are_as_short_as_they_can_be() -> None:
    comparison, _ = summary(*study())
    assert {row.label for row in comparison.rows} == {
        "fully supervised · xmem-tiny", "2-step · xmem-tiny", "T-step · xmem-tiny",
    }  # fmt: skip
    two_step = {"method__backward": "2-step"}
    longer = [run("two", seed, 40.0 + n, data__clip_length=str(n), **two_step) for n in (3, 8) for seed in (0, 1)]
    comparison, _ = summary(*longer)
    assert {row.label for row in comparison.rows} == {"2-step · xmem-tiny · n 3", "2-step · xmem-tiny · n 8"}


def test_a_lead_that_seeds_bear_out_is_called_clear() -> None:
    runs = [
        run(name, seed, mean, method__backward=name)
        for name, mean in (("2-step", 60.0), ("T-step", 20.0))
        for seed in (0, 1, 2)
    ]
    _, words = summary(*runs)
    assert words.headline.endswith("(3 seeds).")
    assert words.certainty.endswith("a clear difference.")


def test_the_headline_has_one_sign_and_one_mean() -> None:
    """Many objects of one sequence outweigh the others in the table's mean; they must do so in the comparison, too."""
    many = {("crowd", number): (60.0 + number, 60.0 + number) for number in range(6)}
    few = {(sequence, 1): (50.0, 50.0) for sequence in "abc"}
    ahead = memory_run("2-step", 0, many | few)
    behind = {key: (j - 2, f - 2) if key[0] == "crowd" else (j + 3, f + 3) for key, (j, f) in (many | few).items()}
    comparison = compare(Study("s", "1", "uri", (ahead, memory_run("T-step", 0, behind))))
    (found,) = against_best(comparison).values()
    assert found.difference == pytest.approx((6 * 2 - 3 * 3) / 9)
    words = verdict(comparison, against_best(comparison), ())
    assert words.certainty.startswith("0.3 points of J&F ahead of T-step")
    assert "−" not in words.certainty.partition("95 %")[0]
    assert " -" not in words.certainty.partition("95 %")[0]


def test_a_step_of_full_supervision_is_told_apart_by_the_frames_that_had_a_loss() -> None:
    _, words = summary(*study(data__batch_size="4", data__clip_length="5"))
    assert words.supervision.endswith("A step of it has the loss of 16 frames, one of 2-step · xmem-tiny of 4.")


def test_an_unclear_lead_is_called_unclear() -> None:
    runs = [run("two", 0, 40.0, method__backward="2-step"), run("t", 0, 39.9, method__backward="T-step")]
    flipped = {key: {name: value - 3.0 for name, value in values.items()} for key, values in runs[0].scores.items()}
    mixed = {key: flipped[key] if place % 2 else values for place, (key, values) in enumerate(runs[0].scores.items())}
    _, words = summary(replace(runs[0], scores=mixed), runs[1])
    assert words.headline.endswith("(a single seed), not clearly.")
    assert "it may be chance" in words.certainty


def test_configurations_keep_their_look_in_all_plots() -> None:
    palette = Palette([f"row {number}" for number in range(12)])
    looks = [tuple(map(str, palette.style(f"row {number}").values())) for number in range(12)]
    assert len(set(looks)) == 12
    assert palette.style("row 3") == palette.style("row 3")


def test_terminal_prints_summary_and_tables_within_eighty_columns() -> None:
    comparison, words = summary(*study())
    console = Console(width=80, file=io.StringIO())
    for part in render_report(comparison):
        console.print(part)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert max(map(len, text.splitlines())) <= 80
    assert words.headline in text
    assert "44.0 ± 0.7" in text
    assert "Table 4: Backward strategies, from scratch" in text
    assert "82.7" in text, "the published row beside ours"
    assert "not comparable" in text


def test_static_steps_are_in_the_name_of_those_that_have_them() -> None:
    shared = {"method__backward": "2-step"}
    runs = (
        run("plain", 0, 40.0, data__static_share="[]", **shared),
        run("mixed", 0, 50.0, data__static_share="[[0.0, 1.0], [0.25, 0.25]]", **shared),
    )
    rows = compare(Study("s", "1", "uri", runs)).rows
    assert [row.label for row in rows] == ["2-step · xmem-tiny · static steps 1→0.25", "2-step · xmem-tiny"]
    assert [row.settings["data.static_share"] for row in rows] == ["1→0.25", "none"]


def test_scores_by_different_rules_are_not_compared() -> None:
    runs = [
        run(f"{protocol} {backward}", seed, mean, evaluation__protocol=protocol, method__backward=backward)
        for protocol, mean in (("davis2016", 60.0), ("davis2017", 40.0))
        for backward in ("2-step", "T-step")
        for seed in (0, 1)
    ]
    comparison, words = summary(*runs)
    assert set(comparison.axes) == {"evaluation.protocol", "method.backward"}
    (warning,) = words.warnings
    assert warning.startswith("Not all configurations were scored by the same rules (davis2016, davis2017)")
    assert [effect.axis for effect in axis_effects(comparison)] == ["method.backward"]
    assert all("davis2016" in label for label in against_best(comparison))
    assert len(against_best(comparison)) == 1
    _, words = summary(*runs[:4])
    assert words.warnings == ()
