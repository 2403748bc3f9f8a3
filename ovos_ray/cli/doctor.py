"""`doctor`: one line per thing a run depends on, and what to do about those that are missing."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ovos_ray.cli.console import console, counted, tell
from ovos_ray.errors import DataError, OvosError, ResourceError, TrackingError, first_line
from ovos_ray.track.servers import without_secrets

if TYPE_CHECKING:
    from ovos_ray.config import ExperimentConfig

__all__ = ["Concern", "doctor", "examine"]

EXAMPLE = "ovos-ray doctor --shards shards/davis --recipe trainables.one_shot.stcn --bench-ingest"

_REQUIRED = (
    "torch", "ray", "mlflow", "pyarrow", "numpy", "opencv-python-headless", "pillow", "safetensors",
)  # fmt: skip
_OPTIONAL = {
    "av": ("video", "video files"),
    "matplotlib": ("report", "reports"),
    "jinja2": ("report", "reports"),
    "scipy": ("report", "reports"),
}
_NOTABLE_MIB = 5.0
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - looked at, not written to
_OBJECT_STORE_GIB = 2.0
"""Decoded clips wait there; below this, workers may wait for them."""


@dataclass(frozen=True)
class Concern:
    """Something that works and may hurt later; it does not fail the examination."""

    text: str
    remedy: str


Finding = str | Concern
Check = Callable[[], Iterator[Finding]]


def doctor(
    shards: Annotated[list[str] | None, typer.Option(help="Shards to look at; may be repeated.")] = None,
    storage: Annotated[str, typer.Option(help="Where runs are to be kept.")] = "runs",
    tracking_uri: Annotated[str, typer.Option(help="MLflow store.")] = "sqlite:///mlflow.db",
    recipe: Annotated[str | None, typer.Option(help="A run that is to fit, such as trainables.one_shot.")] = None,
    bench_ingest: Annotated[bool, typer.Option("--bench-ingest", help="Measure how fast clips are decoded.")] = False,
) -> None:
    """Says what is installed, what the cluster has, and whether shards, storage and tracking are reachable."""
    from ovos_ray.run.request import config_from

    config = None if recipe is None else config_from(recipe)
    if not examine(tuple(shards or ()), storage, tracking_uri, config=config, bench_ingest=bench_ingest):
        raise typer.Exit(1)


def examine(
    shards: tuple[str, ...],
    storage: str,
    tracking_uri: str,
    *,
    config: ExperimentConfig | None = None,
    bench_ingest: bool = False,
) -> bool:
    """Prints what is there and what is not; returns whether nothing that was asked for is missing.

    Args:
        shards: Folders or bucket URIs to look at.
        storage: Where runs are to be kept.
        tracking_uri: MLflow store.
        config: A run that is to fit: its checkpoints into the storage, its clips into the measured decoding.
        bench_ingest: Measure how fast clips of `shards` are decoded, with and without Ray Data.
    """
    checks: list[tuple[str, Check]] = [
        ("packages", _packages),
        ("this machine", _machine),
        ("cluster", _cluster),
        *((f"shards {folder}", lambda folder=folder: _shards(folder, config)) for folder in shards),
        (f"storage {storage}", lambda: _storage(storage, config)),
        ("unsent tracking records", lambda: _backlog(storage)),
        (f"tracking {without_secrets(tracking_uri) or '(none)'}", lambda: _tracking(tracking_uri)),
        ("job package", _job_package),
    ]
    if bench_ingest:
        from ovos_ray.config import ExperimentConfig
        from ovos_ray.on_ray.ingest import ingest_speed

        checks.append(("decoding", lambda: iter(ingest_speed(config or ExperimentConfig(), shards))))
    passed = [_print(title, check) for title, check in checks]
    return all(passed)


def _print(title: str, check: Check) -> bool:
    """Runs one check and prints its line; returns whether it passed."""
    try:
        found = list(check())
    except Exception as error:
        what = error.message if isinstance(error, OvosError) else f"{type(error).__name__}: {error}"
        tell("✗", f"{title}: {what}", style="red")
        if isinstance(error, OvosError) and error.remedy:
            console.print(f"    what to do: {error.remedy}")
        return False
    concerns = [finding for finding in found if isinstance(finding, Concern)]
    line = "; ".join(finding for finding in found if isinstance(finding, str))
    mark, style = ("!", "yellow") if concerns else ("✓", "green")
    tell(mark, f"{title}: {line}", style=style)
    for concern in concerns:
        console.print(f"    {concern.text}: {concern.remedy}")
    return True


def _packages() -> Iterator[Finding]:
    missing = []
    for name in ("ovos-ray", *_REQUIRED):
        try:
            yield f"{name} {metadata.version(name)}"
        except metadata.PackageNotFoundError:
            if name in _REQUIRED:  # the program itself runs from a checkout without being installed
                missing.append(name)
    for name, (extra, purpose) in _OPTIONAL.items():
        try:
            metadata.version(name)
        except metadata.PackageNotFoundError:
            yield f"without {name} ({purpose}: pip install 'ovos-ray[{extra}]')"
    if missing:
        raise OvosError(f"not installed: {', '.join(missing)}", "pip install ovos-ray")


def _machine() -> Iterator[Finding]:
    import psutil
    import torch

    yield f"Python {sys.version.split()[0]}"
    yield f"{os.cpu_count()} CPUs ({torch.backends.cpu.get_cpu_capability()})"
    memory = psutil.virtual_memory()
    yield f"{memory.available / 2**30:.0f} of {memory.total / 2**30:.0f} GiB memory free"
    if torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(i)
            yield f"{torch.cuda.get_device_name(i)}, {free / 2**30:.0f} of {total / 2**30:.0f} GiB free"
        precision = "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32, no bfloat16"
        yield f"CUDA {torch.version.cuda}, trains in {precision}"
    else:
        yield "no GPU, trains in float32"
    yield f"{shutil.disk_usage('.').free / 2**30:.0f} GiB disk free here"
    if _SHARED_MEMORY.is_dir() and (shared := shutil.disk_usage(_SHARED_MEMORY).free / 2**30) < _OBJECT_STORE_GIB:
        yield Concern(
            f"{_SHARED_MEMORY} has {shared:.1f} GiB free, so that Ray's object store goes to the disk",
            "give a container more (docker run --shm-size=8g)",
        )


def _cluster() -> Iterator[Finding]:
    address = os.environ.get("RAY_ADDRESS")
    if not address:
        yield "RAY_ADDRESS is not set, so that runs start a cluster of their own on this machine"
        return
    from ovos_ray.on_ray.job_client import use_token

    use_token()
    import ray

    from ovos_ray.on_ray.session import attached

    if address.startswith(("http://", "https://")):
        from ovos_ray.on_ray.job_client import connect

        client = connect()
        jobs = client.list_jobs()
        yield f"{address}: {len(jobs)} jobs, {sum(not job.status.is_terminal() for job in jobs)} of them running"
        there = getattr(client, "_server_ray_version", None)
        if there is not None and there != ray.__version__:
            yield Concern(f"Ray {there} there, {ray.__version__} here", "use the same version on both sides")
        return
    with attached(address):
        have, free = ray.cluster_resources(), ray.available_resources()
        nodes = sum(node["Alive"] for node in ray.nodes())
        yield f"Ray {ray.__version__}, {nodes} nodes"
        yield f"{free.get('CPU', 0):g} of {have.get('CPU', 0):g} CPUs free"
        yield f"{free.get('GPU', 0):g} of {have.get('GPU', 0):g} GPUs free"
        store = have.get("object_store_memory", 0) / 2**30
        yield f"object store {free.get('object_store_memory', 0) / 2**30:.1f} of {store:.1f} GiB free"
        if store < _OBJECT_STORE_GIB * nodes:
            yield Concern(
                "small object stores slow decoding", "ray start --object-store-memory=…, or a larger /dev/shm"
            )


def _shards(folder: str, config: ExperimentConfig | None) -> Iterator[Finding]:
    from ovos_ray.data.masks import decode_image
    from ovos_ray.data.shards.index import ShardIndex
    from ovos_ray.data.shards.reader import ShardReader

    index = ShardIndex.load(folder)
    if not index.videos:
        raise DataError(f"{folder} holds no video", "pack the dataset again")
    reader = ShardReader(folder)
    # One frame of every file: all of them are there and readable. `verify` reads every row.
    by_file = {video.shard: video for video in index.videos}
    for video in by_file.values():
        (row,) = reader.read(video.name, [video.num_frames - 1])
        decode_image(row.jpeg, f"{video.name} frame {row.frame}")
    size = f"{counted(len(index.videos), 'video')} in {counted(len(index.files), 'file')}"
    yield f"{index.dataset} {index.split}, {size}, {index.budget}"
    yield f"packed with --labels {index.labels}, digest {index.digest}"
    if config is not None:
        from ovos_ray.cli.decoding import describe_gpus

        try:
            yield from describe_gpus(config, folder)
        except OvosError as error:
            yield Concern(f"no clip of {config.name} can be decoded: {error.message}", error.remedy or "see above")


def _storage(storage: str, config: ExperimentConfig | None) -> Iterator[Finding]:
    from ovos_ray.storage import Storage

    folder = Storage(storage)
    is_new = folder.local and not Path(folder.root).exists()
    name = f".doctor-{os.getpid()}"
    folder.write(b"ovos-ray doctor", name)
    if folder.read(name) != b"ovos-ray doctor":
        raise ResourceError(f"{storage} does not give back what was written to it", "choose another storage")
    folder.remove(name)
    free = shutil.disk_usage(folder.root).free if folder.local else None
    if is_new:
        Path(folder.root).rmdir()
    yield "writable" if free is None else f"writable, {free / 2**30:.0f} GiB free"
    if config is None:
        return
    from ovos_ray.run.estimate import checkpoint_bytes

    each, count = checkpoint_bytes(config), config.train.keep_checkpoints + 1
    needed = f"{config.network.name} keeps {count} checkpoints of {each / 2**20:.0f} MiB"
    if free is not None and free < count * each:
        raise ResourceError(
            f"{needed}, {count * each / 2**30:.1f} GiB, and {storage} has {free / 2**30:.1f} GiB free",
            "choose another storage, or lower train.keep_checkpoints",
        )
    yield f"a run of {needed}"


def _backlog(storage: str) -> Iterator[Finding]:
    from ovos_ray.storage import Storage
    from ovos_ray.track.leftovers import backlog

    folder = Storage(storage)
    waiting = backlog(Path(folder.root)) if folder.local else []
    if waiting:
        number = sum(unsent.num_records for unsent in waiting)
        yield f"{number} of {len(waiting)} runs"
        yield Concern(str(waiting[0]), f"when the server is back: ovos-ray sync {storage}")
    else:
        yield "none" if folder.local else f"not looked for in a bucket; `ovos-ray sync {storage}` sends what there is"


def _tracking(tracking_uri: str) -> Iterator[Finding]:
    from ovos_ray.track.sender import connect
    from ovos_ray.track.servers import resolve_tracking_uri

    if not tracking_uri:
        yield "runs are not tracked"
        return
    uri = resolve_tracking_uri(tracking_uri)
    if uri.startswith("sqlite:///"):
        database = Path(uri.removeprefix("sqlite:///"))
        if not database.exists():
            if not os.access(database.parent, os.W_OK):
                raise TrackingError(f"{database.parent} cannot be written", "choose another tracking_uri")
            yield "not there yet; the first run makes it"
            return
    try:
        client = connect(uri)
        experiments = client.search_experiments()
        client.set_experiment_tag(experiments[-1].experiment_id, "ovos.doctor", "was here")
    except Exception as error:
        raise TrackingError(
            f"{type(error).__name__}: {first_line(error)}",
            "start a server (deploy/mlflow.yaml, or: mlflow server --backend-store-uri sqlite:///mlflow.db), or give "
            "its credentials in MLflow's own variables; runs without it keep their records for `ovos-ray sync`",
        ) from error
    yield f"{len(experiments)} experiments, writable"
    if uri.startswith(("http://", "https://")):
        import urllib.request

        with urllib.request.urlopen(uri.rstrip("/") + "/version", timeout=10) as answer:  # noqa: S310 - http, see above
            there = answer.read().decode().strip()
        yield f"MLflow {there}"
        here = metadata.version("mlflow")
        if there.split(".")[0] != here.split(".")[0]:
            yield Concern(f"MLflow {there} there, {here} here", "use the same major version on both sides")


def _job_package() -> Iterator[Finding]:
    from ovos_ray.on_ray.job_package import JobPackage

    package = JobPackage.of(Path.cwd())
    try:
        package.check()
    except ResourceError as error:
        if os.environ.get("RAY_ADDRESS"):
            raise
        yield "not needed without a cluster"  # whose working folder holds its runs, as the quickstart has it
        yield Concern(error.message, error.remedy or "")
        return
    yield f"{package.mib:.1f} MiB in {len(package.sizes)} files go with a job"
    if package.mib > _NOTABLE_MIB:
        yield f"the largest: {package.largest()}"
    if package.left_out:
        yield f"not sent: {package.left_out_text()}"
