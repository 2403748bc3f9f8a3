"""`submit --slurm`: the same verb as a Slurm job, with the weights fetched here, where there may be an internet."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ovos_ray.cli.console import console
from ovos_ray.errors import ConfigError
from ovos_ray.on_ray.slurm import SlurmJob, queue

if TYPE_CHECKING:
    from ovos_ray.config import ExperimentConfig

__all__ = ["submit_slurm"]


def submit_slurm(
    verb: str, arguments: list[str], parameters: dict[str, Any], *, show: bool, options: dict[str, Any]
) -> None:
    """Queues a verb, or prints the script that would be queued (`show`).

    `parameters` are the verb's `arguments` as it parses them, `options` fields of `SlurmJob`.

    Raises:
        ConfigError: The verb trains in processes of one machine.
        ClusterError: See `slurm.queue`.
        OvosError: What the verb itself would refuse, found here.
    """
    if parameters.get("no_ray"):
        raise ConfigError("--no-ray runs on one machine without a cluster", "leave it out: the job starts Ray itself")
    made_by = f"Made by: ovos-ray submit --slurm … -- {shlex.join([verb, *arguments])}"
    job = SlurmJob(
        command=["python", "-m", "ovos_ray", verb, *arguments],
        folder=str(Path.cwd()),
        programs=str(Path(sys.executable).parent),
        made_by=made_by,
        **options,
    )
    if show:
        sys.stdout.write(job.script())
        return
    _fetch_weights(verb, parameters)
    number = queue(job)
    console.print(f"job {number}; follow: tail -F ovos-{verb}-{number}.log   stop: scancel {number}")


def _fetch_weights(verb: str, parameters: dict[str, Any]) -> None:
    """Puts ImageNet weights into the storage of the runs: nodes of a cluster often have no internet."""
    from ovos_ray.run.initial import provide_initial

    done = set()
    for config in _configs(verb, parameters):
        if (key := (config.storage, config.network)) not in done:
            done.add(key)
            provide_initial(config)


def _configs(verb: str, parameters: dict[str, Any]) -> list[ExperimentConfig]:
    """Returns the configurations that a verb trains, pretrainings first."""
    from ovos_ray.config.recipes import make
    from ovos_ray.run.pretraining import pin
    from ovos_ray.run.request import config_from
    from ovos_ray.study.expand import expand_study
    from ovos_ray.study.price import Group, group_trials, pretraining_groups
    from ovos_ray.study.space import SearchSpace, Trial

    overrides = parameters.get("overrides") or []
    if verb == "sweep":
        groups = group_trials(expand_study(make(parameters["search_space"], SearchSpace), overrides)[1])
    elif verb == "train":
        config = pin(config_from(parameters["trainable"], overrides))
        groups = [Group(config.name, (Trial(config.name, {}, config),))]
    else:
        return []
    return [group.config for group in [*pretraining_groups(groups), *groups]]
