"""Where a run comes from: the tags by which runs are filtered and traced back to code, data and machine."""

from __future__ import annotations

import functools
import json
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

__all__ = ["code_versions", "git_environment", "provenance_tags"]

_ROOT = Path(__file__).resolve().parents[2]
_PACKAGES = ("ovos-ray", "torch", "ray", "mlflow", "numpy")


def provenance_tags(*, kind: str) -> dict[str, str]:
    """Returns the tags that say where a run comes from.

    A Ray job's working directory has no history: `OVOS_GIT_COMMIT` and `OVOS_GIT_DIRTY`, where set, come first.

    Args:
        kind: `sweep`, `trial`, `baseline` or `pretraining`: what the report treats the run as.
    """
    commit, dirty = _git(_ROOT)
    tags = {
        "ovos.kind": kind,
        "ovos.git_commit": commit,
        "ovos.git_dirty": dirty,
        "mlflow.source.git.commit": commit,
        "ovos.host": platform.node(),
        "ovos.python": platform.python_version(),
        "ovos.ray_job_id": _submission_id(),
    }
    tags.update({f"ovos.version.{name}": _version(name) for name in _PACKAGES})
    return {key: value for key, value in tags.items() if value}


@functools.cache
def code_versions() -> dict[str, str]:
    """Returns commit and versions of what this process runs, as they are kept in every checkpoint."""
    commit, dirty = _git(_ROOT)
    versions = {"python": platform.python_version(), **{name: _version(name) for name in _PACKAGES}}
    found = {"commit": f"{commit} with changes" if dirty == "true" else commit, **versions}
    return {name: version for name, version in found.items() if version}


def git_environment(root: Path) -> dict[str, str]:
    """Returns the variables that carry commit and state of the driver's checkout to workers without history."""
    commit, dirty = _git(root)
    return {key: value for key, value in (("OVOS_GIT_COMMIT", commit), ("OVOS_GIT_DIRTY", dirty)) if value}


def _submission_id() -> str | None:
    """Returns the name under which `ray job logs` finds this process, if it is a submitted job's."""
    submitted = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}"))
    found: str | None = submitted.get("metadata", {}).get("job_submission_id")
    return found


def _git(root: Path) -> tuple[str | None, str | None]:
    if "OVOS_GIT_COMMIT" in os.environ:
        return os.environ["OVOS_GIT_COMMIT"], os.environ.get("OVOS_GIT_DIRTY")
    commit = _output(["git", "-C", str(root), "rev-parse", "HEAD"])
    if commit is None:
        return None, None
    changes = _output(["git", "-C", str(root), "status", "--porcelain", "--untracked-files=no"])
    return commit, None if changes is None else str(bool(changes)).lower()


def _output(command: list[str]) -> str | None:
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
