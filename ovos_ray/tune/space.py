"""A study: which configurations of a recipe are compared. Pure; nothing here knows Ray.

Grid axes are expanded into a table of trials beforehand, so that a study can be printed, priced, resumed and compared
without a running cluster. Continuous ranges are drawn by Tune's searcher instead.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ovos_ray.config import ExperimentConfig, digest, override
from ovos_ray.errors import ConfigError

__all__ = ["Range", "SearchSpace", "Skipped", "Trial", "expand"]


@dataclass(frozen=True)
class Range:
    """A continuous axis.

    Attributes:
        low: Smallest value.
        high: Largest value.
        log: Whether the logarithm is uniform.
    """

    low: float
    high: float
    log: bool = False

    def at(self, quantile: float) -> float:
        """Returns the value at a quantile in [0, 1]."""
        if self.log:
            return math.exp(math.log(self.low) + quantile * (math.log(self.high) - math.log(self.low)))
        return self.low + quantile * (self.high - self.low)


@dataclass(frozen=True, kw_only=True)
class SearchSpace:
    """What a study varies, and how it is run.

    Attributes:
        name: Name of the study and of the MLflow experiment.
        trainable: Path of the recipe it varies (`trainables.one_shot`).
        axes: Values by dotted key; the study is their product. A key may name several settings at once, separated by
            spaces, with tuples as values.
        ranges: Continuous axes, drawn `num_samples` times.
        num_samples: Draws from `ranges`.
        seeds: Seeds every configuration is run with.
        overrides: Settings that differ from the recipe in all trials.
        metric: What is compared and maximised; `final/jf` or, for schedulers that stop early, `val/jf`.
        scheduler: When trials are stopped early.
        searcher: How `ranges` are drawn.
        table: Which table or figure of the paper it reproduces.
    """

    name: str
    trainable: str
    axes: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    ranges: Mapping[str, Range] = field(default_factory=dict)
    num_samples: int = 1
    seeds: tuple[int, ...] = (0, 1, 2)
    overrides: Mapping[str, Any] = field(default_factory=dict)
    metric: str = "final/jf"
    scheduler: Literal["fifo", "asha", "median", "pbt"] = "fifo"
    searcher: Literal["grid", "random", "optuna"] = "grid"
    table: str = ""


@dataclass(frozen=True)
class Trial:
    """One run of a study.

    Attributes:
        name: Unique in the study, short and readable: `2-step xmem-tiny seed 0`.
        values: What distinguishes it, by dotted key.
        config: Its full configuration; its storage is the study's folder.
    """

    name: str
    values: Mapping[str, Any]
    config: ExperimentConfig

    @property
    def key(self) -> str:
        """Digest of what it computes."""
        return digest(self.config)


@dataclass(frozen=True)
class Skipped:
    """A combination that is not run, and why."""

    name: str
    reason: str


def expand(space: SearchSpace, base: ExperimentConfig) -> tuple[list[Trial], list[Skipped]]:
    """Expands the grid axes and seeds of a study.

    Args:
        space: The study.
        base: The recipe's configuration, with the user's own overrides.

    Returns:
        The trials in order, and the combinations left out: those a method refuses, and those that compute the same as
        an earlier one.

    Raises:
        ConfigError: An axis names an unknown setting or a value of the wrong type.
    """
    from ovos_ray.train.pretraining import pin_pretraining

    base = override(base, dict(space.overrides))
    pretrainings = f"{base.storage.rstrip('/')}/pretraining"
    trials: list[Trial] = []
    skipped: list[Skipped] = []
    names_by_key: dict[str, str] = {}
    combinations = [dict(zip(space.axes, values, strict=True)) for values in itertools.product(*space.axes.values())]
    for combination in combinations:
        values = _spread(combination)
        for seed in space.seeds:
            name = " ".join([*(_short(v) for v in values.values()), f"seed {seed}"])
            config = override(base, {**values, "seed": seed, "storage": f"{base.storage.rstrip('/')}/{space.name}"})
            if name in names_by_key.values():
                # Different values may read alike, such as two folders of the same name.
                name = f"{name} ({len(trials)})"
            if config.pretrain is not None and config.pretrain.storage is None:
                config = override(config, {"pretrain.storage": pretrainings})  # one place for all studies
            config = pin_pretraining(override(config, {"name": _folder_name(name)}))
            if (reason := _refusal(config)) is not None:
                skipped.append(Skipped(name, reason))
                continue
            key = digest(_canonical(config))
            if key in names_by_key:
                skipped.append(Skipped(name, f"computes the same as {names_by_key[key]!r}"))
                continue
            names_by_key[key] = name
            trials.append(Trial(name, {**values, "seed": seed}, config))
    if not trials:
        reasons = "; ".join(f"{s.name}: {s.reason}" for s in skipped) or "it has no seeds"
        raise ConfigError(f"study {space.name} has no trial to run ({reasons})")
    return trials, skipped


def _spread(combination: Mapping[str, Any]) -> dict[str, Any]:
    """Splits joint axes: `{"a b": (1, 2)}` sets a to 1 and b to 2."""
    values: dict[str, Any] = {}
    for keys, value in combination.items():
        names = keys.split()
        parts = [value] if len(names) == 1 else list(value)
        if len(parts) != len(names):
            raise ConfigError(f"axis {keys!r} needs {len(names)} values, {value!r} has {len(parts)}")
        values.update(zip(names, parts, strict=True))
    return values


def _refusal(config: ExperimentConfig) -> str | None:
    """Returns why a configuration cannot be trained, or None."""
    import torch

    from ovos_ray.methods.one_shot import check_strategy
    from ovos_ray.networks import build

    if config.method.name != "one_shot":
        return None
    with torch.device("meta"):  # the structure alone, no memory
        network = build(config.network.name)
    try:
        check_strategy(network, config.method, config.data.clip_length)
    except ConfigError as error:
        return error.message
    return None


def _canonical(config: ExperimentConfig) -> ExperimentConfig:
    from ovos_ray.methods.one_shot import canonical_strategy

    backward = canonical_strategy(config.method.backward, config.data.clip_length)
    return override(config, {"method.backward": backward})


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, (list, tuple)):
        return "-".join(_short(v[1] if isinstance(v, (list, tuple)) and len(v) == 2 else v) for v in value)
    return str(value).rpartition("/")[2]


def _folder_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9.+-]+", "-", name).strip("-")
