"""Population-based training in generations of runs: after each one the worst members go on from the best.

A member trains for `validation.every` steps. Such a segment is a run of its own, with a folder, a configuration that
names the segment it starts from (`config.SegmentConfig`), and a digest. Then `succession.py` decides from whose
checkpoint and with which settings every member goes on. No weights are swapped within a run, so that every segment can
be made again from its configuration and its parent. All decisions follow from the seed of the study and the results in
the run folders: a study that was interrupted decides the same again.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ovos_ray.config import ExperimentConfig, SegmentConfig, flatten, override
from ovos_ray.config.digest import digest, unpinned
from ovos_ray.config.roles import Live
from ovos_ray.config.settings import keys_of
from ovos_ray.errors import ConfigError, DivergedError
from ovos_ray.run.resume import check_segment
from ovos_ray.study.expand import short, spread
from ovos_ray.study.space import SearchSpace, Trial
from ovos_ray.study.succession import Successor, successors
from ovos_ray.study.summary import Failure, SweepResult, score_of
from ovos_ray.train.run_folder import RunFolder

__all__ = [
    "check_population",
    "describe_members",
    "first_generation",
    "folders_of",
    "generation_ends",
    "next_generation",
    "run_population",
    "segment_tags",
]


def check_population(space: SearchSpace, members: Sequence[Trial]) -> None:
    """Checks that the members differ in nothing but what can change in the middle of a run.

    Raises:
        ConfigError: They do, or are no population; names the settings.
    """
    if len(space.seeds) != 1 or len(members) < 2 or space.searcher == "optuna" or space.adapt is not None:
        raise ConfigError(
            f"study {space.name}: scheduler = 'pbt' trains two or more members with one seed, whose first settings are "
            f"drawn beforehand; there are {len(members)} with {len(space.seeds)} seeds, searcher = {space.searcher!r}, "
            f"adapt = {space.adapt}",
            "set num_samples=8 (the size of the population), seeds=0 and searcher=random, without adapt",
        )
    if not (0 < space.quantile <= 0.5 and 0 <= space.resample <= 1):
        raise ConfigError(
            f"study {space.name}: quantile = {space.quantile}, resample = {space.resample} are out of range",
            "give 0 < quantile <= 0.5 and 0 <= resample <= 1",
        )
    leaves = [flatten(member.config) for member in members]
    keys = dict.fromkeys(key for one in leaves for key in one if key != "name")
    differing = [key for key in keys if any(one.get(key) != leaves[0].get(key) for one in leaves)]
    fixed = [key for key in differing if key not in keys_of(Live)]
    if fixed:
        raise ConfigError(
            f"study {space.name}: scheduler = 'pbt' changes settings in the middle of a run, which {', '.join(fixed)} "
            "cannot be",
            "vary those that can be, such as optimizer.learning_rate, method.backward, data.max_skip and augmentation; "
            "or set scheduler=asha",
        )
    for segment in first_generation(members):
        check_segment(segment.config)


def generation_ends(config: ExperimentConfig) -> tuple[int, ...]:
    """Returns the optimiser steps at which generations end: every `validation.every` steps, and the last."""
    steps, every = config.train.steps, config.validation.every
    return (*range(every, steps, every), steps)


def first_generation(members: Sequence[Trial]) -> list[Trial]:
    """Returns the first segments of a population's members; a `Trial` each, as generations run like studies."""
    segments = []
    for number, member in enumerate(members):
        segment = SegmentConfig(stop_step=generation_ends(member.config)[0], member=number)
        segments.append(_trial(member.config, member.values, segment))
    return segments


def next_generation(segments: Sequence[Trial], decided: Sequence[Successor]) -> list[Trial]:
    """Returns the segments that follow those of a generation, as decided by `successors`."""
    following = []
    for number, successor in enumerate(decided):
        parent, values = segments[successor.parent].config, spread(successor.values)
        before = parent.segment
        assert before is not None
        segment = SegmentConfig(
            start_step=before.stop_step,
            stop_step=next(end for end in generation_ends(parent) if end > before.stop_step),
            parent=parent.name,
            parent_digest=digest(unpinned(parent)),
            member=number,
            generation=before.generation + 1,
        )
        following.append(_trial(override(parent, values), {**segments[number].values, **values}, segment))
    return following


def _trial(config: ExperimentConfig, values: Mapping[str, Any], segment: SegmentConfig) -> Trial:
    name = _name(segment.member, segment.generation)
    return Trial(name, values, dataclasses.replace(config, name=name.replace(" ", "-"), segment=segment))


def segment_tags(config: ExperimentConfig) -> dict[str, str]:
    """Returns the MLflow tags of a segment, none for a whole run. Only one that ends its run counts as a trial."""
    segment = config.segment
    if segment is None:
        return {}
    kind = {} if segment.stop_step == config.train.steps else {"ovos.kind": "segment"}
    parent = {"ovos.parent_segment": segment.parent} if segment.parent else {}
    return {**kind, **parent, "ovos.member": str(segment.member), "ovos.generation": str(segment.generation)}


def run_population(
    space: SearchSpace,
    members: Sequence[Trial],
    run: Callable[[SearchSpace, Sequence[Trial]], SweepResult],
    watcher: Callable[[dict[str, Any]], None] | None = None,
) -> SweepResult:
    """Trains a population generation by generation.

    A member that diverges goes on from a better one. Any other failure ends the study after its generation: what is
    decided next must not depend on a lost node, and the same study run again makes what is missing.

    Args:
        space: The study.
        members: Its trials, checked by `check_population`, with absolute paths.
        run: Runs segments as a study without a scheduler, skipping those that are finished.
        watcher: Told how each member goes on.

    Returns:
        The results of the last segments, by the names of the members; the failures by those of the segments.

    Raises:
        CheckpointError: A segment that is there was decided otherwise, by another seed or another population.
    """
    plain = dataclasses.replace(space, scheduler="fifo")
    segments = first_generation(members)
    for generation in range(1, len(generation_ends(members[0].config))):
        _check_folders(segments)
        if any(RunFolder.of(segment.config).result() is None for segment in segments):
            result = run(plain, segments)
            if not all(_diverged(failure) for failure in result.failed) or not result.results:
                return dataclasses.replace(result, results={})
            _give_up(segments, result.failed)
        scores = [score_of(space.metric, RunFolder.of(segment.config).result() or {}) for segment in segments]
        decided = successors(space, generation, [_entries(space, segment) for segment in segments], scores)
        segments = next_generation(segments, decided)
        _tell(watcher, segments, decided, scores)
    _check_folders(segments)
    result = run(plain, segments)
    pairs = zip(members, segments, strict=True)
    results = {member.name: result.results[last.name] for member, last in pairs if last.name in result.results}
    return dataclasses.replace(result, results=results)


def _check_folders(segments: Sequence[Trial]) -> None:
    """Makes sure that earlier segments were made as decided now: finished ones are skipped, by their names alone."""
    for segment in segments:
        folder = RunFolder.of(segment.config)
        if folder.claimed:
            folder.claim(segment.config)


def _diverged(failure: Failure) -> bool:
    return failure.reason.startswith(f"{DivergedError.__name__}:")


def _give_up(segments: Sequence[Trial], failures: Sequence[Failure]) -> None:
    """Marks segments that diverged as finished without a score: made again, they would diverge again."""
    reasons = {failure.name: failure.reason for failure in failures}
    for segment in segments:
        if segment.name in reasons:
            result = {"name": segment.config.name, "digest": segment.key, "diverged": reasons[segment.name]}
            RunFolder.of(segment.config).finish({**result, "scores": {}, "validation": {}})


def _entries(space: SearchSpace, segment: Trial) -> dict[str, Any]:
    """Returns the value on each axis, that of a joint axis as it is listed there, and of each range."""
    values: dict[str, Any] = {key: segment.values[key] for key in space.ranges}
    for axis, entries in space.axes.items():
        names = axis.split()
        own = [segment.values[name] for name in names]
        values[axis] = own[0] if len(names) == 1 else next(entry for entry in entries if list(entry) == own)
    return values


def _tell(
    watcher: Callable[[dict[str, Any]], None] | None,
    segments: Sequence[Trial],
    decided: Sequence[Successor],
    scores: Sequence[float | None],
) -> None:
    for number, (segment, successor) in enumerate(zip(segments, decided, strict=True)):
        if watcher is None or successor.parent == number:
            continue
        config = segment.config
        own, better = (f"{'diverged' if s is None else f'{s:.1f}'}" for s in (scores[number], scores[successor.parent]))
        words = ", ".join(short(key, value) for key, value in spread(successor.values).items())
        event = f"goes on from member {successor.parent:02d} ({own}, that one {better}) with {words}"
        watcher({"run": config.name, "step": config.start_step, "steps": config.train.steps, "event": event})


def folders_of(space: SearchSpace, trials: Sequence[Trial]) -> dict[str, RunFolder]:
    """Returns the folder of each trial, by its name; of a population's member that of the last part that was begun."""
    folders = {trial.name: RunFolder.of(trial.config) for trial in trials}
    for number, member in enumerate(trials if space.scheduler == "pbt" else ()):
        for generation in range(len(generation_ends(member.config))):
            part = RunFolder.at(member.config.storage, _name(number, generation).replace(" ", "-"))
            if part.claimed:
                folders[member.name] = part
    return folders


def _name(member: int, generation: int) -> str:
    return f"member {member:02d} generation {generation:02d}"


def describe_members(space: SearchSpace, members: Sequence[Trial]) -> dict[str, str]:
    """Returns what each member's weights have been through: `member 02: T-step → 2-step, learning_rate 0.001 → 0.0008`.

    Returns:
        By the name of the configuration that the member began with; none of members that did not come to the end.
    """
    described = {}
    for number, member in enumerate(members):
        name = _name(number, len(generation_ends(member.config)) - 1).replace(" ", "-")
        lineage: list[dict[str, Any]] = []
        while name and (folder := RunFolder.at(member.config.storage, name)).claimed:
            config = folder.config()
            lineage.insert(0, flatten(config))
            name = config.segment.parent if config.segment is not None else ""
        keys = [key for axis in (*space.axes, *space.ranges) for key in axis.split()]
        if lineage:
            words = [_course(key, [leaves[key] for leaves in lineage]) for key in keys]
            described[member.configuration] = f"member {number:02d}: {', '.join(words)}"
    return described


def _course(key: str, values: Sequence[Any]) -> str:
    first, *others = (text for text, _ in itertools.groupby(short(key, value) for value in values))
    return " → ".join([first, *(text.removeprefix(f"{key.rpartition('.')[2]} ") for text in others)])
