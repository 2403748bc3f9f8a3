"""A study: which configurations of a recipe are compared. Pure; nothing here knows Ray.

    SearchSpace(
        name="backward_strategy",
        trainable="trainables.one_shot",
        axes={"network.name": ("stcn-tiny", "xmem-tiny"), "method.backward": ("2-step", "T-step", "1-step")},
    )

Axes and drawn ranges are expanded into a table of trials beforehand (`expand.py`), so that a study can be printed,
priced, resumed and compared without a running cluster. Only a searcher that learns draws while the study runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ovos_ray.config import ExperimentConfig
from ovos_ray.config.digest import digest
from ovos_ray.errors import ConfigError
from ovos_ray.evaluate.metrics import PRIMARY

__all__ = ["Range", "SearchSpace", "Skipped", "Trial"]


@dataclass(frozen=True)
class Range:
    """A continuous axis.

    Attributes:
        low: Smallest value.
        high: Largest value.
        log: Whether the logarithm is uniform.

    Raises:
        ConfigError: The bounds are not in order, or not positive where the logarithm is uniform.
    """

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        if not self.low < self.high or (self.log and self.low <= 0):
            raise ConfigError(f"{self} is not a range", "give low < high, both above 0 if log=True")

    def at(self, quantile: float) -> float:
        """Returns the value at a quantile in [0, 1], with four digits so that it can be read and typed."""
        if self.log:
            value = math.exp(math.log(self.low) + quantile * (math.log(self.high) - math.log(self.low)))
        else:
            value = self.low + quantile * (self.high - self.low)
        return self.rounded(value)

    def rounded(self, value: float) -> float:
        """Returns a value of the range with four digits."""
        return min(max(float(f"{value:.4g}"), self.low), self.high)


@dataclass(frozen=True, kw_only=True)
class SearchSpace:
    """What a study varies, and how it is run.

    Attributes:
        name: Name of the study and of the MLflow experiment.
        trainable: Path of the recipe it varies (`trainables.one_shot`).
        axes: Values by dotted key; the study is their product. A key may name several settings at once, separated by
            spaces, with tuples as values. The key `trainable` varies the recipe itself.
        ranges: Continuous axes.
        num_samples: Draws from `ranges`; with the searcher `grid`, points along each of them.
        seeds: Seeds every configuration is run with.
        overrides: Settings that differ from the recipe in all trials; the command line wins over them.
        adapt: Has the last word on every trial's configuration, for what depends on more than one setting.
        metric: What is compared and maximised; `final/jf` or, for schedulers that stop early, `val/jf`.
        scheduler: When trials are stopped early, or go on from better ones (`population.py`).
        searcher: How `ranges` are drawn: evenly spaced, at random from `search_seed`, or by Optuna from what it saw.
        search_seed: Seed of the draws.
        quantile: Share of a population that goes on from the best such share, with the scheduler `pbt`.
        resample: Probability that a setting is then drawn anew instead of perturbed.
        table: Which table or figure of the paper it reproduces.
    """

    name: str
    trainable: str
    axes: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    ranges: Mapping[str, Range] = field(default_factory=dict)
    num_samples: int = 1
    seeds: tuple[int, ...] = (0, 1, 2)
    overrides: Mapping[str, Any] = field(default_factory=dict)
    adapt: Callable[[ExperimentConfig], ExperimentConfig] | None = None
    metric: str = f"final/{PRIMARY.key}"
    scheduler: Literal["fifo", "asha", "median", "pbt"] = "fifo"
    searcher: Literal["grid", "random", "optuna"] = "grid"
    search_seed: int = 0
    quantile: float = 0.25
    resample: float = 0.25
    table: str = ""


@dataclass(frozen=True)
class Trial:
    """One run of a study.

    Attributes:
        name: Unique in the study, short and readable: `2-step xmem-tiny seed 0`.
        values: What distinguishes it, by dotted key, its seed included.
        config: Its full configuration; its storage is the study's folder.
    """

    name: str
    values: Mapping[str, Any]
    config: ExperimentConfig

    @property
    def key(self) -> str:
        """Digest of what it computes."""
        return digest(self.config)

    @property
    def configuration(self) -> str:
        """Its name without the seed: what the trials of one configuration have in common."""
        return self.name.removesuffix(f"seed {self.config.seed}").rstrip()


@dataclass(frozen=True)
class Skipped:
    """A combination that is not run, whatever its seed, and why.

    Attributes:
        name: The combination.
        reason: What is wrong with it, or what it repeats.
        remedy: What would make it run, if anything.
    """

    name: str
    reason: str
    remedy: str | None = None
