"""A study's plan is printed without a cluster: trials, what is left out and why, label budget, cost, concurrency."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import typer
from tiny_study import make_dataset

from ovos_ray.cli.console import console
from ovos_ray.cli.sweep import sweep
from ovos_ray.config import ExperimentConfig, override
from ovos_ray.config.recipes import make
from ovos_ray.study.expand import expand
from ovos_ray.study.price import group_trials, price
from ovos_ray.study.space import SearchSpace, Trial

STUDY = '''
from ovos_ray.config import DataConfig, ExperimentConfig, LossConfig, MethodConfig, NetworkConfig
from ovos_ray.study.space import Range, SearchSpace

def tiny() -> ExperimentConfig:
    """Tiny."""
    return ExperimentConfig(
        network=NetworkConfig(name="stcn-tiny"),
        data=DataConfig(clip_length=4, max_skip=((0.0, 1),), batch_size=2, crop_size=48, max_objects=2),
        method=MethodConfig(loss=LossConfig(cross_entropy="plain")),
    )

def large() -> SearchSpace:
    """500 trials and some that cannot be."""
    return SearchSpace(
        name="large",
        trainable="dry_run_study.tiny",
        axes={"network.name": ("stcn-tiny", "xmem-tiny"), "method.backward": ("2-step", "1-step")},
        ranges={"optimizer.learning_rate": Range(1e-4, 1e-2, log=True)},
        num_samples=56,
        searcher="random",
    )
'''


@pytest.fixture
def printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    (tmp_path / "dry_run_study.py").write_text(STUDY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    make_dataset(tmp_path)
    output = io.StringIO()
    monkeypatch.setattr(console, "_file", output)
    monkeypatch.setattr(console, "_width", 200)
    return output


def plan(*words: str) -> None:
    sweep("dry_run_study.large", list(words), dry_run=True)


def refused(*words: str) -> None:
    with pytest.raises(typer.Exit) as ended:
        plan(*words)
    assert ended.value.exit_code == 1


def test_a_plan_of_500_trials_says_what_runs_what_does_not_and_what_it_costs(
    printed: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ovos_ray.run import estimate

    measured = []
    real = estimate.estimate
    monkeypatch.setattr(estimate, "estimate", lambda config: measured.append(config) or real(config))  # type: ignore[func-returns-value]
    plan("data.shards=shards", "evaluation.root=dataset")
    text = printed.getvalue()
    # 2 networks x 2 strategies x 56 draws x 3 seeds = 672, of which XMem's 1-step, 168, cannot be trained.
    assert "large: 504 trials of 168 configurations of dry_run_study.tiny" in text
    assert text.count("section 3.4") == 1, "a reason is said once"
    assert "and 53 more" in text
    assert "to run it: choose 2-step" in text
    assert "4 videos, 4 of 24" in text
    assert len(measured) == 3, "each kind of configuration is measured once"
    assert "504 trials: " in text
    assert "CPU-hours at this machine's speed" in text
    assert "trials at a time on this machine" in text
    assert "cannot run yet" not in text


def test_a_plan_says_what_is_still_missing(printed: io.StringIO) -> None:
    refused("num_samples=1", "evaluation.root=nowhere", "data.shards=absent")
    text = " ".join(printed.getvalue().split())
    assert text.count("it cannot run yet") == 2
    assert "absent" in text
    assert "nowhere: no such folder" in text
    refused("num_samples=1", "data.shards=shards", "scheduler=asha")
    assert "metric = 'final/jf' is only known at the end" in printed.getvalue()


def test_a_study_whose_score_cannot_come_is_refused_and_told_where_its_videos_are(
    printed: io.StringIO, tmp_path: Path
) -> None:
    one = ["num_samples=1", "data.shards=shards", "network.name=stcn-tiny", "method.backward=1-step"]
    refused(*one)
    text = " ".join(printed.getvalue().split())
    assert "compares by final/jf, which will not come: evaluation.root is not set" in text
    assert f"add evaluation.root={tmp_path / 'dataset'};" in text
    refused(*one, "metric=final/davis2016/jf", "evaluation.root=dataset")
    assert "add evaluation.also=davis2016=FOLDER" in " ".join(printed.getvalue().split())
    refused(*one, "metric=val/jf", "evaluation.root=dataset")
    assert "validation.root is not set" in " ".join(printed.getvalue().split())
    before = len(printed.getvalue())
    plan(*one, "evaluation.root=none")
    assert "cannot run yet" not in printed.getvalue()[before:], "on purpose"


def test_the_plan_of_a_population_says_its_generations_and_costs_all_members_to_the_last_step(
    printed: io.StringIO,
) -> None:
    words = ["data.shards=shards", "evaluation.root=dataset", "num_samples=4", "metric=val/jf", "scheduler=pbt"]
    words += ["validation.root=dataset", "validation.split=train", "validation.every=400", "train.steps=1000"]
    alone = ["network.name=stcn-tiny", "method.backward=1-step", "seeds=0"]
    plan(*words, *alone)
    text = printed.getvalue()
    assert "compared by val/jf; a population of 4, 3 generations, one every 400 steps" in text
    assert "4 trials: " in text
    assert "at most" not in text
    assert "cannot run yet" not in text
    refused(*words, "seeds=0")
    assert "which network.name cannot be" in " ".join(printed.getvalue().split())


def test_a_job_address_gives_no_concurrency(printed: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://head:8265")
    one = ["num_samples=1", "data.shards=shards", "network.name=stcn-tiny", "method.backward=1-step"]
    plan(*one, "evaluation.root=dataset")
    assert "trials at a time: unknown (http://head:8265" in printed.getvalue()


def test_gpus_that_nobody_asks_for_are_mentioned(printed: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    from ovos_ray.on_ray.session import mention_idle_gpus

    config = make("trainables.one_shot", ExperimentConfig)
    for gpus, changes in ((0, {}), (4, {"train.gpus_per_worker": 0.5})):
        monkeypatch.setattr("ray.cluster_resources", lambda gpus=gpus: {"CPU": 8.0, "GPU": float(gpus)})
        mention_idle_gpus(console, [override(config, changes)])
    assert not printed.getvalue()
    mention_idle_gpus(console, [config])
    assert "4 GPUs stay idle: add train.gpus_per_worker=1" in printed.getvalue()


def test_the_cost_of_a_study_is_the_sum_over_its_trials(printed: io.StringIO) -> None:
    made = make("dry_run_study.large", SearchSpace)
    trials, _ = expand(override(made, {"num_samples": 1}))
    groups = group_trials(trials)
    assert [len(group.trials) for group in groups] == [3, 3, 3]
    twice = [Trial(t.name, t.values, override(t.config, {"train.steps": 2 * t.config.train.steps})) for t in trials]
    cost, double = price(groups), price(group_trials(twice))
    assert cost.trial_hours == pytest.approx(3 * sum(kind.cost.seconds for kind in cost.kinds) / 3600)
    assert cost.processor_hours == pytest.approx(cost.trial_hours), "one thread each"
    assert cost.unit == "CPU-hours"
    # Two measurements on a busy machine differ, not by an order of magnitude.
    assert 2 / 5 < double.trial_hours / cost.trial_hours < 2 * 5
