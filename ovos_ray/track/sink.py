"""Where a run logs: a call costs microseconds, never fails and never waits; a thread brings it to MLflow.

    sink = Sink.open(uri, "backward_strategy", trial_id, name="2-step seed 0", parent_key=sweep_key, spool=folder)
    sink.log_config(config)
    sink.log_metrics({"train/loss": 0.7}, step=20)
    sink.finish()

A process that opens a run with a key used before continues that run.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from ovos_ray.config import ExperimentConfig, flatten, to_dict
from ovos_ray.config.digest import digest
from ovos_ray.track.sender import Sender, resolve_tracking_uri
from ovos_ray.track.spool import RunIdentity, Spool, find_spools
from ovos_ray.track.strategy import strategy_name

__all__ = ["Sink", "Unsent", "backlog", "sync"]

_log = logging.getLogger(__name__)
_SEND_INTERVAL_S = 2.0
_MAX_BACKOFF_S = 30.0
_PATIENCE_WHEN_AWAY_S = 10.0
_MAX_PARAM_CHARACTERS = 500
"""Older servers cut parameters at 500 characters, newer ones at 6000."""


class Sink:
    """One MLflow run, written through a spool. Make it with `Sink.open`."""

    def __init__(self, spool: Spool | None) -> None:
        self._spool = spool
        self._sender = None if spool is None else Sender(spool)
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._idle = threading.Event()
        self._lost = 0
        self._away = False
        self._thread = threading.Thread(target=self._run, name="ovos-tracking", daemon=True)
        if spool is not None:
            self._thread.start()

    @classmethod
    def open(
        cls,
        tracking_uri: str,
        experiment: str,
        run_key: str,
        *,
        name: str,
        spool: Path,
        tags: Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None,
        parent_key: str | None = None,
    ) -> Sink:
        """Opens a run, new or known; returns at once, whatever the server does.

        Args:
            tracking_uri: MLflow store; relative SQLite paths are taken from the current folder. Empty: nothing is kept.
            experiment: Name of the MLflow experiment.
            run_key: Stable string; the same key in the same experiment continues the same run.
            name: Name shown for a new run.
            spool: Folder for what was not yet sent; best on the run's storage, so that it outlives the machine.
            tags: Tags to set.
            params: Parameters to log.
            parent_key: `run_key` of the run to nest this one under.

        Raises:
            TrackingError: The spool folder cannot be written.
        """
        if not tracking_uri:
            return cls(None)
        identity = RunIdentity(resolve_tracking_uri(tracking_uri), experiment, run_key, name, parent_key)
        sink = cls(Spool(spool, identity))
        sink._append("status", {"status": "RUNNING"})
        sink.set_tags(tags or {})
        sink.log_params(params or {})
        return sink

    def log_metrics(self, values: Mapping[str, float], step: int) -> None:
        """Logs scalars at an optimiser step. A (name, step) that the run already has keeps its first value."""
        self._append("metrics", {"step": int(step), "values": {key: float(value) for key, value in values.items()}})

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Logs parameters; a value above 500 characters is cut into `name`, `name.1` and so on."""
        flat: dict[str, str] = {}
        for key, value in params.items():
            text = value if isinstance(value, str) else json.dumps(value, default=str)
            for start in range(0, max(len(text), 1), _MAX_PARAM_CHARACTERS):
                part = start // _MAX_PARAM_CHARACTERS
                flat[f"{key}.{part}" if part else key] = text[start : start + _MAX_PARAM_CHARACTERS]
        if flat:
            self._append("params", flat)

    def log_config(self, config: ExperimentConfig) -> None:
        """Logs the configuration: whole as `config.json`, flat as parameters; digest, seed and strategy as tags."""
        self.log_artifact(json.dumps(to_dict(config), indent=2).encode(), "config.json")
        self.log_params(flatten(config))
        method = config.method
        strategy = strategy_name(method.name, method.reference, method.backward)
        self.set_tags({"ovos.digest": digest(config), "ovos.seed": config.seed, "ovos.strategy": strategy})

    def log_artifact(self, source: Path | bytes, name: str) -> None:
        """Logs a file, a folder or bytes as the artifact `name` (such as `figures/loss.png`); the source may go.

        The last part of `name` is the file's name in the store.
        """
        if self._spool is not None:
            try:
                self._append("artifact", {"name": name, "place": self._spool.keep(source, name)})
            except OSError as error:
                self._lose(error)

    def log_model(self, weights: Path | bytes, *, network: str, name: str = "model", **settings: Any) -> None:
        """Logs a network as an MLflow model (frames and first mask to masks).

        Args:
            weights: Weights as a safetensors or checkpoint file, or the content of a safetensors file.
            network: Name known to `ovos_ray.networks.build`.
            name: Artifact folder.
            settings: JSON values passed to `ovos_ray.track.model.save_model`.
        """
        if self._spool is not None:
            try:
                data = {"name": name, "settings": {"network": network, **settings}}
                file = "network.safetensors" if isinstance(weights, bytes) else weights.name
                self._append("model", {**data, "place": self._spool.keep(weights, file)})
            except OSError as error:
                self._lose(error)

    def log_dataset(
        self,
        name: str,
        digest: str,
        *,
        source: str,
        context: str = "training",
        profile: Mapping[str, Any] | None = None,
    ) -> None:
        """Logs which data the run used, as MLflow's dataset input.

        Args:
            name: Name of the dataset.
            digest: Digest of its content (at most 36 characters are shown).
            source: Where it lies, a folder or bucket URI.
            context: `training`, `selection` or `test`.
            profile: Counts, such as the label budget.
        """
        scheme = source.partition("://")[0]
        kind = scheme if scheme in ("s3", "gs") else "local"  # names that `mlflow.data.get_source` knows
        data = {"name": name, "digest": digest[:36], "source_type": kind, "source": json.dumps({"uri": source})}
        self._append("dataset", {**data, "profile": json.dumps(profile or {}), "context": context})

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Sets tags; later values win."""
        if tags:
            self._append("tags", {key: str(value) for key, value in tags.items()})

    @property
    def run_id(self) -> str | None:
        """The MLflow run id, once the server was reached."""
        return None if self._sender is None else self._sender.run_id

    @property
    def spool_folder(self) -> Path | None:
        """Where the run's records lie; None where nothing is kept."""
        return None if self._spool is None else self._spool.folder

    def flush(self, timeout_s: float = 30.0) -> bool:
        """Waits until the server has everything logged so far, at most `timeout_s`; returns whether it has."""
        if self._sender is None or not self._thread.is_alive():
            return True
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            self._idle.clear()
            self._wake.set()
            if self._idle.wait(max(0.0, deadline - time.monotonic())) and self._sender.complete:
                return True
            self._stop.wait(0.2)
        return False

    def finish(self, status: str = "FINISHED", timeout_s: float = 60.0) -> bool:
        """Ends the run (`FINISHED`, `FAILED` or `KILLED`); what is not sent in time stays for `ovos-ray sync`.

        A server that was away already is given ten seconds to be back: the next trial waits for these workers.

        Returns:
            Whether the server has everything.
        """
        if self._spool is None or self._stop.is_set():
            return True
        self._append("status", {"status": status})
        done = self.flush(min(timeout_s, _PATIENCE_WHEN_AWAY_S) if self._away else timeout_s)
        self._stop.set()
        self._wake.set()
        if done:
            self._thread.join(5.0)  # it lets go of the spool at once, unless a request hangs
        self._spool.sync()
        self._spool.close()
        if not done:
            _log.warning("not all tracking records were sent; `ovos-ray sync` sends the rest of %s", self._spool.folder)
        return done

    def __enter__(self) -> Sink:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.finish()
        else:
            self.finish("FAILED" if issubclass(kind, Exception) else "KILLED")

    def _append(self, kind: str, data: Mapping[str, Any]) -> None:
        if self._spool is None:
            return
        try:
            self._spool.append(kind, data)
        except OSError as error:
            self._lose(error)

    def _lose(self, error: OSError) -> None:
        """Training goes on when the spool's disk is full; the first loss is reported, all are counted."""
        self._lost += 1
        if self._lost == 1:
            _log.error("tracking records are being lost, the spool cannot be written: %s", error)

    def _run(self) -> None:
        """The sending thread: every interval, with growing pauses while the server is away."""
        assert self._spool is not None
        assert self._sender is not None
        pause = _SEND_INTERVAL_S
        while not self._stop.is_set():
            self._wake.wait(pause)
            self._wake.clear()
            if self._stop.is_set():
                return
            try:
                self._spool.sync()
                with self._spool.locked() as mine:
                    if mine:
                        self._sender.drain()
                if pause > _SEND_INTERVAL_S:
                    _log.warning("the tracking server %s is back", self._spool.identity.tracking_uri)
                pause, self._away = _SEND_INTERVAL_S, False
            except Exception as error:
                if pause == _SEND_INTERVAL_S:
                    reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
                    _log.warning("tracking is kept on disk for now: %s", reason)
                pause, self._away = min(pause * 2, _MAX_BACKOFF_S), True
            self._idle.set()


@dataclass(frozen=True)
class Unsent:
    """What `sync` could not send of one run."""

    run_key: str
    experiment: str
    tracking_uri: str
    num_records: int
    reason: str

    def __str__(self) -> str:
        left = f"{self.num_records} records" if self.num_records else "the link to the sweep"
        return f"{self.experiment}, {self.run_key}: {left} not sent to {self.tracking_uri}: {self.reason}"


def backlog(spool: Path) -> list[Unsent]:
    """Returns the runs under `spool` with records that no server has confirmed yet; sends nothing."""
    return [_unsent(one, "waiting") for one in find_spools(spool) if not Sender(one).complete]


def sync(spool: Path) -> list[Unsent]:
    """Sends what is left in the spools under `spool`, runs in use by a living process excepted.

    Args:
        spool: The folder given to `Sink.open`.

    Returns:
        One entry for each run that is still incomplete on its server, with the reason.
    """
    unsent = []
    for one in find_spools(spool):
        reason = ""
        with one.locked() as mine:
            sender = Sender(one)
            if sender.complete:
                continue
            if not mine:
                reason = "in use by a running process, which sends it itself"
            else:
                try:
                    sender.drain()
                    reason = "" if sender.complete else f"its parent run {one.identity.parent_key} is not there yet"
                except Exception as error:
                    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if reason:
            unsent.append(_unsent(one, reason))
    return unsent


def _unsent(spool: Spool, reason: str) -> Unsent:
    number = sum(1 for _ in spool.records(spool.sent["offset"]))
    identity = spool.identity
    return Unsent(identity.run_key, identity.experiment, identity.tracking_uri, number, reason)
