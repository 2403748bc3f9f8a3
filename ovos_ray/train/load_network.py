"""Any file with weights becomes the network it belongs to: our runs and checkpoints, safetensors, official `.pth`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from ovos_ray import networks
from ovos_ray.errors import WeightsError
from ovos_ray.networks.base import VOSNetwork
from ovos_ray.networks.published import PUBLISHED, fetch
from ovos_ray.networks.remote_weights import weights_file
from ovos_ray.networks.weight_files import read_weights_file
from ovos_ray.storage import Storage, location_of
from ovos_ray.train.checkpoint import CheckpointStore

__all__ = ["load_network"]


_SUFFIXES = (".safetensors", ".pth", ".pt")


def load_network(path: str | Path, name: str | None = None) -> VOSNetwork:
    """Loads a network in evaluation mode, on the CPU, its convolutions laid out channels last, which is faster.

    Args:
        path: A run folder (its result or, on a disk, its newest checkpoint), a `.safetensors` file, one of our
            checkpoints, or an official `.pth` file; by path or URI. Or the name of official weights, which are fetched
            once (`networks.published`).
        name: The network's name, for files that do not tell.

    Raises:
        WeightsError: There is no such file, it is damaged or unsafe, does not say which network it belongs to, or does
            not fit that network one to one.
    """
    if str(path) in PUBLISHED and not os.path.lexists(path):
        path = fetch(str(path))
    if "://" in (uri := location_of(path)):
        path = weights_file(uri if PurePath(uri).suffix in _SUFFIXES else f"{uri.rstrip('/')}/network.safetensors")
    path = Path(path)
    if path.is_dir():
        path = _in_run_folder(path)
    if not path.is_file():
        raise WeightsError(
            f"there is no weights file {path}",
            "give a run folder, a .safetensors, .pt or .pth file, or a name that `ovos-ray models` lists",
        )
    source: Any = path
    guessed = False  # by the names of its tensors, which all sizes of a network share
    if path.suffix == ".safetensors":
        name = name or _safetensors_name(path)
    else:
        source = read_weights_file(path)
        state, told = source.get("network", source), source.get("network_name")
        recognised = networks.recognise({str(key) for key in state}) if isinstance(state, Mapping) else None
        guessed = name is None and not isinstance(told, str)
        name = name or (told if isinstance(told, str) else recognised)
    if name is None:
        raise WeightsError(
            f"{path} does not say which network it is for", f"add --network {'|'.join(networks.names())}"
        )
    network = networks.build(name).eval().to(memory_format=torch.channels_last)
    try:
        networks.load_weights(network, source)
    except WeightsError as error:
        remedy = f"it names no network: add --network {'|'.join(networks.names())}" if guessed else error.remedy
        raise WeightsError(f"{path} as weights of {name}: {error.message}", remedy) from error
    return network


def _in_run_folder(folder: Path) -> Path:
    if (folder / "network.safetensors").is_file():
        return folder / "network.safetensors"
    if (folder / "state.pt").is_file():
        return folder / "state.pt"
    checkpoints = CheckpointStore(Storage(str(folder / "checkpoints")))
    step = checkpoints.latest()
    if step is None:
        inside = sorted(path.parent for path in folder.glob("*/network.safetensors"))
        runs = f"give the folder of one run, such as {' or '.join(map(str, inside[:3]))}"
        remedy = runs if inside else "train it further, or give the folder of another run"
        raise WeightsError(f"{folder} holds neither network.safetensors nor a complete checkpoint", remedy)
    return folder / "checkpoints" / f"step-{step:08d}" / "state.pt"


def _safetensors_name(path: Path) -> str | None:
    try:
        with safe_open(path, framework="pt") as file:
            return (file.metadata() or {}).get("network") or networks.recognise(dict.fromkeys(file.keys()))
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            f"{path} is truncated or no safetensors file ({error})", "copy or download it again"
        ) from error
