"""Files with weights, read without running code in them, and only if they are what they say they are."""

from __future__ import annotations

import json
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from ovos_ray.errors import WeightsError
from ovos_ray.networks.remote_weights import sha256_of

__all__ = ["DIGEST_KEY", "read_weights_file", "refuse_expansion", "state_dict_of"]

DIGEST_KEY = "weights_sha256"
"""Where a run's `result.json` keeps the SHA-256 of the weights beside it, by file name."""

# Where training checkpoints hold their state dict: those of STCN, XMem and this project, and those of Cutie.
_CHECKPOINT_KEYS = ("network", "weights")
_MOST_EXPANSION = 2  # weights hardly compress; torch itself does not try


def read_weights_file(path: Path) -> Mapping[Any, Any]:
    """Returns what a weights file holds: tensors by name or, of a checkpoint, more.

    Args:
        path: `.safetensors`, or what `torch.save` wrote. The weights of a run are compared with the digest
            in the `result.json` beside them.

    Raises:
        WeightsError: The file is absent, damaged, no mapping, unpacks to far more than its own size, or holds more than
            tensors and plain values.
    """
    if not path.is_file():
        raise WeightsError(f"there is no weights file {path}", "check the path")
    content = _safetensors(path) if path.suffix == ".safetensors" else _pickled(path)
    if not isinstance(content, Mapping):
        raise WeightsError(f"{path} holds a {type(content).__name__}, no state dict", "save the network's state_dict()")
    return content


def state_dict_of(content: Any, name: str) -> dict[str, Tensor]:
    """Returns the tensors by parameter name, the prefix of parallel training taken off.

    Args:
        content: A state dict, or a training checkpoint that holds one.
        name: Where it comes from; for the message.

    Raises:
        WeightsError: It is none, or a tensor holds NaN or infinity, or no values at all.
    """
    if isinstance(content, Mapping):
        content = next((content[key] for key in _CHECKPOINT_KEYS if isinstance(content.get(key), Mapping)), content)
    named = isinstance(content, Mapping) and all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()
    )
    if not named or not content:
        found = ", ".join(repr(key)[:40] for key in list(content)[:5]) if isinstance(content, Mapping) else "no mapping"
        raise WeightsError(f"{name} is not a state dict (it holds: {found})", "expected tensors by parameter name")
    for key, tensor in content.items():
        if tensor.layout != torch.strided or tensor.is_meta or tensor.is_quantized:
            raise WeightsError(f"{name}: {key} is not a dense tensor with values", "save plain tensors")
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            # One number in a file can stand for a billion; looking at them all would take the memory they say.
            raise WeightsError(f"{name}: {key} has more values than are stored", "save contiguous tensors")
        if not torch.isfinite(tensor).all():
            raise WeightsError(
                f"{name}: {key} holds NaN or infinity", "take an earlier checkpoint: this training has diverged"
            )
    return {key.removeprefix("module."): tensor for key, tensor in content.items()}


def _safetensors(path: Path) -> Mapping[str, Tensor]:
    from safetensors.torch import load_file

    _compare_digest(path)
    try:
        content: dict[str, Tensor] = load_file(path)
    except (SafetensorError, OSError, KeyError, ValueError, RuntimeError) as error:
        raise _damaged(path) from error
    return content


def _compare_digest(path: Path) -> None:
    """Compares a run's weights with what the run noted when it wrote them; files of older runs have no note."""
    try:
        expected = json.loads((path.parent / "result.json").read_bytes())[DIGEST_KEY][path.name]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return
    if (found := sha256_of(path)) != expected:
        raise WeightsError(
            f"{path} is not what its run wrote: SHA-256 {found[:12]}…, {str(expected)[:12]}… in result.json",
            "copy it again, or take the run's last checkpoint",
        )


def _pickled(path: Path) -> Any:
    _check_archive(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # remarks about the pickle protocol
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "truncated" in str(error):
            raise _damaged(path) from error
        raise WeightsError(
            f"{path} was refused: it is not a weights file, or holds more than tensors and plain values, "
            "which could run code",
            "only use weights from a source you trust, saved as a bare state dict or as safetensors",
        ) from error
    except Exception as error:
        # Damaged files fail in many ways: RuntimeError, EOFError, KeyError, UnicodeDecodeError …
        raise _damaged(path) from error


def _check_archive(path: Path) -> None:
    """Refuses an archive that unpacks to far more than its own size, or whose checksums do not hold."""
    if not zipfile.is_zipfile(path):
        return  # the format of before torch 1.6, or no weights at all
    try:
        with zipfile.ZipFile(path) as archive:
            refuse_expansion(archive, path.stat().st_size, str(path))
            whole = archive.testzip() is None
    except (zipfile.BadZipFile, NotImplementedError, OSError, EOFError, RuntimeError, ValueError) as error:
        raise _damaged(path) from error
    if not whole:
        raise _damaged(path)


def refuse_expansion(archive: zipfile.ZipFile, size: int, name: str) -> None:
    """Refuses what `torch.save` has written, or seems to have, where it unpacks to far more than its own size in bytes.

    Raises:
        WeightsError: It does.
    """
    unpacked = sum(entry.file_size for entry in archive.infolist())
    if unpacked > _MOST_EXPANSION * size:
        raise WeightsError(
            f"{name}: {size} bytes that unpack to {unpacked}, which no weights do",
            "only use weights from a source you trust",
        )


def _damaged(path: Path) -> WeightsError:
    return WeightsError(
        f"{path} ({path.stat().st_size} bytes) is truncated, damaged or no weights file", "copy or download it again"
    )
