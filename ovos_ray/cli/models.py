"""`models`: the official weights by name."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Column, Table

from ovos_ray.cli.console import console, progress_bar
from ovos_ray.errors import ConfigError

__all__ = ["fetched", "models"]

EXAMPLE = "ovos-ray models cutie-base-mega --fetch"


def fetched(checkpoint: Path) -> Path:
    """Returns a file or folder as it is, and the file of official weights, fetched behind a bar, for their name."""
    from ovos_ray.networks import published

    model = published.PUBLISHED.get(str(checkpoint))
    if model is None or checkpoint.exists():
        return checkpoint
    with progress_bar() as bar:
        task = bar.add_task(f"fetching {model.file} (bytes)", total=None)
        return published.fetch(str(checkpoint), lambda done, total: bar.update(task, completed=done, total=total))


def models(
    name: Annotated[str | None, typer.Argument(help="One of them: shows all that is known of it.")] = None,
    fetch: Annotated[bool, typer.Option("--fetch", help="Fetch it now, and print where it lies.")] = False,
) -> None:
    """Lists the official weights that `--checkpoint NAME` takes, or fetches some."""
    from ovos_ray.networks import published

    folder = published.models_folder()
    if name is not None and name not in published.PUBLISHED:
        raise ConfigError(f"no published model {name!r}", f"there are {', '.join(published.PUBLISHED)}")
    if fetch:
        if name is None:
            raise ConfigError("--fetch needs a name", f"one of {', '.join(published.PUBLISHED)}")
        console.print(str(fetched(Path(name))))
        return
    if name is None:
        names = Column("name", no_wrap=True)  # they are to be typed
        table = Table(names, "network", "MB", "trained with", "published J&F", "here", title_justify="left")
        for key, model in published.PUBLISHED.items():
            here = "yes" if (folder / model.file).is_file() else "by hand" if model.url is None else ""
            table.add_row(key, model.network, f"{model.megabytes}", model.training, model.scores or "–", here)
        console.print(table)
        console.print(f"they lie in {folder} (OVOS_MODELS names another folder)")
        console.print("ours: any run folder, or what `ovos-ray export` made of it")
        return
    model = published.PUBLISHED[name]
    pin = folder / f"{model.file}.sha256"
    unknown = "unknown: printed here after the first download, and pinned then (kept beside the file)"
    kept = (
        f"{pin.read_text(encoding='utf-8').split()[0]} (of the file that was first seen here)" if pin.is_file() else ""
    )
    for key, value in {
        "network": model.network,
        "file": str(folder / model.file) + ("" if (folder / model.file).is_file() else " (not there yet)"),
        "address": model.url or f"by hand, from {model.page}",
        "size": f"about {model.megabytes} MB",
        "SHA-256": model.sha256 or kept or unknown,
        "MD5": model.md5 or "unknown",
        "licence": model.licence or f"see {model.page}",
        "trained with": f"{model.training}; fully supervised",
        "published J&F": model.scores or "not known to us",
    }.items():
        console.print(f"{key:14} {value}")
