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
import math
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from ovos_ray.config import ExperimentConfig, flatten, to_dict
from ovos_ray.config.digest import digest
from ovos_ray.errors import first_line
from ovos_ray.track.records import RunIdentity
from ovos_ray.track.sender import Sender
from ovos_ray.track.servers import remember, resolve_tracking_uri
from ovos_ray.track.spool import Spool
from ovos_ray.track.strategy import strategy_name

__all__ = ["Sink"]

_log = logging.getLogger(__name__)
_SEND_INTERVAL_S = 2.0
_MAX_BACKOFF_S = 30.0
_PATIENCE_WHEN_AWAY_S = 10.0
_PATIENCE_WHEN_LEFT_S = 4.0
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
        self._warned = False
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
            ConfigError: The address of the store holds credentials.
        """
        if not tracking_uri:
            return cls(None)
        identity = RunIdentity(resolve_tracking_uri(tracking_uri), experiment, run_key, name, parent_key)
        sink = cls(Spool(spool, identity))
        remember(identity.tracking_uri)
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
        if self._spool is not None and (place := self._keep(source, name)) is not None:
            self._append("artifact", {"name": name, "place": place})

    def log_model(self, weights: Path | bytes, *, network: str, **settings: Any) -> None:
        """Logs a network as an MLflow model (frames and first mask to masks), the artifact `model`.

        Args:
            weights: Weights as a safetensors or checkpoint file, or the content of a safetensors file.
            network: Name known to `ovos_ray.networks.build`.
            settings: JSON values passed to `ovos_ray.track.model.save_model`.
        """
        file = "network.safetensors" if isinstance(weights, bytes) else weights.name
        if self._spool is not None and (place := self._keep(weights, file)) is not None:
            self._append("model", {"name": "model", "settings": {"network": network, **settings}, "place": place})

    def log_dataset(self, name: str, digest: str, *, source: str, profile: Mapping[str, Any]) -> None:
        """Logs which data the run was trained on, as MLflow's dataset input.

        Args:
            name: Name of the dataset.
            digest: Digest of its content (at most 36 characters are shown).
            source: Where it lies, a folder or bucket URI.
            profile: Counts, such as the label budget.
        """
        scheme = source.partition("://")[0]
        kind = scheme if scheme in ("s3", "gs") else "local"  # names that `mlflow.data.get_source` knows
        data = {"name": name, "digest": digest[:36], "source_type": kind, "source": json.dumps({"uri": source})}
        self._append("dataset", {**data, "profile": json.dumps(profile), "context": "training"})

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

    def flush(self, timeout_s: float = 30.0, *, patience_s: float = math.inf) -> bool:
        """Waits until the server has everything logged so far; returns whether it has.

        Args:
            timeout_s: Waits at most so long.
            patience_s: Waits at most so long for a server that does not answer at all.
        """
        if self._sender is None or not self._thread.is_alive():
            return self._sender is None or self._sender.complete
        began = time.monotonic()
        self._idle.clear()
        self._wake.set()
        while time.monotonic() < began + timeout_s and self._unanswered_s(began) < patience_s:
            if self._idle.wait(0.1):
                if self._sender.complete:
                    return True
                self._stop.wait(0.2)
                self._idle.clear()
                self._wake.set()
        return False

    def _unanswered_s(self, began: float) -> float:
        """For how long since `began` the server has been silent: it is away, or was never reached."""
        assert self._sender is not None
        asked = self._sender.asking_since
        if not self._away and asked is None:
            return 0.0
        return time.monotonic() - max(began, asked or began)

    def finish(self, status: str = "FINISHED", timeout_s: float = 60.0) -> bool:
        """Ends the run (`FINISHED`, `FAILED` or `KILLED`); what is not sent in time stays for `ovos-ray sync`.

        A server that is away is given ten seconds to be back: the next trial waits for these workers.

        Returns:
            Whether the server has everything that was logged.
        """
        if self._spool is None or self._stop.is_set():
            return self._lost == 0
        self._append("status", {"status": status})
        done = self.flush(timeout_s, patience_s=_PATIENCE_WHEN_AWAY_S)
        self._stop.set()
        self._wake.set()
        if done:
            self._thread.join(5.0)  # it lets go of the spool at once, unless a request hangs
        self._lost += self._spool.lost + len(self._spool.take_held())
        with suppress(OSError):
            self._spool.sync()
        self._spool.close()
        if self._lost:
            _log.error("%d tracking records or files of %s are lost: no space", self._lost, self._spool.folder)
        if not done:
            _log.warning("not all tracking records were sent; `ovos-ray sync` sends the rest of %s", self._spool.folder)
        return done and not self._lost

    def close(self) -> None:
        """Lets go of the run without ending it: another process, or a later one, goes on with it.

        A server that answers is given what was logged; one that is away is not waited for.
        """
        if self._spool is None or self._stop.is_set():
            return
        if not self._away:
            self.flush(_PATIENCE_WHEN_LEFT_S, patience_s=_PATIENCE_WHEN_LEFT_S / 2)
        self._stop.set()
        self._wake.set()
        self._thread.join(5.0)
        self._spool.sync()
        self._spool.close()

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
            self._warn_once(f"tracking records wait in memory, the spool cannot be written: {error}")

    def _keep(self, source: Path | bytes, name: str) -> str | None:
        assert self._spool is not None
        try:
            return self._spool.keep(source, name)
        except OSError as error:
            self._lost += 1
            self._warn_once(f"the file {name} is lost to tracking, the spool cannot be written: {error}")
            return None

    def _warn_once(self, message: str) -> None:
        """Training goes on when the spool's disk is full; how much was lost is said at the end."""
        if not self._warned:
            self._warned = True
            _log.error(message)

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
                with suppress(OSError):
                    self._spool.sync()
                with self._spool.locked() as mine:
                    if mine:
                        self._sender.drain()
                if pause > _SEND_INTERVAL_S:
                    _log.warning("the tracking server %s is back", self._spool.identity.tracking_uri)
                pause, self._away = _SEND_INTERVAL_S, False
            except Exception as error:
                if pause == _SEND_INTERVAL_S:
                    _log.warning("tracking is kept on disk for now: %s", first_line(error))
                pause, self._away = min(pause * 2, _MAX_BACKOFF_S), True
            self._idle.set()
