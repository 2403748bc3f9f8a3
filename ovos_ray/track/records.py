"""What a spool holds: which run it belongs to, and records. Both are checked when they are read.

A spool may come from another machine, and from a stranger: whatever is in it is data. What does not have the form in
which a sink writes it is passed over, and its files are looked for nowhere but in the spool.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ovos_ray.errors import OvosError, TrackingError, first_line
from ovos_ray.paths import checked_name
from ovos_ray.track.servers import refuse_secrets

__all__ = ["STATUSES", "Record", "RunIdentity"]

STATUSES = ("RUNNING", "FINISHED", "FAILED", "KILLED")
_MAX_IDENTITY_BYTES = 1 << 16
_INT64 = 1 << 63
_PLACE = re.compile(r"[0-9a-f]{1,32}-[0-9]{1,9}")


@dataclass(frozen=True)
class RunIdentity:
    """Which MLflow run a spool belongs to.

    Attributes:
        tracking_uri: The MLflow store, absolute.
        experiment: Name of the MLflow experiment (the study).
        run_key: What finds the run again, in every later process; unique within the experiment.
        name: The name shown for the run.
        parent_key: `run_key` of the parent run (the sweep), or None.
    """

    tracking_uri: str
    experiment: str
    run_key: str
    name: str
    parent_key: str | None = None

    @classmethod
    def read(cls, path: Path) -> RunIdentity:
        """Reads `run.json` of a spool.

        Raises:
            TrackingError: It is damaged, or none that a sink would write.
            ConfigError: Its server's address holds a password.
        """
        try:
            if path.is_symlink() or path.stat().st_size > _MAX_IDENTITY_BYTES:
                raise ValueError("a link, or too large")
            given = json.loads(path.read_bytes())
            if not isinstance(given, dict) or given.keys() - {field.name for field in fields(cls)}:
                raise ValueError("not the keys of a run")
            identity = cls(**given)
            for field in fields(cls):
                value = getattr(identity, field.name)
                if not (isinstance(value, str) or (field.name == "parent_key" and value is None)):
                    raise ValueError(f"{field.name} is not text")
                if value is not None and (not value.strip() or len(value) > 2000 or not value.isprintable()):
                    raise ValueError(f"{field.name} is empty, too long, or holds control characters")
            if identity.experiment.replace("/", "-").strip(".") == "":
                raise ValueError("the experiment's name leads to another folder")
        except (OSError, ValueError, TypeError, RecursionError) as error:
            raise TrackingError(
                f"{path} does not say which run its records belong to ({error})",
                "remove this folder, or bring run.json back; its records cannot be sent without it",
            ) from error
        refuse_secrets(identity.tracking_uri)
        return identity


@dataclass(frozen=True)
class Record:
    """One line of the spool.

    Attributes:
        kind: `metrics`, `params`, `tags`, `artifact`, `dataset`, `model` or `status`.
        time_ms: When it was logged, in milliseconds since the epoch. Resending keeps it, so that the store knows a
            repeated point.
        data: What the kind needs.
        end: Byte position after this record; -1 for one that never reached the disk.
    """

    kind: str
    time_ms: int
    data: dict[str, Any]
    end: int

    @classmethod
    def parse(cls, line: bytes, end: int = -1) -> Record:
        """Reads one line.

        Raises:
            ValueError: It is none that a sink would write; says why.
        """
        try:
            given = json.loads(line)
            if not isinstance(given, dict) or given.keys() != {"kind", "time_ms", "data"}:
                raise ValueError("not the keys of a record")
            kind, time_ms, data = given["kind"], given["time_ms"], given["data"]
            if not isinstance(kind, str) or kind not in _CHECKS:
                raise ValueError("an unknown kind of record")
            if not (_is_whole(time_ms) and time_ms >= 0 and isinstance(data, dict)):
                raise ValueError("no time, or no data")
            _CHECKS[kind](data)
        except (ValueError, OvosError, RecursionError, OverflowError) as error:
            raise ValueError(first_line(error)) from error
        return cls(kind, time_ms, data, end)


def _is_whole(value: object) -> bool:
    return type(value) is int and -_INT64 <= value < _INT64


def _check_text(value: object) -> None:
    if not isinstance(value, str) or "\0" in value:
        raise ValueError("no text")
    value.encode()  # halves of characters cannot be sent


def _check_texts(data: Mapping[str, Any]) -> None:
    for key, value in data.items():
        _check_text(key)
        _check_text(value)


def _check_keys(data: Mapping[str, Any], *keys: str) -> None:
    if data.keys() != set(keys):
        raise ValueError(f"not the keys {', '.join(keys)}")


def _check_metrics(data: Mapping[str, Any]) -> None:
    _check_keys(data, "step", "values")
    if not _is_whole(data["step"]) or not isinstance(data["values"], dict):
        raise ValueError("no step, or no values")
    for key, value in data["values"].items():
        _check_text(key)
        if type(value) not in (int, float):
            raise ValueError("a value that is not a number")
        float(value)


def _check_status(data: Mapping[str, Any]) -> None:
    _check_keys(data, "status")
    if data["status"] not in STATUSES:
        raise ValueError("an unknown status")


def _check_dataset(data: Mapping[str, Any]) -> None:
    _check_keys(data, "name", "digest", "source_type", "source", "profile", "context")
    _check_texts(data)


def _check_place(place: object) -> None:
    _check_text(place)
    folder, _, name = str(place).partition("/")
    if not _PLACE.fullmatch(folder):
        raise ValueError("no place in the spool")
    checked_name(name, "file", "records.jsonl")


def _check_artifact(data: Mapping[str, Any]) -> None:
    _check_keys(data, "name", "place")
    checked_name(data["name"], "artifact", "records.jsonl", nested=True)
    _check_place(data["place"])


def _check_model(data: Mapping[str, Any]) -> None:
    _check_keys(data, "name", "settings", "place")
    checked_name(data["name"], "model", "records.jsonl", nested=True)
    _check_place(data["place"])
    if not isinstance(data["settings"], dict):
        raise ValueError("no settings")
    _check_text(data["settings"].get("network"))


_CHECKS: dict[str, Callable[[Mapping[str, Any]], None]] = {
    "artifact": _check_artifact,
    "dataset": _check_dataset,
    "metrics": _check_metrics,
    "model": _check_model,
    "params": _check_texts,
    "status": _check_status,
    "tags": _check_texts,
}
