"""What a study will cost, before anything starts: a few real steps of each kind of configuration, scaled to all."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ovos_ray.config import ExperimentConfig, flatten, override
from ovos_ray.config.roles import Priced
from ovos_ray.config.settings import keys_of
from ovos_ray.study.space import Trial

if TYPE_CHECKING:
    from ovos_ray.run.estimate import Cost

__all__ = ["Group", "KindCost", "StudyCost", "group_trials", "pretraining_groups", "price"]


@dataclass(frozen=True)
class Group:
    """The trials of one configuration, which differ in their seed alone.

    Attributes:
        name: What they have in common.
        trials: One per seed.
    """

    name: str
    trials: tuple[Trial, ...]

    @property
    def config(self) -> ExperimentConfig:
        """Configuration of the first of them."""
        return self.trials[0].config


@dataclass(frozen=True)
class KindCost:
    """What one kind of configuration costs: all those whose steps do the same work.

    Attributes:
        groups: These configurations, the first of which was measured.
        cost: Of one trial; None where it is asked for a GPU of which no such step is stored.
    """

    groups: tuple[Group, ...]
    cost: Cost | None

    @property
    def num_trials(self) -> int:
        """Trials of all of them."""
        return sum(len(group.trials) for group in self.groups)


@dataclass(frozen=True)
class StudyCost:
    """What was measured of a study.

    Attributes:
        kinds: Cost of each kind of configuration.
        processor_hours: Of all trials: CPU-hours (threads times time), or GPU-hours where a GPU was measured.
        unit: `CPU-hours` or `GPU-hours`.
        trial_hours: All trials one after another, in hours.
    """

    kinds: tuple[KindCost, ...]
    processor_hours: float
    unit: str
    trial_hours: float


def group_trials(trials: Sequence[Trial]) -> list[Group]:
    """Groups trials by configuration, in order of appearance."""
    groups: dict[str, list[Trial]] = {}
    for trial in trials:
        groups.setdefault(trial.configuration, []).append(trial)
    return [Group(name, tuple(members)) for name, members in groups.items()]


def pretraining_groups(groups: Sequence[Group]) -> list[Group]:
    """Returns the unfinished pretrainings that some trials start from, each once, a stage before what needs it."""
    from ovos_ray.run.pretraining import pretraining_stage
    from ovos_ray.train.run_folder import RunFolder

    found: dict[str, Group] = {}
    for group in groups:
        stage, pretrain = pretraining_stage(group.config), group.config.pretrain
        if stage is None or pretrain is None or stage.name in found or RunFolder.of(stage).result() is not None:
            continue
        name = f"pretraining {stage.name} ({pretrain.recipe.removeprefix('trainables.')})"
        one = Group(name, (Trial(name, {}, stage),))
        found |= {before.config.name: before for before in pretraining_groups([one])}
        found[stage.name] = one
    return list(found.values())


def price(
    groups: Sequence[Group], progress: Callable[[str], None] | None = None, *, on: str | None = None
) -> StudyCost:
    """Measures every kind of configuration once on this machine and scales to the study.

    Args:
        groups: From `group_trials`.
        progress: Called with the name of each configuration that is about to be measured.
        on: Price for this GPU with stored step times instead (`run/stored_times.py`).
    """
    from ovos_ray.run.estimate import estimate
    from ovos_ray.run.stored_times import stored_cost

    by_kind: dict[ExperimentConfig, list[Group]] = {}
    for group in groups:
        by_kind.setdefault(_kind(group.config), []).append(group)
    kinds = []
    hours = processor_hours = 0.0
    for kind, members in by_kind.items():
        if progress is not None:
            progress(members[0].name)
        cost, train = estimate(kind) if on is None else stored_cost(kind, on), kind.train
        kinds.append(KindCost(tuple(members), cost))
        if cost is None:
            continue
        threads = train.num_threads or math.ceil(train.cpus_per_worker)
        processors = train.num_workers * (train.gpus_per_worker if cost.device.startswith("cuda") else threads)
        num_trials = kinds[-1].num_trials
        hours += num_trials * cost.seconds / 3600
        processor_hours += num_trials * processors * cost.seconds / 3600
    unit = "GPU-hours" if any(kind.cost and kind.cost.device.startswith("cuda") for kind in kinds) else "CPU-hours"
    return StudyCost(tuple(kinds), processor_hours, unit, hours)


def _kind(config: ExperimentConfig) -> ExperimentConfig:
    """Strips a configuration of what its cost does not depend on, so that equal kinds are measured once."""
    leaves = flatten(config)
    return override(ExperimentConfig(), {key: leaves[key] for key in keys_of(Priced) if key in leaves})
