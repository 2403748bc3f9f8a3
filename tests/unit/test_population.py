"""Population-based training without Ray: what is decided, and that a run in segments is the run as a whole."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import config_of, result_of, same, train_alone
from synthetic_study import memory_run
from test_succession import LR, RATES
from tiny_study import make_dataset

from ovos_ray.config import ExperimentConfig, SegmentConfig, override
from ovos_ray.config.digest import digest
from ovos_ray.config.overrides import flatten, from_dict, to_dict
from ovos_ray.errors import CheckpointError, ConfigError, DataError, DivergedError
from ovos_ray.networks import build
from ovos_ray.report.numbers.comparison import compare
from ovos_ray.report.read import _with_lineage
from ovos_ray.report.runs import Study
from ovos_ray.run.failure import forget_failure, note_failure
from ovos_ray.run.resume import check_segment
from ovos_ray.study.checks import check_scheduler
from ovos_ray.study.expand import expand
from ovos_ray.study.population import (
    describe_members,
    first_generation,
    generation_ends,
    next_generation,
    run_population,
    segment_tags,
)
from ovos_ray.study.space import SearchSpace, Trial
from ovos_ray.study.succession import Successor
from ovos_ray.study.summary import SweepResult, read_failure
from ovos_ray.train.optimizer import build_optimizer, load_moments
from ovos_ray.train.run_folder import RunFolder

# ---- segments


def segment_of(config: ExperimentConfig, stop: int, parent: ExperimentConfig | None = None) -> ExperimentConfig:
    """What goes on with `config` where `parent` stopped."""
    if parent is None:
        return dataclasses.replace(config, segment=SegmentConfig(stop_step=stop))
    segment = SegmentConfig(
        start_step=parent.stop_step, stop_step=stop, parent=parent.name, parent_digest=digest(parent), generation=1
    )
    return dataclasses.replace(config, segment=segment)


def test_two_segments_are_one_run_bit_for_bit_and_other_settings_are_not(shards: Path, tmp_path: Path) -> None:
    changes = {"optimizer.decay_steps": (6,), "optimizer.warm_up_steps": 3, "optimizer.weight_decay": 0.1}
    whole = config_of(shards, tmp_path, name="whole", **changes)
    undisturbed = train_alone(whole)
    first = segment_of(override(whole, {"name": "first"}), 5)
    train_alone(first)
    assert RunFolder.of(first).checkpoints().latest() == 5
    second = segment_of(override(whole, {"name": "second"}), 8, first)
    assert same(train_alone(second), undisturbed)
    assert not same(result_of(first), undisturbed)
    assert (RunFolder.of(second).result() or {})["steps"] == 8

    # What is changed is what the next segment computes with, though the optimiser's own state names the old values.
    for key, value in ((LR, 2e-3), ("optimizer.weight_decay", 0.5), ("method.backward", "T-step")):
        other = segment_of(override(whole, {"name": f"other {key}", key: value}), 8, first)
        assert not same(train_alone(other), undisturbed), key

    # A segment that was lost on its way goes on from its own checkpoint.
    RunFolder.of(second).storage.remove("result.json")
    RunFolder.of(second).storage.remove_folder("checkpoints/step-00000008")
    assert RunFolder.of(second).checkpoints().latest() == 6
    assert same(train_alone(second), undisturbed)


def test_a_segment_starts_from_no_other_parent_than_its_own(shards: Path, tmp_path: Path) -> None:
    first = segment_of(config_of(shards, tmp_path, name="first"), 2)
    train_alone(first)
    other = override(first, {"seed": 1})
    with pytest.raises(CheckpointError, match=f"digest {digest(first)}, segment.parent_digest is {digest(other)}"):
        train_alone(segment_of(override(first, {"name": "second"}), 8, other))


def test_only_the_last_segment_is_evaluated(shards: Path, tmp_path: Path) -> None:
    root = str(shards.parent / "dataset")
    evaluated = {"evaluation.root": root, "validation.root": root, "validation.split": "train"}
    config = config_of(shards, tmp_path, name="first", **evaluated, **{"validation.num_videos": 1, "train.steps": 4})
    first = segment_of(config, 2)
    train_alone(first)
    result = RunFolder.of(first).result() or {}
    assert result["scores"] == {}
    assert 0 <= result["validation"]["jf"] <= 100, "a segment is validated where it stops"
    last = segment_of(override(config, {"name": "last"}), 4, first)
    train_alone(last)
    assert 0 <= (RunFolder.of(last).result() or {})["scores"]["jf"] <= 100


def test_the_digest_says_what_a_segment_and_those_before_it_compute() -> None:
    whole = ExperimentConfig()
    segment = SegmentConfig(start_step=2, stop_step=4, parent="a", parent_digest="123")
    config = dataclasses.replace(whole, segment=segment)
    assert from_dict(ExperimentConfig, to_dict(config)) == config
    same_content = {"segment.parent": "b", "segment.member": 3, "segment.generation": 1}
    assert digest(override(config, same_content)) == digest(config)
    for key, value in (("start_step", 1), ("stop_step", 5), ("parent_digest", "456")):
        assert digest(override(config, {f"segment.{key}": value})) != digest(config)
    assert digest(whole) != digest(config)


@pytest.mark.parametrize(
    ("segment", "changes", "words"),
    [
        (SegmentConfig(stop_step=9), {}, "not a part of train.steps = 8"),
        (SegmentConfig(start_step=4, stop_step=4, parent="a", parent_digest="b"), {}, "not a part of"),
        (SegmentConfig(start_step=4, stop_step=8), {}, "do not go together"),
        (SegmentConfig(stop_step=8, parent="a", parent_digest="b"), {}, "do not go together"),
        (SegmentConfig(stop_step=4), {"validation.select_best": True}, "of a whole run"),
    ],
)
def test_a_segment_that_is_no_part_of_its_run_is_refused(
    segment: SegmentConfig, changes: dict[str, Any], words: str
) -> None:
    config = override(ExperimentConfig(segment=segment), {"train.steps": 8, **changes})
    with pytest.raises(ConfigError, match=words):
        check_segment(config)


@pytest.mark.parametrize("name", ["xmem-tiny", "cutie-tiny"])
def test_moments_fit_another_weight_decay_whatever_the_groups(name: str) -> None:
    network, device = build(name), torch.device("cpu")
    config = dataclasses.replace(ExperimentConfig().optimizer, decay_embeddings=False, weight_decay=0.0)
    before = build_optimizer(network, config, device)
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    before.step()
    after = build_optimizer(network, dataclasses.replace(config, weight_decay=0.1, epsilon=1e-6), device)
    load_moments(after, before.state_dict())
    assert {group["weight_decay"] for group in after.param_groups} <= {0.0, 0.1}
    assert after.param_groups[0]["weight_decay"] == 0.1
    assert {group["eps"] for group in after.param_groups} == {1e-6}
    parameter = next(network.parameters())
    assert torch.equal(after.state[parameter]["exp_avg"], before.state[parameter]["exp_avg"])


# ---- studies


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> ExperimentConfig:
    root = make_dataset(tmp_path_factory.mktemp("population"))
    selection = {"validation.root": str(root / "dataset"), "validation.split": "train", "validation.every": 4}
    return override(ExperimentConfig(tracking_uri=""), {**selection, "network.name": "stcn-tiny", "train.steps": 10})


class Trainer:
    """Stands where trials are run: a member's score falls with the distance of its rate from 1e-3."""

    def __init__(self, failing: Mapping[str, Exception] | None = None) -> None:
        self.made: list[str] = []
        self.failing = failing or {}

    def __call__(self, space: SearchSpace, segments: Sequence[Trial]) -> SweepResult:
        assert space.scheduler == "fifo"
        for segment in segments:
            config, folder = segment.config, RunFolder.of(segment.config)
            if folder.result() is not None:
                continue
            folder.claim(config)
            forget_failure(config)
            self.made.append(config.name)
            if config.name in self.failing:
                note_failure(config, self.failing[config.name])
                continue
            score = 95 - 1e4 * abs(config.optimizer.learning_rate - 1e-3)
            scores = {"jf": score} if config.stop_step == config.train.steps else {}
            folder.finish({"scores": scores, "validation": {"jf": score}})
        results = {s.name: result for s in segments if (result := RunFolder.of(s.config).result()) is not None}
        return SweepResult(results, tuple(read_failure(s) for s in segments if s.name not in results))


def lineages(storage: str) -> dict[str, Any]:
    """Name, parent and rate of every run folder."""
    found = {}
    for folder in sorted(Path(storage).iterdir()):
        config = json.loads((folder / "config.json").read_text())["config"]
        found[folder.name] = (config["segment"]["parent"], config["optimizer"]["learning_rate"])
    return found


def members_of(
    base: ExperimentConfig, storage: Path, space: SearchSpace = RATES, **settings: Any
) -> tuple[SearchSpace, list[Trial]]:
    space = dataclasses.replace(space, num_samples=4, searcher="grid", resample=0.0)  # 1e-4, 4.6e-4, 2.2e-3 and 1e-2
    members, _ = expand(space, override(base, {"storage": str(storage), **settings}))
    check_scheduler(space, members)
    return space, members


def test_a_population_goes_on_from_its_best_and_decides_the_same_again(base: ExperimentConfig, tmp_path: Path) -> None:
    space, members = members_of(base, tmp_path / "a")
    assert generation_ends(members[0].config) == (4, 8, 10)
    events: list[dict[str, Any]] = []
    trainer = Trainer()
    result = run_population(space, members, trainer, events.append)
    assert trainer.made == [f"member-{m:02d}-generation-{g:02d}" for g in range(3) for m in range(4)]
    assert set(result.results) == {member.name for member in members}
    made = lineages(members[0].config.storage)
    # The worst member of the first generation has the rate 1e-2, the best one 4.6e-4.
    parent, rate = made["member-03-generation-01"]
    assert parent == "member-01-generation-00"
    assert rate in (3.714e-4, 5.57e-4), "0.8 or 1.2 times that"
    assert made["member-00-generation-01"] == ("member-00-generation-00", 1e-4)
    assert "from member 01 (5.0, that one 89.6) with learning_rate" in events[0]["event"]
    described = describe_members(space, members)
    assert described[members[0].configuration].startswith("member 00: learning_rate 0.0001")
    assert described[members[3].configuration].startswith(f"member 03: learning_rate 0.0004642 → {rate:g}")

    # All seeds and digests are those of the decisions: elsewhere the same, with another seed not.
    elsewhere = members_of(base, tmp_path / "b")[1]
    run_population(space, elsewhere, Trainer())
    assert lineages(elsewhere[0].config.storage) == made
    other = dataclasses.replace(space, search_seed=1)
    run_population(other, members_of(base, tmp_path / "c")[1], Trainer())
    assert lineages(str(tmp_path / "c" / "rates")) != made

    # Killed and run again, it makes what is missing.
    for name in ("member-02-generation-01", "member-00-generation-02"):
        (Path(members[0].config.storage) / name / "result.json").unlink()
    again = Trainer()
    assert run_population(space, members, again).results == result.results
    assert again.made == ["member-02-generation-01", "member-00-generation-02"]

    # What was decided otherwise is not taken for what is decided now, finished or not.
    for changed in (other, dataclasses.replace(space, quantile=0.5)):
        with pytest.raises(CheckpointError, match=r"member-0\d-generation-01 holds another run: .*learning"):
            run_population(changed, members, Trainer())


def test_a_member_that_diverges_is_replaced_and_another_failure_ends_the_generation(
    base: ExperimentConfig, tmp_path: Path
) -> None:
    space, members = members_of(base, tmp_path)
    failing: dict[str, Exception] = {
        "member-02-generation-00": DivergedError("loss was not finite"),
        "member-00-generation-01": DataError("a file is damaged", "mend it"),
        "member-01-generation-01": DivergedError("loss was not finite"),
    }
    first = Trainer(failing)
    result = run_population(space, members, first)
    assert not result.results
    assert {failure.name for failure in result.failed} == {"member 00 generation 01", "member 01 generation 01"}
    assert lineages(members[0].config.storage)["member-02-generation-01"][0] == "member-01-generation-00"
    assert not any("generation-02" in name for name in first.made), "what is decided must not depend on a damaged file"

    del failing["member-00-generation-01"]
    second = Trainer(failing)
    mended = run_population(space, members, second)
    assert not mended.failed
    assert len(mended.results) == 4
    assert second.made[:2] == ["member-00-generation-01", "member-01-generation-01"]
    # All have a result now: what diverged is not made a third time, nor decided otherwise.
    third = Trainer()
    assert run_population(space, members, third).results == mended.results
    assert not third.made


def test_nothing_goes_on_where_all_have_diverged(base: ExperimentConfig, tmp_path: Path) -> None:
    space, members = members_of(base, tmp_path)
    failing = {f"member-{m:02d}-generation-00": DivergedError("loss was not finite") for m in range(4)}
    result = run_population(space, members, Trainer(failing))
    assert len(result.failed) == 4
    assert not any(RunFolder.of(one.config).result() for one in first_generation(members))


def _with(**changes: Any) -> Callable[[SearchSpace], SearchSpace]:
    return lambda space: dataclasses.replace(space, **changes)


@pytest.mark.parametrize(
    ("change", "settings", "words"),
    [
        (_with(axes={"network.name": ("stcn-tiny", "xmem-tiny")}), {}, "which network.name cannot be"),
        (_with(axes={"data.crop_size data.batch_size": ((32, 4), (48, 2))}), {}, "data.batch_size, data.crop_size"),
        (_with(axes={"optimizer.name": ("adam", "adamw")}), {}, "which optimizer.name cannot be"),
        (_with(axes={"train.precision": ("float32", "bfloat16")}), {}, "which train.precision cannot be"),
        (_with(seeds=(0, 1)), {}, "with 2 seeds"),
        (_with(ranges={}), {}, "there are 1 with 1 seeds"),
        (_with(searcher="optuna"), {}, "searcher = 'optuna'"),
        (_with(adapt=lambda config: config), {}, "adapt = <function"),
        (_with(quantile=0.6), {}, "quantile = 0.6"),
        (_with(metric="final/jf"), {}, "only known at the end"),
        (_with(), {"validation.every": 0}, "validation.every = 0 of 10 steps"),
        (_with(), {"validation.select_best": True}, "validation.select_best"),
        (_with(), {"evaluation.root": "ROOT", "evaluation.split": "train"}, "masks that are reported too"),
    ],
)
def test_what_cannot_change_in_the_middle_of_a_run_is_refused(
    base: ExperimentConfig, change: Callable[[SearchSpace], SearchSpace], settings: dict[str, Any], words: str
) -> None:
    settings = {key: base.validation.root if value == "ROOT" else value for key, value in settings.items()}
    space = change(dataclasses.replace(RATES, num_samples=2))
    members, _ = expand(space, override(base, settings))
    with pytest.raises(ConfigError, match=words):
        check_scheduler(space, members)


def test_only_the_last_segments_are_trials_of_the_report() -> None:
    space = dataclasses.replace(RATES, num_samples=2)
    config = override(ExperimentConfig(), {"train.steps": 4, "validation.every": 2})
    members, _ = expand(space, config)
    segments = first_generation(members)
    lasts = next_generation(segments, [Successor(1, {LR: 2e-3}), Successor(1, {LR: 2e-3})])
    assert segment_tags(members[0].config) == {}
    runs = []
    for number, trial in enumerate([*segments, *lasts]):
        tags = {"ovos.kind": "trial", **segment_tags(trial.config)}
        params = {key: json.dumps(value).strip('"') for key, value in flatten(trial.config).items()}
        scores = {("a", 1): (50.0 + number, 50.0)} if tags["ovos.kind"] == "trial" else {("a", 1): (0.0, 0.0)}
        curve = ((trial.config.stop_step, float(number)),)
        more = {"params": params, "tags": tags, "kind": tags["ovos.kind"], "name": trial.config.name}
        runs.append(memory_run("2-step", 0, scores, run_id=str(number), curves={"val/jf": curve}, **more))
    assert [run.tags.get("ovos.parent_segment") for run in runs[2:]] == ["member-01-generation-00"] * 2
    study = Study("e", "1", "", _with_lineage(tuple(runs)))
    comparison = compare(study)
    # Two members with the same settings are two rows, not two seeds of one.
    assert [[run.name for run in row.runs] for row in comparison.rows] == [
        ["member-01-generation-01"],
        ["member-00-generation-01"],
    ]
    assert [row.superseded for row in comparison.rows] == [0, 0]
    assert comparison.axes == ("segment.member",)
    assert comparison.rows[1].runs[0].curves["val/jf"] == ((2, 1.0), (4, 2.0)), "the curve begins with its parent's"
