"""`export`: the weights of a run for others, with a model card."""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from ovos_ray.cli.console import console
from ovos_ray.errors import ConfigError, MissingExtraError

__all__ = ["export"]

_PROGRAMS = ("encode", "memorise", "segment")  # of `networks.programs`, which needs torch

EXAMPLE = "ovos-ray export runs/one-shot --to one-shot.safetensors"


def export(
    run: Annotated[Path, typer.Argument(help="Folder or URI of a finished run.")],
    to: Annotated[
        str, typer.Option(help="FILE.safetensors, FILE.pth (as published), FILE.pt2 (programs), or hub:USER/NAME.")
    ],
    size: Annotated[str, typer.Option(help="With FILE.pt2: height x width of the frames.")] = "480x864",
    objects: Annotated[int, typer.Option(help="With FILE.pt2: how many objects are followed.")] = 1,
    public: Annotated[bool, typer.Option("--public", help="Make a new hub repository public.")] = False,
) -> None:
    """Writes the weights of a run for others, with a model card (label budget, digest, scores) beside them."""
    if to.startswith("hub:"):
        _to_hub(run, to.removeprefix("hub:"), public)
        return
    target = Path(to)
    card = target.with_suffix(".md")
    programs = [target.with_suffix(f".{name}.pt2") for name in _PROGRAMS] if target.suffix == ".pt2" else []
    if target.suffix not in (".safetensors", ".pth", ".pt2"):
        raise ConfigError(f"--to {to}", "end it in .safetensors, .pth or .pt2, or give hub:USER/NAME")
    for path in (*(programs or [target]), card):
        if path.exists():
            raise ConfigError(f"{path}: exists, and is not replaced", "give another name, or move it away")
    if programs:
        sides = re.fullmatch(r"(\d+)x(\d+)", size)
        if sides is None:
            raise ConfigError(f"--size {size}", "give height x width, such as 480x864")
        written = _write(run, target, card, (int(sides[1]), int(sides[2])), objects)
    else:
        written = _write(run, target, card)
    for path in written:
        console.print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
    console.print(f"{card}: their card")


def _write(run: Path, target: Path, card: Path, size: tuple[int, int] = (0, 0), objects: int = 0) -> list[Path]:
    from ovos_ray.io import atomic_path
    from ovos_ray.networks import export_weights
    from ovos_ray.networks.programs import export_programs
    from ovos_ray.run.model_card import model_card
    from ovos_ray.storage import Storage, location_of
    from ovos_ray.train.load_network import load_network

    model_card(run, target.name, "")  # whether there is all that it tells
    network, written = load_network(run), [target]
    if objects:
        written = export_programs(network, target, size=size, num_objects=objects)
    else:
        config = json.loads(Storage(location_of(run)).read("config.json"))["config"]
        export_weights(network, target, name=config["network"]["name"])
    digest = ", ".join(hashlib.sha256(path.read_bytes()).hexdigest() for path in written)
    with atomic_path(card) as temporary:
        temporary.write_text(model_card(run, target.name, digest), encoding="utf-8")
    return written


def _to_hub(run: Path, repository: str, public: bool) -> None:
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise ConfigError(f"--to hub:{repository}", "give hub:USER/NAME")
    try:
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError
    except ImportError as error:
        raise MissingExtraError("huggingface_hub", "hub", "uploading to the Hugging Face Hub") from error
    with tempfile.TemporaryDirectory() as folder:
        _write(run, Path(folder, "network.safetensors"), Path(folder, "README.md"))
        try:
            api = HfApi()
            api.create_repo(repository, private=not public, exist_ok=True)
            api.upload_folder(repo_id=repository, folder_path=folder, commit_message="Weights and their card")
        except (HfHubHTTPError, LocalTokenNotFoundError, OSError) as error:
            raise ConfigError(
                f"hub:{repository}: {error}",
                "log in with `hf auth login`, and check the name; nothing else was changed",
            ) from error
    console.print(f"https://huggingface.co/{repository}: the weights and their card")
