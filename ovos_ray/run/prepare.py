"""What happens to every run, whatever executes it: checks, the claim on its folder, its pretraining, its result.

A process of this machine (`run.here`), Ray (`on_ray.fit`): what executes a run is handed in.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ovos_ray.config import ExperimentConfig
from ovos_ray.errors import ConfigError, ResourceError
from ovos_ray.evaluate.evaluation import check_benchmarks
from ovos_ray.run.checks import check_config
from ovos_ray.run.disk import check_disk
from ovos_ray.run.failure import ending_failed
from ovos_ray.run.initial import provide_initial
from ovos_ray.run.lock import run_lock
from ovos_ray.run.pin import pin_content
from ovos_ray.run.pretraining import pretraining_folder, pretraining_request
from ovos_ray.run.request import RunRequest
from ovos_ray.run.same import finished_below, same_run, take_over, was_taken_over
from ovos_ray.run.set_aside import run_key, set_aside
from ovos_ray.run.snapshots import snapshot_videos
from ovos_ray.train.run_folder import RunFolder

__all__ = ["RunResult", "make_run", "request_for"]


@dataclass(frozen=True)
class RunResult:
    """What a finished run left.

    Attributes:
        folder: Where its files are.
        values: Content of `result.json`: `scores` in percent, `steps`, `seconds`, `label_percent`, `digest`.
        resumed_finished: Whether the run had been finished before and nothing was done.
    """

    folder: RunFolder
    values: Mapping[str, Any]
    resumed_finished: bool = False


def request_for(
    config: ExperimentConfig,
    trainable: str,
    *,
    tags: Mapping[str, str],
    watcher: Callable[[dict[str, Any]], None] | None = None,
    again: bool = False,
    replace: bool = False,
) -> RunRequest:
    """Returns the request of one run that belongs to no study.

    Args:
        config: As `pretraining.pin` and `request.resolve` return it.
        trainable: What it was made from; its MLflow experiment.
        tags: MLflow tags, such as `provenance_tags()`.
        watcher: See `RunRequest`.
        again: Train also what another finished run has computed, even where its result was taken over before.
        replace: Set aside what has this name and other settings.
    """
    request = RunRequest(
        config=config,
        experiment=trainable,
        run_key=run_key("run", config),
        tags={**tags, "ovos.trainable": trainable},
        watcher=watcher,
        pretraining=pretraining_request(config, Path.cwd(), tags=tags, watcher=watcher, alone=True),
        alone=True,
        same_below=None if again else config.storage,
    )
    folder = RunFolder.of(config)
    if (replace and folder.differences(config)) or (again and was_taken_over(config) and folder.finished(config)):
        request.post(0, event=f"set aside: {set_aside(request)}")
        request = dataclasses.replace(request, run_key=run_key("run", config))
    return request


def make_run(
    request: RunRequest,
    execute: Callable[[RunRequest], None],
    *,
    check_room: Callable[[ExperimentConfig], None] | None = None,
) -> RunResult:
    """Makes a run, or finds it made: the same request again continues where the last one stopped.

    Args:
        request: The run.
        execute: Trains a run from its last checkpoint to its result.
        check_room: Raises a `ResourceError` if there will never be room for a run of this configuration.

    Raises:
        OvosError: The run cannot be made as configured, or another process makes it.
    """
    request = dataclasses.replace(request, config=pin_content(request.config))
    config, folder = request.config, RunFolder.of(request.config)
    check_config(config)
    folder.check(config)
    if (values := folder.result()) is not None:
        return RunResult(folder, values, resumed_finished=True)
    if check_room is not None:
        check_room(config)
    check_disk(config)
    check_benchmarks(config.evaluation)
    if request.same_below is not None and (same := same_run(config, finished_below(request.same_below))) is not None:
        with run_lock(request):
            return RunResult(folder, take_over(request, same))
    provide_initial(config)
    if folder.claim(config):  # only now: what cannot be run must not keep the name
        request.post(0, event="begun by an earlier version; its data and weights are part of its identity from now on")
    if config.train.snapshot_every and not snapshot_videos(config):
        request.post(0, event="no snapshots are kept: neither a validation nor an evaluation split is set")
    with ending_failed(request):
        if request.pretraining is not None:
            make_run(request.pretraining, execute, check_room=check_room)
        elif config.pretrain is not None and pretraining_folder(config).result() is None:
            raise ConfigError(
                f"pretraining {config.pretrain.digest} is needed and not finished",
                "give its request too: pretraining_request(config, base)",
            )
        with run_lock(request) as lease:
            if (values := folder.result()) is not None:  # finished by whom this one waited for
                return RunResult(folder, values, resumed_finished=True)
            folder.claim(config)  # whom this one waited for may have set aside what lay here
            execute(dataclasses.replace(request, lease=lease))
        if (values := folder.result()) is None:
            raise ResourceError(f"run {config.name} ended without a result in {folder.storage.folder}", "run it again")
        return RunResult(folder, values)
