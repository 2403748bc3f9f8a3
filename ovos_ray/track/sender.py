"""Delivers a spool to an MLflow server, each point once, however often the connection fails.

Before anything is sent to a run that this process did not just create, and again after every failed request, the
server is asked for the points it has; a (metric, step) that is there is not sent again. What the server did receive of
a request whose answer was lost is recognised the same way.
"""

from __future__ import annotations

import logging
import math
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ovos_ray.errors import OvosError
from ovos_ray.track.records import Record
from ovos_ray.track.servers import refuse_secrets
from ovos_ray.track.spool import Spool
from ovos_ray.track.sqlite_store import ensure_sqlite_store, sqlite_file

__all__ = ["Sender", "connect", "find_run", "open_experiment", "run_of"]

_log = logging.getLogger(__name__)
_MAX_PARAMS = 100
_MAX_METRICS = 500
_EXPERIMENT_TAGS = {
    # MLflow's pages then open with runs and charts instead of traces, and sort by this metric.
    "mlflow.experimentKind": "custom_model_development",
    "mlflow.experiment.primaryMetric.name": "final/jf",
    "mlflow.experiment.primaryMetric.greaterIsBetter": "True",
}
_MEASURED = frozenset({"train/clips_per_s", "train/data_wait", "train/gpu_memory_gib"})
# Answers that will be the same next time. Everything else (connections, 5xx, permissions) is tried again.
_FINAL_ERRORS = ("INVALID_PARAMETER_VALUE", "RESOURCE_ALREADY_EXISTS", "BAD_REQUEST")


def connect(tracking_uri: str) -> Any:
    """Returns an `MlflowClient` that gives up on a silent server soon, leaving repetition to the spool.

    The waiting times can be set by MLflow's own environment variables.

    Raises:
        ConfigError: The address holds credentials.
    """
    refuse_secrets(tracking_uri)
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    # Else every run that ends prints two addresses between the lines of progress.
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    from mlflow import MlflowClient

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    ensure_sqlite_store(tracking_uri)
    return MlflowClient(tracking_uri=tracking_uri)


def open_experiment(client: Any, tracking_uri: str, name: str) -> str:
    """Returns the id of the experiment, created if need be.

    Beside an SQLite file the artifacts go into the folder `mlruns` next to it; by MLflow's default they would land in
    whatever folder the process runs in.
    """
    from mlflow.exceptions import MlflowException

    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        location = None
        if (database := sqlite_file(tracking_uri)) is not None:
            location = (database.parent / "mlruns" / name.replace("/", "-")).resolve().as_uri()
        try:
            return str(client.create_experiment(name, artifact_location=location, tags=_EXPERIMENT_TAGS))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            experiment = client.get_experiment_by_name(name)
    return str(experiment.experiment_id)


def find_run(client: Any, experiment_id: str, run_key: str) -> str | None:
    """Returns the id of the run with this key, the oldest if a lost answer ever made two, or None."""
    quote = '"' if "'" in run_key else "'"
    runs = client.search_runs(
        [experiment_id],
        f"tags.`ovos.run_key` = {quote}{run_key}{quote}",
        order_by=["attributes.start_time ASC"],
        max_results=1,
    )
    return str(runs[0].info.run_id) if runs else None


def run_of(tracking_uri: str, run_id: str | None) -> tuple[str, str] | None:
    """Returns the experiment and the key of a run by its id; None where the id is not known.

    Raises:
        Exception: Whatever MLflow raises where the server does not answer or has no such run.
    """
    if run_id is None:
        return None
    client = connect(tracking_uri)
    run = client.get_run(run_id)
    return str(client.get_experiment(run.info.experiment_id).name), str(run.data.tags["ovos.run_key"])


class Sender:
    """Sends one spool."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._client: Any = None
        self._experiment_id = ""
        self._state = spool.sent
        self._has_begun = False
        self._known: dict[str, dict[int, float]] = {}
        self._created_here = False
        self.asking_since: float | None = None
        """When the server was first spoken to, as `time.monotonic`, while its answer is awaited."""

    @property
    def run_id(self) -> str | None:
        """The MLflow run, once the server was reached."""
        run_id: str | None = self._state["run_id"]
        return run_id

    @property
    def complete(self) -> bool:
        """Whether the server has confirmed every record, and the link to the parent run."""
        state = self._furthest()
        waiting = self._spool.num_held or any(True for _ in self._spool.records(state["offset"]))
        return not waiting and bool(state["linked"])

    def drain(self) -> None:
        """Sends all records there are.

        Raises:
            Exception: Whatever the connection failed with; call again later, nothing is lost or doubled.
        """
        if not self._has_begun:  # who had the spool before may have sent more, or begun anew since
            self._state, self._has_begun = self._spool.sent, True
        if (state := self._furthest()) is not self._state:
            self._state, self._created_here = state, False
            self._known.clear()
        try:
            self._connect()
            for batch in _batches(self._spool.records(self._state["offset"])):
                self._deliver(batch)
                self._confirm(offset=batch[-1].end)
                if batch[0].kind in ("artifact", "model"):
                    self._spool.release(batch[0].data["place"])
            self._send_held()
            self._link()
        except Exception:
            # An unanswered request may or may not have been carried out: ask before sending more.
            self._known.clear()
            self._created_here = False
            self._client = None
            raise
        finally:
            self.asking_since = None

    def _furthest(self) -> dict[str, Any]:
        """Returns how far the server confirmed, to this process or another one that has the spool too.

        The process of a trial that was ended may send for another moment while the study writes down its end. To send
        anything twice would let the run begin again after that.
        """
        mine, told = self._state, self._spool.sent
        further = told["offset"] > mine["offset"] and mine["run_id"] in (None, told["run_id"])
        return told if further else mine

    def _send_held(self) -> None:
        """Sends what a full disk could not take straight from memory."""
        lines = self._spool.take_held()
        try:
            for batch in _batches(map(Record.parse, lines)):
                self._deliver(batch)
        except Exception:
            self._spool.give_back(lines)
            raise

    def _confirm(self, **changes: Any) -> None:
        self._state = {**self._state, **changes}
        try:
            self._spool.confirm(self._state)
        except OSError as error:  # a full disk: a later process will ask the server what it has
            _log.debug("not noted what the server has: %s", error)

    def _connect(self) -> None:
        if self._client is None:
            client = connect(self._spool.identity.tracking_uri)
            self.asking_since = time.monotonic()
            identity = self._spool.identity
            self._experiment_id = open_experiment(client, identity.tracking_uri, identity.experiment)
            run_id = find_run(client, self._experiment_id, identity.run_key)
            if run_id is None:
                # The run began when its first record was written, however late the server hears of it.
                began = next((record.time_ms for record in self._spool.records()), None)
                tags = {"ovos.run_key": identity.run_key}
                run = client.create_run(self._experiment_id, began, run_name=identity.name, tags=tags)
                run_id = run.info.run_id
                self._created_here = True
                if self._state["run_id"] is not None:
                    _log.warning("the tracking server lost the run %s: sending all of it again", identity.run_key)
                    self._confirm(offset=0, linked=identity.parent_key is None)
            if run_id != self._state["run_id"]:
                self._confirm(run_id=run_id)
            self._client = client
            self.asking_since = None

    def _link(self) -> None:
        """Nests the run under its parent as soon as the parent's own process has made it known."""
        parent_key = self._spool.identity.parent_key
        if self._state["linked"] or parent_key is None:
            return
        parent = find_run(self._client, self._experiment_id, parent_key)
        if parent is not None:
            self._client.set_tag(self.run_id, "mlflow.parentRunId", parent)
            self._confirm(linked=True)

    def _deliver(self, batch: list[Record]) -> None:
        from mlflow.exceptions import MlflowException

        try:
            getattr(self, f"_send_{batch[0].kind}")(batch)
        except (MlflowException, OvosError, ValueError, TypeError, KeyError, OverflowError) as error:
            # What cannot be put into a request, now or later, must not hold up what comes after it.
            lasting = error.error_code in _FINAL_ERRORS if isinstance(error, MlflowException) else True
            if not lasting or isinstance(error, OSError):  # as some errors of connections are
                raise
            if len(batch) == 1:
                self._spool.reject(batch[0], str(error))
                return
            for record in batch:
                self._deliver([record])

    def _send_metrics(self, batch: list[Record]) -> None:
        from mlflow.entities import Metric

        points: list[Any] = []
        repeated = 0
        fresh: dict[tuple[str, int], float] = {}
        for record in batch:
            step = record.data["step"]
            for key, value in record.data["values"].items():
                earlier = self._points_of(key).get(step, fresh.get((key, step)))
                if earlier is None:
                    fresh[key, step] = value
                    points.append(Metric(key, value, record.time_ms, step))
                elif not (earlier == value or (math.isnan(earlier) and math.isnan(value)) or _is_measured(key)):
                    repeated += 1
        if points:
            self._client.log_batch(self.run_id, metrics=points)
        for (key, step), value in fresh.items():
            self._known[key][step] = value
        if repeated:
            # Same step, other value: a resumed run that was not deterministic (other worker count, other machine).
            self._confirm(repeated=self._state["repeated"] + repeated)
            self._client.set_tag(self.run_id, "ovos.points_that_differ_after_resume", str(self._state["repeated"]))

    def _points_of(self, key: str) -> dict[int, float]:
        if key not in self._known:
            history = [] if self._created_here else self._client.get_metric_history(self.run_id, key)
            self._known[key] = {metric.step: metric.value for metric in history}
        return self._known[key]

    def _send_params(self, batch: list[Record]) -> None:
        from mlflow.entities import Param

        there = self._client.get_run(self.run_id).data.params
        values = {key: value for record in batch for key, value in record.data.items()}
        new = [Param(key, value) for key, value in values.items() if key not in there]
        for start in range(0, len(new), _MAX_PARAMS):
            self._client.log_batch(self.run_id, params=new[start : start + _MAX_PARAMS])
        for key, value in values.items():
            # MLflow's parameters cannot change; a resumed run with another value says so in a tag.
            if there.get(key, value) != value:
                self._client.set_tag(self.run_id, f"ovos.changed.{key}", value)

    def _send_tags(self, batch: list[Record]) -> None:
        from mlflow.entities import RunTag

        tags = [RunTag(key, value) for key, value in {k: v for r in batch for k, v in r.data.items()}.items()]
        for start in range(0, len(tags), _MAX_PARAMS):
            self._client.log_batch(self.run_id, tags=tags[start : start + _MAX_PARAMS])

    def _send_dataset(self, batch: list[Record]) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        data = dict(batch[0].data)
        context = InputTag("mlflow.data.context", data.pop("context"))
        self._client.log_inputs(self.run_id, datasets=[DatasetInput(Dataset(**data), [context])])

    def _send_artifact(self, batch: list[Record]) -> None:
        name = batch[0].data["name"]
        path = self._spool.kept(batch[0].data["place"])
        folder = str(Path(name).parent)
        if path.is_dir():
            self._client.log_artifacts(self.run_id, str(path), name)
        elif path.exists():
            self._client.log_artifact(self.run_id, str(path), None if folder == "." else folder)
        else:
            _log.warning("artifact %s of %s was sent before, its copy is gone", name, self._spool.identity.run_key)

    def _send_model(self, batch: list[Record]) -> None:
        from ovos_ray.track.model import save_model

        data = batch[0].data
        with tempfile.TemporaryDirectory(prefix="ovos-model-") as folder:
            save_model(Path(folder) / "model", self._spool.kept(data["place"]), **data["settings"])
            self._client.log_artifacts(self.run_id, str(Path(folder) / "model"), data["name"])

    def _send_status(self, batch: list[Record]) -> None:
        status = batch[0].data["status"]
        if status == "RUNNING":
            self._client.update_run(self.run_id, status=status)
        else:
            self._client.set_terminated(self.run_id, status=status, end_time=batch[0].time_ms)


def _is_measured(key: str) -> bool:
    """Whether a metric tells of the machine, so that it differs whenever steps are repeated."""
    return key.startswith("system/") or key in _MEASURED


def _batches(records: Iterator[Record]) -> Iterator[list[Record]]:
    """Groups consecutive metrics, parameters or tags up to what one request may carry; all else goes one by one."""
    batch: list[Record] = []
    size = 0
    for record in records:
        weight = len(record.data["values"]) if record.kind == "metrics" else 1
        joins = batch and record.kind == batch[0].kind and record.kind in ("metrics", "params", "tags")
        if batch and not (joins and size + weight <= _MAX_METRICS):
            yield batch
            batch, size = [], 0
        batch.append(record)
        size += weight
    if batch:
        yield batch
