"""Verdict, the sentences at the top of the report: what wins, by how much, how sure that is, and what is still open."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ovos_ray.evaluate.metrics import PRIMARY
from ovos_ray.report.numbers.axes import AxisEffect
from ovos_ray.report.numbers.rows import Comparison, Row
from ovos_ray.report.numbers.significance import LEVEL, Paired, p_text
from ovos_ray.report.paper.published import evaluated_on
from ovos_ray.track.strategy import SUPERVISED

__all__ = ["Verdict", "verdict"]

_MOST_BUDGETS = 3
"""With more, their counts would hide the percentages."""


@dataclass(frozen=True)
class Verdict:
    """The summary of a comparison, each part a sentence or a few.

    Attributes:
        headline: What wins.
        certainty: By how much, and how sure.
        supervision: How far full supervision is away; empty without it.
        axes: (axis, sentence) for every axis that was compared.
        states: How many trials ended how.
        data: What was scored, under which label budget.
        warnings: What a reader must not overlook.
    """

    headline: str
    certainty: str
    supervision: str
    axes: tuple[tuple[str, str], ...]
    states: str
    data: str
    warnings: tuple[str, ...]


def verdict(comparison: Comparison, differences: Mapping[str, Paired], effects: tuple[AxisEffect, ...]) -> Verdict:
    """Puts a comparison into words; nothing is claimed that the finished runs do not show.

    `differences` are from `against_best`, `effects` from `axis_effects`.
    """
    return Verdict(
        _headline(comparison, differences),
        _certainty(comparison, differences),
        _supervision(comparison, differences),
        tuple((_axis_name(effect), _axis_sentence(effect)) for effect in effects),
        _states(comparison),
        _data(comparison),
        tuple(_warnings(comparison, differences)),
    )


def _headline(comparison: Comparison, differences: Mapping[str, Paired]) -> str:
    best = comparison.best
    if best is None:
        trials = comparison.study.of_kind("trial")
        return "No trial is finished and scored yet." if trials else "This study has no trials yet."
    score = best.score
    assert score is not None
    seeds = f"{score.num} seeds" if score.num > 1 else "a single seed"
    second = _second(comparison)
    if second is None:
        return f"{best.label} scores {PRIMARY.label} {score.text()} ({seeds})."
    found = differences.get(second.label)
    clear = found is not None and found.p <= LEVEL
    return f"{best.label} is ahead with {PRIMARY.label} {score.text()} ({seeds}){'' if clear else ', not clearly'}."


def _second(comparison: Comparison) -> Row | None:
    """The runner-up; full supervision is no rival."""
    best = comparison.best
    return next((r for r in comparison.rows if r.finished and r is not best and r.strategy != SUPERVISED), None)


def _certainty(comparison: Comparison, differences: Mapping[str, Paired]) -> str:
    best, second = comparison.best, _second(comparison)
    if best is None or second is None:
        return "" if best is None else "No other configuration is scored that it could be compared with."
    one, two = best.score, second.score
    assert one is not None
    assert two is not None
    found = differences.get(second.label)
    lead = f"{one.mean - two.mean:.1f} points of {PRIMARY.label} ahead of {second.label} ({two.text()})."
    if found is None:
        return f"{lead} How sure that is takes scores of two sequences or more, which are not there."
    if found.smallest_p > LEVEL:
        few = f"{found.num_sequences} sequences are too few for a test"
        sure = f"{few} (the smallest possible p is {found.smallest_p:.3f})"
    elif found.p <= LEVEL:
        sure = "a clear difference" + (
            "" if found.num_seeds > 1 else " between these networks, whatever other seeds do"
        )
    else:
        sure = "not a clear difference: it may be chance"
    corrected = f" after Holm's correction for {len(differences)} comparisons" if len(differences) > 1 else ""
    # One mean in the headline: another one stands here only where the two were not scored on the same sequences.
    other = f"{found.difference:+.1f} points, " if abs(found.difference - (one.mean - two.mean)) > 0.05 else ""
    seeds = f"{found.num_seeds} seeds and " if found.num_seeds > 1 else ""
    return (
        f"{lead} Over {seeds}{found.num_sequences} sequences: {other}95 % interval {found.low:+.1f} to "
        f"{found.high:+.1f}, better on {found.wins} sequences, {p_text(found.p)}{corrected}: {sure}."
    )


def _supervision(comparison: Comparison, differences: Mapping[str, Paired]) -> str:
    best, full = comparison.best, comparison.supervised
    if best is None or full is None:
        return ""
    one, two = best.score, full.score
    assert one is not None
    assert two is not None
    labels = "" if full.label_percent is None else f" with {full.label_percent:.3g} % of the labels"
    gap = two.mean - one.mean
    found = differences.get(full.label)
    sure = "" if found is None else f" ({found.num_sequences} sequences, {p_text(found.p)})"
    return (
        f"Full supervision{labels} scores {two.text()} ({full.label}): {abs(gap):.1f} points "
        f"{'more' if gap > 0 else 'less'}{sure}.{_effort(best, full)}"
    )


def _effort(one: Row, other: Row) -> str:
    """What a step is worth: of a supervised clip every frame after the first gives a loss, of a one-shot clip one."""
    per_step, full = one.loss_frames_per_step, other.loss_frames_per_step
    if per_step is None or full is None or per_step == full:
        return ""
    return f" A step of it has the loss of {full} frames, one of {one.label} of {per_step}."


def _axis_name(effect: AxisEffect) -> str:
    return effect.label + (f" (with {', '.join(effect.together)})" if effect.together else "")


def _axis_sentence(effect: AxisEffect) -> str:
    best, *others = effect.values
    parts = []
    for other in others:
        if other.difference is None:
            parts.append(f"{other.value} was never run with all else equal (mean {other.mean:.1f})")
            continue
        pairs = f"ahead in {other.wins} of {other.num_pairs} pairs" + (
            "" if other.p is None else f", {p_text(other.p)}"
        )
        parts.append(f"{other.difference:+.1f} points over {other.value} ({pairs})")
    clear = all(other.p is not None and other.p <= LEVEL for other in others)
    lead = f"{best.value} leads" if clear else f"{best.value} leads, not clearly"
    return f"{lead}: {'; '.join(parts)}."


def _states(comparison: Comparison) -> str:
    total = len(comparison.study.of_kind("trial"))
    if not total:
        return ""
    names = ("finished", "running", "stopped", "failed", "killed")
    counts = [f"{number} {name}" for name in names if (number := comparison.count(name))]
    return f"{total} trial{'' if total == 1 else 's'}: {', '.join(counts) or 'none'}."


def _data(comparison: Comparison) -> str:
    places = sorted({evaluated_on(row)[1] for row in comparison.rows if row.finished})
    budgets = sorted(
        {(row.label_percent, row.label_counts) for row in comparison.rows if row.label_percent is not None}
    )
    parts = [f"Scored on {', '.join(places)}." if places else "Nothing is scored yet."]
    if budgets:
        few = len(budgets) <= _MOST_BUDGETS
        shown = ", ".join(f"{share:.3g} %" + (f" ({counts})" if counts and few else "") for share, counts in budgets)
        parts.append(f"Labelled frames: {shown}.")
    return " ".join(parts)


def _warnings(comparison: Comparison, differences: Mapping[str, Paired]) -> list[str]:
    best = comparison.best
    warnings = []
    score = None if best is None else best.score
    unbeaten = [
        f"{row.label} ({baseline.mean:.1f})"
        for row in comparison.baselines
        if score is not None and (baseline := row.score) is not None and baseline.mean >= score.mean
    ]
    if unbeaten:
        warnings.append(f"Baselines that no configuration beats: {', '.join(unbeaten)}.")
    single = [row for row in comparison.rows if len(row.finished) == 1]
    if single:
        number = "All" if len(single) == len(comparison.rows) else f"{len(single)} of {len(comparison.rows)}"
        warnings.append(f"A single finished seed, hence no idea of the spread: {number.lower()} configurations.")
    if len({evaluated_on(row)[1] for row in comparison.rows if row.finished}) > 1:
        warnings.append("Not all configurations were scored on the same data: their order means little.")
    protocols = set().union(*(row.protocols for row in comparison.rows))
    if len(protocols) > 1:
        words = f"Not all configurations were scored by the same rules ({', '.join(sorted(protocols))})"
        warnings.append(f"{words}: their order means little.")
    uneven = any(
        found.num_sequences < max(f.num_sequences for f in differences.values()) for found in differences.values()
    )
    if uneven:
        warnings.append("Some configurations lack sequences; they are compared on those that both have.")
    return warnings
