"""What a study of this name has left before: its own trials go on, those made with other settings are refused."""

from __future__ import annotations

from collections.abc import Sequence

from ovos_ray.config import override
from ovos_ray.errors import CheckpointError
from ovos_ray.storage import Storage
from ovos_ray.study.draws import drawn_values
from ovos_ray.study.population import first_generation
from ovos_ray.study.space import SearchSpace, Trial
from ovos_ray.train.run_folder import RunFolder

__all__ = ["check_earlier", "differing"]


def check_earlier(space: SearchSpace, trials: Sequence[Trial]) -> None:
    """Checks that what lies in the folders of the trials was made with their settings, data and weights pinned.

    Raises:
        CheckpointError: Some were made with others; says with which.
    """
    others = _differences(space, trials)
    if not others:
        return
    there = [folder for trial in _runs(space, trials) if (folder := RunFolder.of(trial.config)).claimed]
    kind = "finished trials" if all(folder.result() is not None for folder in there) else "trials that are there"
    lines = list(dict.fromkeys(line for differing in others.values() for line in differing))
    more = f" and {len(lines) - 3} more" if len(lines) > 3 else ""
    raise CheckpointError(
        f"study {space.name}: {len(others)} of {len(there)} {kind} were made with other settings: "
        f"{'; '.join(lines[:3])}{more}",
        "use name=… for another study, or --replace to set them aside",
    )


def differing(space: SearchSpace, trials: Sequence[Trial]) -> list[Trial]:
    """Returns what a study would have to set aside: runs made with other settings; in a population, then all runs."""
    others = _differences(space, trials)
    if not others or space.scheduler != "pbt":
        return [trial for trial in trials if trial.name in others]
    storage = trials[0].config.storage  # members of one generation decide on those of the next
    names = [name for name in Storage(storage).folders() if name.startswith("member-")]
    stored = [RunFolder.at(storage, name).config() for name in names]
    return [
        Trial(name, {}, override(config, {"storage": storage, "name": name}))
        for name, config in zip(names, stored, strict=True)
    ]


def _runs(space: SearchSpace, trials: Sequence[Trial]) -> Sequence[Trial]:
    return first_generation(trials) if space.scheduler == "pbt" else trials


def _differences(space: SearchSpace, trials: Sequence[Trial]) -> dict[str, list[str]]:
    """Returns, by trial, how what lies in its folder differs."""
    runs = _runs(space, trials)
    found = {}
    for run in runs:
        # What a searcher drew for a trial when it was begun, its folder alone knows.
        drawn = drawn_values(space, run.config) if space.searcher == "optuna" else {}
        found[run.name] = RunFolder.of(run.config).differences(override(run.config, drawn))
    return {name: lines for name, lines in found.items() if lines}
