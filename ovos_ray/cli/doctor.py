"""`doctor`: one line per thing a run depends on, and what to do about those that are missing."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

from rich.markup import escape

from ovos_ray.cli.console import console
from ovos_ray.errors import OvosError
from ovos_ray.io import Storage

__all__ = ["examine"]

_REQUIRED = ("torch", "torchvision", "ray", "mlflow", "pyarrow", "numpy", "opencv-python-headless", "pillow")
_OPTIONAL = {"av": "video files", "matplotlib": "reports", "scipy": "reports"}
_JOB_PACKAGE_MIB = 100


def examine(shards: tuple[Path, ...], storage: str, tracking_uri: str) -> bool:
    """Prints what is there and what is not; returns whether nothing that was asked for is missing."""
    checks: list[tuple[str, Callable[[], Iterator[str]]]] = [
        ("packages", _packages),
        ("this machine", _machine),
        ("cluster", _cluster),
        *((f"shards {folder}", lambda folder=folder: _shards(folder)) for folder in shards),
        (f"storage {storage}", lambda: _storage(storage)),
        (f"tracking {tracking_uri}", lambda: _tracking(tracking_uri)),
        ("job package", _job_package),
    ]
    healthy = True
    for title, check in checks:
        try:
            findings = list(check())
        except Exception as error:
            healthy = False
            what = error.message if isinstance(error, OvosError) else f"{type(error).__name__}: {error}"
            console.print(f"[red]✗[/] {escape(title)}: {escape(what)}", soft_wrap=True)
            if isinstance(error, OvosError) and error.remedy:
                console.print(f"    what to do: {escape(error.remedy)}", soft_wrap=True)
            continue
        console.print(f"[green]✓[/] {escape(title)}: {escape('; '.join(findings))}", highlight=False, soft_wrap=True)
    return healthy


def _packages() -> Iterator[str]:
    missing = []
    for name in _REQUIRED:
        try:
            yield f"{name} {metadata.version(name)}"
        except metadata.PackageNotFoundError:
            missing.append(name)
    for name, purpose in _OPTIONAL.items():
        try:
            metadata.version(name)
        except metadata.PackageNotFoundError:
            yield f"without {name} ({purpose})"
    if missing:
        raise OvosError(f"not installed: {', '.join(missing)}", "pip install ovos-ray")


def _machine() -> Iterator[str]:
    import torch

    yield f"Python {sys.version.split()[0]}"
    yield f"{os.cpu_count()} CPUs"
    if torch.cuda.is_available():
        yield from (torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
    else:
        yield "no GPU"
    yield f"{shutil.disk_usage('.').free / 2**30:.0f} GiB free here"


def _cluster() -> Iterator[str]:
    address = os.environ.get("RAY_ADDRESS")
    if not address:
        yield "RAY_ADDRESS is not set, so that runs start a cluster of their own on this machine"
        return
    if address.startswith(("http://", "https://")):
        from ray.job_submission import JobSubmissionClient

        client = JobSubmissionClient(address)
        yield f"{address}: {len(client.list_jobs())} jobs"
        return
    import ray

    ray.init(address, log_to_driver=False)
    try:
        resources = ray.cluster_resources()
        nodes = sum(node["Alive"] for node in ray.nodes())
        yield f"{nodes} nodes, {resources.get('CPU', 0):g} CPUs, {resources.get('GPU', 0):g} GPUs"
    finally:
        ray.shutdown()


def _shards(folder: Path) -> Iterator[str]:
    from ovos_ray.data.shards import ShardIndex, ShardReader

    index = ShardIndex.load(folder)
    video = index.videos[0]
    ShardReader(folder).read(video.name, [0])
    yield f"{index.dataset} {index.split}, {len(index.videos)} videos, {index.budget}"


def _storage(storage: str) -> Iterator[str]:
    folder = Storage(storage)
    folder.write(b"ovos-ray doctor", ".doctor")
    folder.remove(".doctor")
    if folder.local:
        yield f"writable, {shutil.disk_usage(folder.root).free / 2**30:.0f} GiB free"
    else:
        yield "writable"


def _tracking(tracking_uri: str) -> Iterator[str]:
    from ovos_ray.track.sender import connect

    experiments = connect(tracking_uri).search_experiments()
    yield f"{len(experiments)} experiments"


def _job_package() -> Iterator[str]:
    """Ray uploads the working directory with every job; large ones are refused."""
    ignored = {".git", ".venv", "runs", "shards", "demo", "mlruns", "__pycache__"}
    total = 0
    for path, folders, files in os.walk("."):
        folders[:] = [name for name in folders if name not in ignored]
        total += sum(os.path.getsize(os.path.join(path, name)) for name in files)
    size = total / 2**20
    if size > _JOB_PACKAGE_MIB:
        raise OvosError(
            f"the current folder holds {size:.0f} MiB that `ray job submit --working-dir .` would upload",
            "name what a job does not need in .rayignore",
        )
    yield f"{size:.1f} MiB would be uploaded with a job"
