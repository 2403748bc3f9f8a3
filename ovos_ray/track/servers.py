"""Which tracking servers a user's records may go to, and that no password travels in their addresses.

A spool names the server its records are for, and MLflow adds the user's credentials to whatever it sends there. Spools
may come from others; so they are sent only to servers that this user has chosen: by running something that is tracked
there, by naming it, or by agreeing when asked. The addresses are remembered as `ssh` remembers hosts.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from ovos_ray.errors import ConfigError

__all__ = [
    "is_known",
    "refuse_secrets",
    "remember",
    "require_chosen",
    "require_store",
    "resolve_tracking_uri",
    "without_secrets",
]

_DEFAULT = "sqlite:///mlflow.db"
_USUAL = frozenset({"", "sqlite", "http", "https"})
_IN_A_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # set by Ray for what is submitted
_SECRET = re.compile(r"pass(word|wd)?|pwd|secret|(access_?|api_?|auth_?)?(token|key)", re.IGNORECASE)
_USERINFO = re.compile(r"(?<=//)[^/@]*@")


def resolve_tracking_uri(uri: str) -> str:
    """Returns the URI with the path of an SQLite file made absolute.

    Workers run in other folders than the driver, so a relative path must be resolved where the user typed it.

    Raises:
        ConfigError: It holds credentials.
    """
    refuse_secrets(uri)
    prefix = "sqlite:///"
    if uri.startswith(prefix) and uri != prefix:
        return prefix + os.path.abspath(uri[len(prefix) :])
    return uri


def refuse_secrets(uri: str) -> None:
    """Makes sure that an address of a tracking store can be written down: into checkpoints, spools, logs and reports.

    Raises:
        ConfigError: It holds a password or a token; says where MLflow wants them instead.
    """
    try:
        parts = urlsplit(uri)
        web = parts.scheme in ("http", "https", "")
        secret = parts.password is not None or (web and "@" in parts.netloc)
        secret = secret or any(_SECRET.fullmatch(key) for key, _ in parse_qsl(parts.query, keep_blank_values=True))
    except ValueError as error:
        raise ConfigError(
            f"tracking_uri is not an address ({error})", f"such as {_DEFAULT} or http://HOST:5000"
        ) from error
    if secret:
        raise ConfigError(
            f"tracking_uri = {without_secrets(uri)} holds credentials, which would end in every checkpoint and log",
            "export MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD (or MLFLOW_TRACKING_TOKEN) instead; for a "
            "database, PGPASSWORD or ~/.pgpass",
        )


def require_store(uri: str) -> None:
    """Makes sure that MLflow, or a plugin of it, knows the kind of store that an address names; it is not opened.

    Raises:
        ConfigError: It knows none; says which it knows.
    """
    if urlsplit(uri).scheme in _USUAL:  # MLflow takes seconds to be imported
        return
    from mlflow.tracking._tracking_service.utils import _tracking_store_registry as stores
    from mlflow.tracking.registry import UnsupportedModelRegistryStoreURIException

    try:
        stores.get_store_builder(uri)
    except UnsupportedModelRegistryStoreURIException as error:
        known = ", ".join(f"{scheme}://" for scheme in error.supported_uri_schemes if scheme)
        raise ConfigError(
            f"tracking_uri = {without_secrets(uri)}: MLflow has no store of scheme {urlsplit(uri).scheme!r}",
            f"correct its beginning: MLflow has {known}; such as {_DEFAULT} or http://HOST:5000",
        ) from error


def without_secrets(uri: str) -> str:
    """Returns an address for people: what stands before the host, and after a question mark, is left out."""
    shown, mark, _ = _USERINFO.sub("***@", uri).partition("?")
    return f"{shown}?***" if mark else shown


def is_known(tracking_uri: str) -> bool:
    """Whether this user has chosen a server: it is remembered, MLflow's own setting, or the default store here."""
    chosen = {_DEFAULT, os.environ.get("MLFLOW_TRACKING_URI", _DEFAULT)}
    if _server(tracking_uri) in {_server(resolve_tracking_uri(uri)) for uri in chosen}:
        return True
    try:
        return _server(tracking_uri) in _remembered().read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError, RuntimeError):  # the last where a user has no home, as in some containers
        return False


def require_chosen(tracking_uri: str, source: str) -> None:
    """Makes sure that this user has chosen the store that a file names, or that it is one of the current folder.

    In a job on a cluster the machine that sent it has asked.

    Raises:
        ConfigError: It is another one; says how to choose it.
    """
    here = tracking_uri.startswith("sqlite:///") and not tracking_uri.startswith("sqlite:////")
    if not tracking_uri or (here and ".." not in tracking_uri) or os.environ.get(_IN_A_JOB):
        return
    if not is_known(resolve_tracking_uri(tracking_uri)):
        raise ConfigError(
            f"{source} names the tracking store {without_secrets(tracking_uri)}, where no run of yours was tracked",
            f"add tracking_uri={tracking_uri}, or export MLFLOW_TRACKING_URI={tracking_uri}, if it may have your runs, "
            "and your credentials if you have set any",
        )


def remember(tracking_uri: str) -> None:
    """Notes that this user has chosen a server. Where nothing can be noted, `ovos-ray sync` will ask."""
    if is_known(tracking_uri):
        return
    try:
        path = _remembered()
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(path, "a", encoding="utf-8") as file:
            file.write(f"{_server(tracking_uri)}\n")
    except (OSError, RuntimeError):
        pass


def _server(tracking_uri: str) -> str:
    """Of a web address only where it leads to; of others all of it."""
    parts = urlsplit(tracking_uri)
    return f"{parts.scheme}://{parts.netloc}".lower() if parts.scheme in ("http", "https") else tracking_uri


def _remembered() -> Path:
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "ovos_ray" / "servers"
