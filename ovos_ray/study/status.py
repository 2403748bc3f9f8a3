"""How a study or a run stands, read from its storage folder alone: while it goes on, after a kill, and afterwards.

Nothing here needs Ray, torch or a tracking server. Steps, curves and times are those of the tracking spool, which lies
in the run's folder; where there is none (`tracking_uri=`, a bucket) the checkpoints say how far a run has come.
"""

from __future__ import annotations

import json
import re
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ovos_ray.errors import ConfigError, OvosError, StorageError
from ovos_ray.lease import LEASE_NAME
from ovos_ray.paths import checked_name
from ovos_ray.storage import Storage, persistently
from ovos_ray.train.run_folder import RunFolder

__all__ = ["PLAN", "Progress", "RunStatus", "StudyStatus", "read_run", "read_study", "write_plan"]

PLAN = "study.json"
"""In a study's folder: which trials it is to have, and what they are compared by."""

_SEGMENT = re.compile(r"member-\d+-generation-\d+")
_METRIC = "final/jf"
_SILENT_S = 300.0
"""Where locks cannot be seen, a run counts as running as long as it has logged something so recently."""


@dataclass(frozen=True)
class Progress:
    """What a run's tracking spool says.

    Attributes:
        curves: By metric (`train/loss`, `val/jf`), (step, value) in order of steps.
        seconds: How long the run has been worked on, in all its launches.
        per_step_s: Seconds a step takes, over the last launch; None before two points are there.
        last_s: Time of the last record, in seconds since the epoch.
    """

    curves: Mapping[str, Sequence[tuple[int, float]]] = field(default_factory=dict)
    seconds: float = 0.0
    per_step_s: float | None = None
    last_s: float = 0.0


@dataclass(frozen=True)
class RunStatus:
    """How one run stands.

    Attributes:
        name: What the study calls it; else the name of its folder.
        state: `finished`, `stopped` (early, by the scheduler), `failed`, `running`, `interrupted` or `waiting`.
        step: Optimiser steps done, as far as it is known.
        steps: Steps it is to make.
        score: `final/…` of a finished run, else the last validation; in percent.
        compared: What the study compares by, None while it is not known: the two above are of different splits.
        progress: Curves and times.
        seconds: How long it was worked on.
        processors: What it holds while it runs: GPUs, or CPUs where it has none.
        unit: `GPU` or `CPU`.
        reason: Why it failed.
    """

    name: str
    state: str
    step: int = 0
    steps: int = 0
    score: float | None = None
    compared: float | None = None
    progress: Progress = Progress()
    seconds: float = 0.0
    processors: float = 0.0
    unit: str = "CPU"
    reason: str = ""

    @property
    def left_s(self) -> float | None:
        """Seconds to its last step at its own speed; None where that is not known."""
        each = self.progress.per_step_s
        return None if each is None or self.state not in ("running", "interrupted") else each * (self.steps - self.step)


@dataclass(frozen=True)
class StudyStatus:
    """How a study stands.

    Attributes:
        name: The study.
        metric: What its trials are compared by.
        runs: Its pretrainings and its trials.
    """

    name: str
    metric: str
    runs: tuple[RunStatus, ...]

    def count(self, state: str) -> int:
        """Returns how many runs are in a state."""
        return sum(run.state == state for run in self.runs)

    @property
    def best(self) -> RunStatus | None:
        """The run that is ahead by what the study compares by; of a population, in the last generation that has it."""
        scored = [run for run in self.runs if run.compared is not None]
        parts = all(_SEGMENT.fullmatch(run.name.replace(" ", "-")) for run in scored)
        return max(scored, key=lambda run: (run.steps if parts else 0, run.compared or 0.0), default=None)

    @property
    def hours(self) -> dict[str, float]:
        """Processor-hours spent so far, by `GPU` and `CPU`."""
        spent: dict[str, float] = {}
        for run in self.runs:
            spent[run.unit] = spent.get(run.unit, 0.0) + run.processors * run.seconds / 3600
        return spent

    @property
    def left_s(self) -> float | None:
        """Seconds until all is done, if as many runs go on at a time as now; None: nothing runs, or nothing is timed.

        What has not begun is taken to need what the others need on average.
        """
        at_a_time = self.count("running")
        each = [run.progress.per_step_s for run in self.runs if run.progress.per_step_s is not None]
        if not at_a_time or not each:
            return None
        mean, steps = statistics.fmean(each), max(run.steps for run in self.runs)
        open_runs = [run for run in self.runs if run.state in ("running", "interrupted", "waiting")]
        left = [(run.progress.per_step_s or mean) * ((run.steps or steps) - run.step) for run in open_runs]
        return max(*left, sum(left) / at_a_time) if len(left) > 1 else sum(left)


def write_plan(storage: Storage, name: str, metric: str, trials: Mapping[str, str], stages: Sequence[str] = ()) -> None:
    """Writes down what a study is to make, so that its state can be told from its folder.

    `trials` are their folders below the study's by name, `stages` the folders of its pretrainings.
    """
    plan = {"name": name, "metric": metric, "trials": dict(trials), "pretrainings": list(stages)}
    storage.write(json.dumps(plan, indent=2).encode(), PLAN)


def read_study(folder: str) -> StudyStatus:
    """Reads how a study stands; a folder that holds one run is a study of this one.

    Raises:
        ConfigError: There is neither.
        DataError: Its plan names a folder that does not lie in it.
    """
    storage = Storage(folder)
    if storage.exists("config.json"):
        return StudyStatus(RunFolder(storage).name, _METRIC, (read_run(storage),))
    plan = _read(storage, PLAN)
    given = plan.get("trials")
    trials: Mapping[str, Any] = given if isinstance(given, dict) else {}
    # A folder without a plan shows whatever is there; a population's plan names its present generation alone.
    others = [one for one in storage.folders() if one not in trials.values() and (not plan or _SEGMENT.fullmatch(one))]
    found = [one for one in others if (storage / one).exists("config.json")]
    if not plan and not found:
        inside = [one for one in storage.folders() if (storage / one).exists(PLAN)]
        example = " or ".join(f"{folder.rstrip('/')}/{one}" for one in inside[:5]) or "runs/backward_strategy"
        raise ConfigError(
            f"{folder} holds no study and no run",
            f"give the folder of one, such as {example}; a run's own holds config.json",
        )
    names = {checked_name(place, "trial's folder", PLAN, nested=True): name for name, place in trials.items()}
    names |= {one: one for one in found}
    metric = str(plan.get("metric", _METRIC))
    listed = plan.get("pretrainings")
    stages = [str(one) for one in listed] if isinstance(listed, list) else []
    # A plan may be a stranger's: it sends nobody to another bucket.
    stages = [one for one in stages if "://" not in one or one.split("/")[:3] == folder.split("/")[:3]]
    runs = [read_run(Storage(one), f"pretraining {RunFolder(Storage(one)).name}") for one in stages]
    runs += [read_run(storage / place, name, metric) for place, name in names.items()]
    return StudyStatus(str(plan.get("name") or RunFolder(storage).name), metric, tuple(runs))


def read_run(storage: Storage, name: str | None = None, metric: str = _METRIC) -> RunStatus:
    """Reads how the run in a folder stands, compared by a metric; one that is not there yet is waiting."""
    name = name or RunFolder(storage).name
    try:
        return _status_of(storage, name, metric) if storage.exists("config.json") else RunStatus(name, "waiting")
    except (OSError, TypeError, ValueError, KeyError, AttributeError, ArithmeticError) as error:
        return RunStatus(name, "failed", reason=f"its files say the impossible ({error})")


def _status_of(storage: Storage, name: str, metric: str) -> RunStatus:
    config = _read(storage, "config.json").get("config", {})
    train, segment = config.get("train", {}), config.get("segment") or {}
    gpus, workers = float(train.get("gpus_per_worker", 0)), float(train.get("num_workers", 1))
    steps = int(segment.get("stop_step", train.get("steps", 0)))
    result, failure = _read(storage, "result.json"), _read(storage, "failure.json")
    progress = _progress(storage)
    logged = max((points[-1][0] for points in progress.curves.values()), default=0)
    if result:
        state = "stopped" if result.get("stopped") else "failed" if "diverged" in result else "finished"
        step = int(result.get("steps", steps))
    else:
        step = max(logged, RunFolder(storage).checkpoints().newest_marked() or 0)
        held = _held(storage)
        silent = held is None and time.time() - progress.last_s > _SILENT_S
        state = "running" if held or (held is None and not silent) else "failed" if failure else "interrupted"
    last = {key.removeprefix("val/"): points[-1][1] for key, points in progress.curves.items() if points}
    reported = _overall(result.get("scores") or {})
    validated = _overall(result.get("validation") or {})
    validated = _overall(last) if validated is None else validated
    compared = validated if metric.startswith("val/") else reported
    reason = f"{failure.get('error', '')}: {failure.get('reason', '')}" if failure else str(result.get("diverged", ""))
    return RunStatus(
        name,
        state,
        step,
        steps,
        validated if reported is None else reported,
        compared,
        progress,
        float(result.get("seconds") or progress.seconds),
        workers * (gpus or float(train.get("cpus_per_worker", 1))),
        "GPU" if gpus else "CPU",
        reason if state == "failed" else "",
    )


def _overall(scores: Mapping[str, Any]) -> float | None:
    return next((float(scores[key]) for key in ("jf", "g") if key in scores), None)


def _read(storage: Storage, name: str) -> dict[str, Any]:
    """Returns what a file of a run holds; nothing where it is absent or damaged, since to look must not fail."""
    try:
        content = json.loads(storage.read(name))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _held(storage: Storage) -> bool | None:
    """Whether a process makes the run: its lock is held, or its lease renewed; None: that cannot be told here."""
    if not storage.local:
        try:
            lease = persistently(storage.folder, lambda: storage.fs.get_file_info(storage.path(LEASE_NAME)))
        except StorageError:
            return None
        return bool(lease.is_file and lease.mtime and time.time() - lease.mtime.timestamp() < 60)
    import fcntl

    try:
        with open(storage.path("lock"), "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    except OSError:
        return None
    return False


_read_before: dict[tuple[str, int], Progress] = {}
"""By spool and its size, what it says: a study that is watched is read again and again."""


def _progress(storage: Storage) -> Progress:
    from ovos_ray.track.spool import find_spools

    root = Path(storage.path("tracking"))
    if not storage.local or not root.is_dir():
        return Progress()
    for spool in find_spools(root)[0]:
        try:
            key = str(spool.records_path), spool.records_path.stat().st_size
            if key not in _read_before:
                _read_before[key] = _read_spool(spool)
        except (OSError, OvosError):
            continue
        return _read_before[key]
    return Progress()


def _read_spool(spool: Any) -> Progress:
    curves: dict[str, dict[int, float]] = {}
    launches: list[list[tuple[float, int]]] = []
    for record in spool.records():
        at_s = record.time_ms / 1000
        if not launches or (record.kind == "status" and record.data["status"] == "RUNNING"):
            launches.append([(at_s, -1)])
        if record.kind != "metrics":
            continue
        step, values = record.data["step"], record.data["values"]
        for name, value in values.items():
            if name == "train/loss" or name.startswith("val/"):
                curves.setdefault(name, {})[step] = float(value)
        launches[-1].append((at_s, step if "train/loss" in values else -1))
    seconds = sum(launch[-1][0] - launch[0][0] for launch in launches)
    trained = [(at_s, step) for at_s, step in launches[-1] if step >= 0] if launches else []
    per_step_s = None
    if len(trained) > 1 and trained[-1][1] > trained[0][1]:
        per_step_s = (trained[-1][0] - trained[0][0]) / (trained[-1][1] - trained[0][1])
    sorted_curves = {name: sorted(points.items()) for name, points in curves.items()}
    return Progress(sorted_curves, seconds, per_step_s, launches[-1][-1][0] if launches else 0.0)
