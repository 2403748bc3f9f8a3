"""The official weights by name: where they lie, what they were trained with, and fetching them once.

A file is fetched into a folder, resumed where a download broke off, compared with its checksum, and only then given its
name. Where no SHA-256 was published, the first one seen is kept beside the file and holds from then on; the MD5 that
Cutie's own code names is compared, too. No checksum here was made up: what is unknown is None.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ovos_ray.errors import WeightsError
from ovos_ray.io import atomic_path, exclusive
from ovos_ray.paths import cache_folder

__all__ = ["PUBLISHED", "PublishedModel", "fetch", "models_folder"]

_CHUNK = 1 << 20
_MOST_BYTES = 2**32  # of a file; ten times the largest
_ANSWER_S = 30.0
_XMEM = "https://github.com/hkchengrex/XMem/releases/download/v1.0"
_CUTIE = "https://github.com/hkchengrex/Cutie/releases/download/v1.0"


@dataclass(frozen=True)
class PublishedModel:
    """Weights that others have published.

    Attributes:
        network: The network they are of, as `networks.build` calls it.
        file: The file's name.
        url: Where it is fetched from; None: by hand only.
        page: Where a person finds it.
        megabytes: About how large it is: four bytes a parameter.
        training: What it was trained with; all objects of all frames are labelled in these, unless said otherwise.
        scores: Published J&F, as the authors' pages state them; empty where we have not seen them.
        licence: Of the repository; None: see there.
        md5: As its authors' code names it, or None.
        sha256: As its authors publish it, or None.
    """

    network: str
    file: str
    url: str | None
    page: str
    megabytes: int
    training: str
    scores: str = ""
    licence: str | None = None
    md5: str | None = None
    sha256: str | None = None


def _xmem(file: str, training: str, scores: str) -> PublishedModel:
    page = "https://github.com/hkchengrex/XMem/releases/tag/v1.0"
    return PublishedModel("xmem", file, f"{_XMEM}/{file}", page, 249, training, scores, "MIT")


def _cutie(size: str, kind: str, training: str, scores: str = "", md5: str | None = None) -> PublishedModel:
    page = "https://github.com/hkchengrex/Cutie/releases/tag/v1.0"
    file, megabytes = f"cutie-{size}-{kind}.pth", 140 if size == "base" else 115
    return PublishedModel(f"cutie-{size}", file, f"{_CUTIE}/{file}", page, megabytes, training, scores, md5=md5)


_VIDEOS = "static images, DAVIS 2017, YouTube-VOS"
PUBLISHED: dict[str, PublishedModel] = {
    "stcn": PublishedModel(
        "stcn",
        "stcn.pth",
        None,
        "https://github.com/hkchengrex/STCN#pretrained-models",
        218,
        f"{_VIDEOS}, BL30K (s012)",
        "DAVIS16 91.7, DAVIS17 85.3, YV18 84.3, YV19 84.2",
    ),
    "xmem": _xmem("XMem.pth", f"{_VIDEOS} (s03)", "DAVIS16 91.5, DAVIS17 86.2, YV18 85.7, YV19 85.5"),
    "xmem-s012": _xmem("XMem-s012.pth", f"{_VIDEOS}, BL30K (s012)", "DAVIS17 87.7, YV18 86.1, YV19 85.8"),
    "xmem-s2": _xmem("XMem-s2.pth", "DAVIS 2017, YouTube-VOS (s2)", "DAVIS17 84.5, YV18 84.3, YV19 84.2"),
    "cutie-base-mega": _cutie("base", "mega", f"{_VIDEOS}, MOSE, BURST, OVIS", md5="a6071de6136982e396851903ab4c083a"),
    "cutie-base-wmose": _cutie("base", "wmose", f"{_VIDEOS}, MOSE"),
    "cutie-base-nomose": _cutie("base", "nomose", _VIDEOS, "DAVIS17 88.8"),
    "cutie-small-mega": _cutie("small", "mega", f"{_VIDEOS}, MOSE, BURST, OVIS"),
    "cutie-small-wmose": _cutie("small", "wmose", f"{_VIDEOS}, MOSE"),
    "cutie-small-nomose": _cutie("small", "nomose", _VIDEOS),
}
"""The official files by the names that `--checkpoint` takes."""


def models_folder() -> Path:
    """Returns where official files lie: in the folder that `OVOS_MODELS` names, else in `models` of the cache."""
    return Path(os.environ.get("OVOS_MODELS") or cache_folder() / "models")


def fetch(name: str, progress: Callable[[int, int | None], object] | None = None) -> Path:
    """Returns the file of a published model, and fetches it where it is not in `models_folder`.

    Args:
        name: One of `PUBLISHED`.
        progress: Called with the bytes that are there by now, and how many there will be, if the server says so.

    Raises:
        WeightsError: It is another file than it should be, or cannot be fetched.
    """
    model = PUBLISHED[name]
    path = models_folder() / model.file
    if not path.is_file():
        if model.url is None:
            raise WeightsError(f"{path} is not there, and has no address to fetch it from", f"get it from {model.page}")
        path.parent.mkdir(parents=True, exist_ok=True)
        with exclusive(path.with_name(f".{path.name}.lock")):
            if not path.is_file():  # another process may have fetched it meanwhile
                part = path.with_name(f"{path.name}.part")
                try:
                    _download(model.url, part, progress)
                except (OSError, http.client.HTTPException) as error:
                    raise WeightsError(
                        f"{model.url} cannot be fetched: {error}",
                        f"the same command goes on where this one stopped; without internet, put {model.file} into "
                        f"{path.parent}, or name the folder that holds it with OVOS_MODELS",
                    ) from error
                try:
                    _check(part, model, pinned=None)
                except WeightsError:
                    part.unlink()
                    raise
                os.replace(part, path)
    pin = path.with_name(f"{path.name}.sha256")
    pinned = pin.read_text(encoding="utf-8").split()[0] if pin.is_file() else None
    digest = _check(path, model, pinned)
    if pinned is None:
        with atomic_path(pin) as temporary:
            temporary.write_text(f"{digest}  {path.name}\n", encoding="utf-8")  # as `sha256sum --check` reads it
    return path


def _check(path: Path, model: PublishedModel, pinned: str | None) -> str:
    """Compares a file with what is known of it, and returns its SHA-256."""
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            sha256.update(chunk)
            md5.update(chunk)
    found = {"SHA-256": sha256.hexdigest(), "MD5": md5.hexdigest()}
    for kind, expected, source in (
        ("SHA-256", model.sha256, "its authors publish"),
        ("MD5", model.md5, "its authors' code names"),
        ("SHA-256", pinned, f"{path.name}.sha256 holds since it was first seen"),
    ):
        if expected is not None and found[kind] != expected:
            raise WeightsError(
                f"{path}: its {kind} is {found[kind]}, not {expected}, which {source}",
                "the file is damaged or another one: remove it, and fetch it again; remove the .sha256 beside it only "
                "if the authors have replaced their file",
            )
    return found["SHA-256"]


class _SameScheme(urllib.request.HTTPRedirectHandler):
    """Follows a server to another address, but not from https to http, where anybody on the way may answer."""

    def redirect_request(self, request: Any, file: Any, code: int, message: str, headers: Any, url: str) -> Any:
        """Refuses the address, or leaves it to its parent."""
        if urllib.parse.urlsplit(url).scheme != urllib.parse.urlsplit(request.full_url).scheme:
            raise OSError(f"it leads to {url}, which is not {urllib.parse.urlsplit(request.full_url).scheme}")
        return super().redirect_request(request, file, code, message, headers, url)


def _download(url: str, part: Path, progress: Callable[[int, int | None], object] | None) -> None:
    """Fetches a file, and goes on with what an earlier attempt has left of the same one."""
    tag = part.with_name(f"{part.name}.etag")
    there = part.stat().st_size if part.is_file() else 0
    headers = {"User-Agent": "ovos-ray", "Accept-Encoding": "identity"}
    if there and tag.is_file():
        # If the server has another file by now, it sends all of that one.
        headers |= {"Range": f"bytes={there}-", "If-Range": tag.read_text(encoding="utf-8")}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 # an address of the table above
    try:
        answer = urllib.request.build_opener(_SameScheme).open(request, timeout=_ANSWER_S)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        if error.headers.get("Content-Range") != f"bytes */{there}":  # else nothing is left to send
            part.unlink()
            _download(url, part, progress)
        return
    with answer:
        resumed = answer.status == 206
        there = there if resumed else 0
        length = answer.headers.get("Content-Length")
        total = None if length is None else there + int(length)
        etag = answer.headers.get("ETag")
        if etag and not etag.startswith("W/"):
            tag.write_text(etag, encoding="utf-8")
        else:
            tag.unlink(missing_ok=True)
        with open(part, "ab" if resumed else "wb") as file:
            while chunk := answer.read(_CHUNK):
                file.write(chunk)
                there += len(chunk)
                if there > _MOST_BYTES:
                    raise OSError(f"more than {_MOST_BYTES:,} bytes, which no weights have")
                if progress is not None:
                    progress(there, total)
            file.flush()
            os.fsync(file.fileno())
    if total is not None and there != total:
        raise OSError(f"broke off after {there} of {total} bytes")
    tag.unlink(missing_ok=True)
