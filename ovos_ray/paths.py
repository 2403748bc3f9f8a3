"""The rules of names and paths: what a name may be, where a target may lie, which folders are ours to replace.

Names come from lists, indices and archives of others, and end in paths that are written and removed. They are checked
once, where they enter; what is written is checked once more, where it lands.
"""

from __future__ import annotations

import fnmatch
import os
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ovos_ray.errors import DataError

__all__ = [
    "MARKER",
    "below",
    "cache_folder",
    "checked_name",
    "is_made",
    "mark",
    "no_imports_from_current_folder",
    "note_of",
    "require_disjoint",
    "require_replaceable",
    "shipped",
    "write_marker",
]

MARKER = ".ovos-ray"
"""A file by which a folder says that this program made it, and as what."""
_HEADER = "made by ovos-ray: "
_MAX_BYTES = 200  # of a part; file systems allow 255, and temporary names are longer
_REFUSED = frozenset({"Cc", "Cs", "Zl", "Zp"})  # Unicode's control characters, halves of characters, line separators
_TURNING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")  # text that reads otherwise than it is


def shipped(name: str) -> Path:
    """Returns the folder `trainables`, `search_spaces` or `datasets` that came with this program.

    Installed, it lies inside of the package; in a checkout it stands beside it.
    """
    package = Path(__file__).resolve().parent
    inside = package / "recipes" / name
    return inside if inside.is_dir() else package.parent / name


@contextmanager
def no_imports_from_current_folder() -> Iterator[None]:
    """Makes processes that are started inside import nothing from the current folder, where anything may lie.

    Python looks there first for what a child of `multiprocessing` imports; 3.10 knows no switch against it.
    """
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        yield
    finally:
        del os.environ["PYTHONSAFEPATH"]
        if before is not None:
            os.environ["PYTHONSAFEPATH"] = before


def checked_name(name: object, what: str, source: str | os.PathLike[str], *, nested: bool = False) -> str:
    """Returns a name that may become part of a path.

    Args:
        name: As it was found.
        what: What it names, such as `video`; for the message.
        source: Where it was found: a file, or a setting such as `name=`.
        nested: Whether it may lie in folders: `set/class/image`.

    Raises:
        DataError: It is not text, empty, too long, absolute, hidden, leads elsewhere (`..`), or holds a backslash, a
            control character, or a slash although it is not `nested`.
    """
    problem = _problem(name, nested)
    if problem is not None:
        raise DataError(
            f"{os.fspath(source)}: {what} {_shown(name)} {problem}",
            f"correct it there: a name of a {what} becomes a file's or folder's name",
        )
    return str(name)


def _problem(name: object, nested: bool) -> str | None:
    if not isinstance(name, str):
        return "is not text"
    if any(unicodedata.category(letter) in _REFUSED or letter in _TURNING for letter in name):
        return "holds a control character"
    if "\\" in name:
        return "holds a backslash"
    if name.startswith("/"):
        return "is an absolute path"
    parts = name.split("/")
    if len(parts) > 1 and not nested:
        return "holds a slash"
    for part in parts:
        if not part.strip():
            return "is empty" if len(parts) == 1 else "has an empty part"
        if part in (".", ".."):
            return "leads to another folder"
        if part.startswith("."):
            return "is hidden (it begins with a dot)"
        if len(part.encode()) > _MAX_BYTES:
            return f"is longer than {_MAX_BYTES} bytes"
    return None


def _shown(name: object) -> str:
    text = repr(name)
    return text if len(text) <= 80 else f"{text[:80]}…"


def cache_folder() -> Path:
    """Returns where this machine keeps what it has fetched: `OVOS_CACHE`, else `~/.cache/ovos_ray`."""
    return Path(os.environ.get("OVOS_CACHE") or Path.home() / ".cache" / "ovos_ray")


def below(folder: str | os.PathLike[str], *parts: str) -> Path:
    """Returns a path in a folder, and makes sure that it lies there, wherever links on the way lead.

    Raises:
        DataError: The path leads out of the folder, or is the folder itself.
    """
    target = Path(folder).joinpath(*parts)
    base, there = _resolved(folder), _resolved(target)
    if base == there or not there.is_relative_to(base):
        raise DataError(
            f"{target}: leads to {there}, which does not lie in {base}",
            "remove the link on the way, or give another folder",
        )
    return target


def require_disjoint(
    target: str | os.PathLike[str], sources: Iterable[str | os.PathLike[str]], setting: str = "--out"
) -> None:
    """Makes sure that what is written is none of what is read: no source is the target, in it, or around it.

    `setting` is where the user chose the target; for the message.

    Raises:
        DataError: They overlap, links considered.
    """
    written = _resolved(target)
    for source in sources:
        read = _resolved(source)
        if written.is_relative_to(read) or read.is_relative_to(written):
            raise DataError(
                f"{target}: would be written over {source}, which is read", f"give another folder with {setting}"
            )


def _resolved(path: str | os.PathLike[str]) -> Path:
    try:
        return Path(path).resolve()
    except (OSError, RuntimeError, ValueError) as error:  # links in a circle, no text for a path
        raise DataError(f"{os.fspath(path)!r}: no path that can be followed ({error})") from error


def mark(folder: str | os.PathLike[str], kind: str) -> None:
    """Writes into a folder that this program made it, and what it holds, such as `predictions`."""
    write_marker(Path(folder, MARKER), kind)


def write_marker(marker: Path, kind: str, note: str = "") -> None:
    """Writes a marker: that this program made a folder of this kind, and a line on what is in it."""
    marker.write_text(f"{_HEADER}{kind}\n{note}\n", encoding="utf-8")


def note_of(marker: Path, kind: str) -> str | None:
    """Returns the line that a marker holds; None where there is none of this kind."""
    try:
        header, note, *_ = marker.read_text(encoding="utf-8").split("\n")
    except (OSError, ValueError):
        return None
    return note if header == _HEADER + kind else None


def is_made(folder: str | os.PathLike[str], kind: str) -> bool:
    """Whether a folder says that this program made it, as a folder of this kind."""
    return note_of(Path(folder, MARKER), kind) is not None


def require_replaceable(folder: str | os.PathLike[str], kind: str, *evidence: str, marker: Path | None = None) -> None:
    """Makes sure that replacing a folder takes nothing away that this program did not make.

    Args:
        folder: The folder, which may be absent or empty.
        kind: What it is to hold, such as `predictions`.
        evidence: Patterns of names, such as `index.json` and `frames-*.parquet`. A folder that holds some of each, and
            nothing else, says as much as the marker: those of version 0.1 have none.
        marker: Where its marker lies, if not in it.

    Raises:
        DataError: There is a file, or a folder that somebody else has made or filled.
    """
    path = Path(folder)
    if not os.path.lexists(path):
        return
    if path.is_dir() and (is_made(path, kind) or not any(path.iterdir())):
        return
    if path.is_dir() and marker is not None and note_of(marker, kind) is not None:
        return
    if path.is_dir() and evidence and _holds_only(path, evidence):
        return
    raise DataError(
        f"{path}: exists, and ovos-ray did not make it as a folder of {kind}; it is not replaced",
        "give another folder, or move this one away",
    )


def _holds_only(folder: Path, patterns: Iterable[str]) -> bool:
    """Whether a folder holds files of every pattern, and nothing that fits none."""
    found = [{path for path in folder.iterdir() if fnmatch.fnmatchcase(path.name, pattern)} for pattern in patterns]
    return all(found) and set().union(*found) == set(folder.iterdir())
