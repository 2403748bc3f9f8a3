"""From a study to its table of trials: combinations times seeds, without what cannot or need not be run.

The order of precedence, the last one wins: the recipe, `SearchSpace.overrides`, the command line, the axes. A key on
the command line that is also an axis chooses from that axis.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ovos_ray.config import ExperimentConfig, PretrainConfig, override
from ovos_ray.config.digest import digest
from ovos_ray.config.recipes import make
from ovos_ray.config.strategies import canonical_strategy
from ovos_ray.errors import ConfigError
from ovos_ray.run.checks import check_backward
from ovos_ray.run.pretraining import pin
from ovos_ray.seeding import generator
from ovos_ray.study.space import Range, SearchSpace, Skipped, Trial

__all__ = ["choose", "expand", "expand_study", "short", "spread"]

_STUDY_KEYS = (
    "name", "metric", "num_samples", "quantile", "resample", "scheduler", "search_seed", "searcher", "trainable",
)  # fmt: skip


def expand_study(space: SearchSpace, words: Sequence[str]) -> tuple[SearchSpace, list[Trial], list[Skipped]]:
    """Applies a command line to a study and expands it.

    Args:
        space: The study.
        words: `key=value`. Keys of the study itself (`seeds=0,1`, `num_samples=20`, `name=second-try`, …) change the
            study, keys of an axis choose from it, others change every trial.

    Returns:
        The study as it is run, and what `expand` returns.

    Raises:
        ConfigError: See `expand`.
    """
    space, rest = choose(space, words)
    return space, *expand(space, None, rest)


def choose(space: SearchSpace, words: Sequence[str]) -> tuple[SearchSpace, list[str]]:
    """Returns the study with what the command line says of it, and the words that are about its trials.

    Raises:
        ConfigError: A word is malformed, or chooses what a joint axis does not hold.
    """
    rest = []
    for word in words:
        key, separator, text = word.partition("=")
        if separator and key in ("seed", "seeds"):
            space = override(space, {"seeds": text})
        elif separator and key == "trainable" and any("trainable" in axis.split() for axis in space.axes):
            space = _choose_from_axis(space, key, text)
        elif separator and key in _STUDY_KEYS:
            space = override(space, {key: text})
        elif separator and key in space.ranges:
            ranges = {name: value for name, value in space.ranges.items() if name != key}
            space = dataclasses.replace(space, ranges=ranges)
            rest.append(word)
        elif separator and any(key in axis.split() for axis in space.axes):
            space = _choose_from_axis(space, key, text)
        else:
            rest.append(word)
    return space, rest


def _choose_from_axis(space: SearchSpace, key: str, text: str) -> SearchSpace:
    """A lone axis takes any value; of a joint axis, the entries with that value remain."""
    axis = next(axis for axis in space.axes if key in axis.split())
    names = axis.split()
    value = text if key == "trainable" else _read(key, text)
    kept: tuple[Any, ...] = (value,)
    if len(names) > 1:
        place = names.index(key)
        kept = tuple(entry for entry in space.axes[axis] if entry[place] == value)
        if not kept:
            known = ", ".join(dict.fromkeys(str(entry[place]) for entry in space.axes[axis]))
            raise ConfigError(f"study {space.name} has no {key} = {text}", f"it has {known}")
    return dataclasses.replace(space, axes={**space.axes, axis: kept})


def _read(key: str, text: str) -> Any:
    """Reads a value as the configuration would."""
    changed = override(ExperimentConfig(), {key: text})
    return functools.reduce(getattr, key.split("."), changed)


def expand(
    space: SearchSpace, base: ExperimentConfig | None = None, words: Sequence[str] = ()
) -> tuple[list[Trial], list[Skipped]]:
    """Expands axes, ranges and seeds of a study.

    Args:
        space: The study.
        base: The recipe's configuration; None: it is made from `space.trainable`.
        words: Overrides of the command line, for every trial.

    Returns:
        The trials in order, and the combinations left out: those a method refuses, and those that compute the same as
        an earlier one.

    Raises:
        ConfigError: An axis names an unknown setting or a value of the wrong type, or no trial is left.
    """
    bases: dict[str, ExperimentConfig] = {}
    trials: list[Trial] = []
    skipped: list[Skipped] = []
    labels_by_key: dict[str, str] = {}
    for label, values in _combinations(space):
        recipe = str(values.get("trainable", space.trainable))
        if recipe not in bases:
            made = base if base is not None and "trainable" not in values else make(recipe, ExperimentConfig)
            bases[recipe] = override(override(made, dict(space.overrides)), words)
        config = override(bases[recipe], {k: v for k, v in values.items() if k != "trainable"})
        if space.adapt is not None:
            config = space.adapt(config)
        if config.pretrain is not None and config.pretrain.storage is None:  # one place for all studies
            config = override(config, {"pretrain.storage": f"{config.storage.rstrip('/')}/pretraining"})
        config = pin(config)
        config = dataclasses.replace(config, storage=f"{config.storage.rstrip('/')}/{space.name}")
        if (refusal := _refusal(config)) is not None:
            skipped.append(Skipped(label, refusal.message, refusal.remedy))
            continue
        key = digest(_canonical(dataclasses.replace(config, seed=0)))
        if key in labels_by_key:
            skipped.append(Skipped(label, f"computes the same as {labels_by_key[key]!r}"))
            continue
        if label in labels_by_key.values():  # different values may read alike, such as numbers with many digits
            label = f"{label} ({len(trials)})"
        labels_by_key[key] = label
        for seed in dict.fromkeys(space.seeds):
            name = f"{label} seed {seed}".strip()
            seeded = dataclasses.replace(config, seed=seed, name=_folder_name(name))
            trials.append(Trial(name, {**values, "seed": seed}, seeded))
    if not trials:
        reasons = "; ".join(f"{one.name}: {one.reason}" for one in skipped) or "it has no seeds"
        remedy = next((one.remedy for one in skipped if one.remedy), "give it seeds=0,1,2")
        raise ConfigError(f"study {space.name} has no trial to run ({reasons})", remedy)
    return trials, skipped


def _combinations(space: SearchSpace) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields name and values, by dotted key, of every configuration."""
    points = list(_points(space))
    for entries in itertools.product(*space.axes.values()):
        chosen = spread(dict(zip(space.axes, entries, strict=True)))
        for number, point in enumerate(points):
            # What Optuna will draw is not known yet; the values are those of a random draw.
            named = chosen if space.searcher == "optuna" else {**chosen, **point}
            words = [short(key, value) for key, value in named.items()]
            words += [f"draw {number}"] if space.searcher == "optuna" else []
            yield " ".join(words), {**chosen, **point}


def _points(space: SearchSpace) -> Iterator[dict[str, float]]:
    """Yields values of the ranges. Draw i depends on seed, i and key alone: more samples keep the first ones."""
    ranges, count = space.ranges, space.num_samples
    if not ranges:
        yield {}
    elif space.searcher == "grid":
        quantiles = [i / (count - 1) for i in range(count)] if count > 1 else [0.5]
        for chosen in itertools.product(quantiles, repeat=len(ranges)):
            yield {key: values.at(q) for (key, values), q in zip(ranges.items(), chosen, strict=True)}
    else:
        for i in range(count):
            yield {key: _draw(values, space.search_seed, i, key) for key, values in ranges.items()}


def _draw(values: Range, seed: int, index: int, key: str) -> float:
    return values.at(float(generator(seed, index, f"range {key}").random()))


def spread(combination: Mapping[str, Any]) -> dict[str, Any]:
    """Splits joint axes: `{"a b": (1, 2)}` sets a to 1 and b to 2."""
    values: dict[str, Any] = {}
    for keys, value in combination.items():
        names = keys.split()
        parts = [value] if len(names) == 1 else list(value)
        if len(parts) != len(names):
            raise ConfigError(f"axis {keys!r} needs {len(names)} values, {value!r} has {len(parts)}")
        values.update(zip(names, parts, strict=True))
    return values


def _refusal(config: ExperimentConfig) -> ConfigError | None:
    """Returns why a configuration cannot be trained, or None."""
    try:
        check_backward(config)
    except ConfigError as error:
        return error
    return None


def _canonical(config: ExperimentConfig) -> ExperimentConfig:
    one_shot = config.method.name == "one_shot"  # full supervision walks nowhere back
    backward = canonical_strategy(config.method.backward, config.data.clip_length) if one_shot else "T-step"
    return dataclasses.replace(config, method=dataclasses.replace(config.method, backward=backward))


def short(key: str, value: Any) -> str:
    """Returns what a name says of a value: words speak for themselves, numbers need to say of what."""
    if key == "trainable":
        return str(value).removeprefix("trainables.")
    if isinstance(value, PretrainConfig) or key == "pretrain":
        return "from-scratch" if value is None else "pretrained"
    text = _short_value(value)
    speaks = isinstance(value, str) or (isinstance(value, tuple) and any(isinstance(part, str) for part in value))
    return text if speaks else f"{key.rpartition('.')[2]} {text}"


def _short_value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, (list, tuple)):
        # Of the pairs of a curriculum the second numbers are enough.
        return "-".join(_short_value(v[1] if isinstance(v, (list, tuple)) and len(v) == 2 else v) for v in value)
    return str(value).rpartition("/")[2]


def _folder_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9.+-]+", "-", name).strip("-")
