"""A new SQLite store of MLflow appears whole or not at all.

MLflow makes its tables one after the other, which takes seconds. A process that is killed meanwhile, or a second one
that begins at the same time, would leave a file that no process can open any more.
"""

from __future__ import annotations

import os
import uuid
from pathlib import Path

__all__ = ["ensure_sqlite_store", "sqlite_file"]

_PREFIX = "sqlite:///"


def sqlite_file(tracking_uri: str) -> Path | None:
    """Returns the file of an SQLite tracking store, or None for other stores and for one in memory."""
    if not tracking_uri.startswith(_PREFIX) or tracking_uri in (_PREFIX, f"{_PREFIX}:memory:"):
        return None
    return Path(tracking_uri.removeprefix(_PREFIX))


def ensure_sqlite_store(tracking_uri: str) -> None:
    """Makes the store beside its place and moves it there, unless there is one already; others are left alone."""
    path = sqlite_file(tracking_uri)
    if path is None or path.exists():
        return
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.new")
    try:
        store = SqlAlchemyStore(f"{_PREFIX}{unfinished}", str(path.parent / "mlruns"))
        store.engine.dispose()
        _place(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def _place(unfinished: Path, path: Path) -> None:
    """Gives a file its name, unless somebody was faster."""
    try:
        os.link(unfinished, path)
    except FileExistsError:
        pass
    except OSError:  # no hard links on this disk
        if not path.exists():
            unfinished.replace(path)
