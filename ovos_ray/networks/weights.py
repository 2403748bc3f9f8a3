"""Weights in and out: official `.pth` files, our own safetensors, training checkpoints, ImageNet ResNets.

Nothing is ever unpickled but tensors and plain values (see `weight_files`), and whatever does not fit is named.
"""

from __future__ import annotations

import io
import logging
import os
import urllib.request
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from ovos_ray.errors import WeightsError
from ovos_ray.io import atomic_path
from ovos_ray.networks.base import VOSNetwork
from ovos_ray.networks.remote_weights import sha256_of, weights_file
from ovos_ray.networks.resnet import ImageEncoder, MaskEncoder
from ovos_ray.networks.weight_files import read_weights_file, state_dict_of

__all__ = [
    "LoadReport",
    "export_weights",
    "find_imagenet_file",
    "has_imagenet",
    "imagenet_at_hand",
    "imagenet_files",
    "load_imagenet",
    "load_weights",
]

_log = logging.getLogger(__name__)

_BACKBONE = ("conv1.", "bn1.", "res2.", "layer")
_ANSWER_S = 5.0
# torchvision's files with which the published networks were initialised (IMAGENET1K_V1); a name ends in the first eight
# hex digits of the file's SHA-256.
_IMAGENET = {
    (3, 4, 6): "https://download.pytorch.org/models/resnet50-0676ba61.pth",
    (2, 2, 2): "https://download.pytorch.org/models/resnet18-f37072fd.pth",
}


@dataclass(frozen=True)
class LoadReport:
    """What `load_weights` did, by parameter name.

    Attributes:
        loaded: How many tensors were taken over.
        missing: Tensors of the network that the file does not have; they keep their values.
        unexpected: Tensors of the file that the network does not have.
        mismatched: Tensors of both with different shapes, as `name: file shape, network shape`; not loaded.
        padded: Tensors of a single-object network that got an input channel for the other objects' masks.
    """

    loaded: int
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    mismatched: tuple[str, ...] = ()
    padded: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether file and network correspond one to one (padding allowed)."""
        return not (self.missing or self.unexpected or self.mismatched)

    def __str__(self) -> str:
        parts = [f"{self.loaded} tensors loaded"]
        for name in ("missing", "unexpected", "mismatched", "padded"):
            keys = getattr(self, name)
            if keys:
                shown = ", ".join(keys[:5]) + (f" and {len(keys) - 5} more" if len(keys) > 5 else "")
                parts.append(f"{len(keys)} {name} ({shown})")
        return "; ".join(parts)


def load_weights(
    network: VOSNetwork, source: str | os.PathLike[str] | Mapping[str, Any], *, strict: bool = True
) -> LoadReport:
    """Loads weights into a network.

    Args:
        network: The network. In training mode, input channels that a single-object file lacks are initialised
            orthogonally, in evaluation mode with zeros, as the published code does.
        source: A `.safetensors` or `.pth` file, by path or URI, or what such a file holds: a state dict, or a dict with
            one under `network` or `weights` (published and our own training checkpoints).
        strict: Whether weights that do not correspond one to one are an error, rather than a warning.

    Returns:
        What was loaded and, unless `strict`, what did not fit.

    Raises:
        WeightsError: The file is absent, damaged or unsafe, holds NaN or infinity, nothing in it fits the network, or
            (`strict`) not all does.
    """
    name = "the given weights" if isinstance(source, Mapping) else str(source)
    content = source if isinstance(source, Mapping) else read_weights_file(weights_file(Path(source)))
    given = state_dict_of(content, name)
    own = network.state_dict()
    fitting: dict[str, Tensor] = {}
    mismatched, padded = [], []
    for key, tensor in given.items():
        if key not in own:
            continue
        if key in network.mask_inputs and _lacks_one_channel(tensor, own[key]):
            tensor = _pad_input(key, tensor, orthogonal=network.training)
            padded.append(key)
        if tensor.shape == own[key].shape and tensor.is_floating_point() == own[key].is_floating_point():
            fitting[key] = tensor
        else:
            mismatched.append(f"{key}: {_shape(tensor)}, {_shape(own[key])}")
    report = LoadReport(
        loaded=len(fitting),
        missing=tuple(key for key in own if key not in given),
        unexpected=tuple(key for key in given if key not in own),
        mismatched=tuple(mismatched),
        padded=tuple(padded),
    )
    if not fitting or (strict and not report.complete):
        raise WeightsError(
            f"{name} does not fit {type(network).__name__}: {report}",
            "check that the weights are of the network that the configuration names",
        )
    network.load_state_dict(fitting, strict=False)
    if not report.complete:
        _log.warning("%s: %s", name, report)
    return report


def export_weights(network: VOSNetwork, path: str | os.PathLike[str], name: str | None = None) -> None:
    """Writes the weights in the layout of the published files, so that the official tools can evaluate them.

    Args:
        network: The network.
        path: `.safetensors`, or `.pth` for a bare state dict as published.
        name: The network's name, which a `.safetensors` file then tells.

    Raises:
        WeightsError: The path has another suffix.
    """
    state = {key: tensor.detach().cpu().contiguous() for key, tensor in network.state_dict().items()}
    suffix = Path(path).suffix
    if suffix not in (".safetensors", ".pth"):
        raise WeightsError(f"{path} is not a name for a weights file", "end it in .safetensors or .pth")
    if suffix == ".pth":
        buffer = io.BytesIO()  # torch has errors of its own for a full disk
        torch.save(state, buffer)
        content = buffer.getvalue()
    else:
        content = safetensors.torch.save(state, None if name is None else {"network": name})
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def load_imagenet(network: VOSNetwork, folder: str | os.PathLike[str] | None = None) -> LoadReport:
    """Initialises the encoders from torchvision's ImageNet ResNets, as published.

    Args:
        network: A network with ResNet-50 or ResNet-18 encoders.
        folder: Where `resnet50-0676ba61.pth` and `resnet18-f37072fd.pth` lie. None: the folder named by the
            environment variable `OVOS_IMAGENET`, else torchvision's cache, else they are fetched.

    Returns:
        What was loaded; `missing` are encoder tensors that ImageNet networks do not have (biases).

    Raises:
        WeightsError: The network has other encoders, or the files are neither there nor to be fetched, or not those of
            torchvision by their SHA-256.
    """
    folder = folder if folder is not None else os.environ.get("OVOS_IMAGENET")
    loaded, missing = 0, []
    for prefix, encoder in _encoders(network):
        known = _imagenet_file(encoder)
        if known is None:
            raise WeightsError(
                f"there are no ImageNet weights for {prefix} of this {type(network).__name__}",
                "set network.init=random: tiny networks start from random weights",
            )
        first = "res2" if isinstance(encoder, ImageEncoder) else "layer1"
        given = {key.replace("layer1.", f"{first}."): value for key, value in _imagenet(known, folder).items()}
        backbone = {key: own for key, own in encoder.state_dict().items() if key.startswith(_BACKBONE)}
        # Mask channels are not in the file; they keep their initialisation.
        fitting = {
            key: torch.cat([given[key], own[:, 3:].cpu()], dim=1) if key == "conv1.weight" else given[key]
            for key, own in backbone.items()
            if key in given
        }
        missing += [f"{prefix}.{key}" for key in backbone if key not in given]
        encoder.load_state_dict(fitting, strict=False)
        loaded += len(fitting)
    if not loaded:
        raise WeightsError(f"{type(network).__name__} has no ResNet encoders", "set network.init=random")
    return LoadReport(loaded=loaded, missing=tuple(missing))


def imagenet_files(network: VOSNetwork) -> tuple[str, ...]:
    """Returns the names of the files that `load_imagenet` reads for a network; none where there are none."""
    known = [_imagenet_file(encoder) for _, encoder in _encoders(network)]
    return tuple(sorted({PurePath(url).name for url in known if url is not None}))


def imagenet_at_hand(name: str) -> bool:
    """Returns whether one of `imagenet_files` lies on this machine; else `find_imagenet_file` would fetch it.

    Raises:
        WeightsError: `OVOS_IMAGENET` names a folder without it, or the machine that has it does not answer.
    """
    url = next(url for url in _IMAGENET.values() if PurePath(url).name == name)
    if _kept(url, os.environ.get("OVOS_IMAGENET")).is_file():
        return True
    try:
        asked = urllib.request.Request(url, method="HEAD")  # noqa: S310 - an address of torchvision's own
        with urllib.request.urlopen(asked, timeout=_ANSWER_S):  # noqa: S310 - the same
            return False
    except OSError as error:
        raise WeightsError(
            f"the ImageNet weights {url} are not at hand and cannot be fetched from here: {error}",
            f"put the file into {torch.hub.get_dir()}/checkpoints, or into a folder named by OVOS_IMAGENET; or set "
            "network.init=random",
        ) from error


def find_imagenet_file(name: str) -> Path:
    """Returns where one of `imagenet_files` lies on this machine, and fetches it where it does not.

    Raises:
        WeightsError: It is not in the folder that `OVOS_IMAGENET` names, or another file there, or cannot be fetched.
    """
    url = next(url for url in _IMAGENET.values() if PurePath(url).name == name)
    folder = os.environ.get("OVOS_IMAGENET")
    _imagenet(url, folder)
    return _kept(url, folder)


def has_imagenet(network: VOSNetwork) -> bool:
    """Returns whether there are ImageNet weights for all encoders of a network, wherever they lie."""
    files = [_imagenet_file(encoder) for _, encoder in _encoders(network)]
    return bool(files) and None not in files


def _encoders(network: VOSNetwork) -> list[tuple[str, ImageEncoder | MaskEncoder]]:
    return [(name, part) for name, part in network.named_children() if isinstance(part, ImageEncoder | MaskEncoder)]


def _imagenet_file(encoder: ImageEncoder | MaskEncoder) -> str | None:
    plain = encoder.config.norm == "batch" and encoder.config.width == 64
    return _IMAGENET.get(encoder.config.depths) if plain else None


def _kept(url: str, folder: str | os.PathLike[str] | None) -> Path:
    """Returns the path of a file: in a folder, which must have it, or in torch's cache, fetched or not."""
    name = PurePath(url).name
    if folder is None:
        return Path(torch.hub.get_dir(), "checkpoints", name)
    if not (path := Path(folder, name)).is_file():
        raise WeightsError(f"{folder} holds no {name}", f"download {url} into it")
    return path


def _imagenet(url: str, folder: str | os.PathLike[str] | None) -> dict[str, Tensor]:
    if folder is not None:
        path = _kept(url, folder)
        expected = path.stem.rpartition("-")[2]
        found = sha256_of(path)
        if not found.startswith(expected):
            raise WeightsError(
                f"{path} is not torchvision's: its SHA-256 begins with {found[:8]}, not with {expected}",
                f"download {url} again",
            )
        return state_dict_of(read_weights_file(path), str(path))
    try:
        return dict(torch.hub.load_state_dict_from_url(url, map_location="cpu", weights_only=True, check_hash=True))
    except (OSError, RuntimeError) as error:
        raise WeightsError(
            f"the ImageNet weights {url} cannot be fetched: {error}",
            f"put the file into {torch.hub.get_dir()}/checkpoints, or into a folder named by OVOS_IMAGENET; "
            "or start from random weights on purpose with network.init=random",
        ) from error


def _lacks_one_channel(given: Tensor, own: Tensor) -> bool:
    return given.dim() == own.dim() and given.shape[1] + 1 == own.shape[1] and given[:, 0].shape == own[:, 0].shape


def _pad_input(key: str, tensor: Tensor, *, orthogonal: bool) -> Tensor:
    extra = torch.zeros_like(tensor[:, :1])
    if orthogonal:
        nn.init.orthogonal_(extra, generator=torch.Generator().manual_seed(zlib.crc32(key.encode())))
    return torch.cat([tensor, extra], dim=1)


def _shape(tensor: Tensor) -> str:
    shape = "x".join(map(str, tensor.shape)) or "scalar"
    return shape if tensor.is_floating_point() else f"{shape} {tensor.dtype}"
