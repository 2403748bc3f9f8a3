"""What is uploaded with a job: the current folder without what ignore files name, weighed beforehand.

Secrets stay here, and so do files that links bring in from elsewhere: a package lies on every node, and whoever may use
the cluster may read it.
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from ovos_ray.errors import ResourceError
from ovos_ray.on_ray.private import visit_package

__all__ = ["DEFAULT_LIMIT_MIB", "JobPackage"]

DEFAULT_LIMIT_MIB = 100
"""Ray refuses 512 MiB; every node unpacks what is sent, so that far less is already a mistake."""
_NUM_NAMED = 5
_CODE = (".py", ".pyi", ".md")  # a job may need them, and secrets.py is a module of Python's
_SECRET_FOLDERS = frozenset({".aws", ".azure", ".docker", ".gcloud", ".gnupg", ".kube", ".ssh"})
_SECRET_FILES = (
    ".env", ".env.*", "*.env", ".netrc", "_netrc", ".pgpass", ".git-credentials", ".pypirc", ".npmrc",
    ".databrickscfg", "token", "*.token", "*_token", ".boto", ".htpasswd", "credentials", "*credentials.json", "*.pem",
    "*.key", "*.p12", "*.pfx", "id_rsa*", "id_dsa*", "id_ecdsa*", "id_ed25519*", "*kubeconfig*", "secrets.*",
    "rclone.conf", "service-account*.json", "service_account*.json",
)  # fmt: skip
_SECRET_TEXT = re.compile(
    rb"-----BEGIN [A-Z ]*PRIVATE KEY-----|\bAKIA[0-9A-Z]{16}\b|aws_secret_access_key\s*=|client-key-data:"
    rb"|\b(?:ghp|gho|github_pat|hf|glpat)[_-][0-9A-Za-z_]{20,}"
)
_LOOKED_AT = 64 * 1024  # bytes of a file; what is larger is data


@dataclass(frozen=True)
class JobPackage:
    """The files of a job's working directory.

    Attributes:
        folder: The folder they lie in.
        sizes: Bytes by path relative to the folder, largest first.
        left_out: What stays here although no ignore file names it, with the reason: paths relative to the folder.
    """

    folder: Path
    sizes: dict[str, int]
    left_out: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, folder: Path, excludes: Sequence[str] = ()) -> JobPackage:
        """Finds the files that Ray would pack, by Ray's own rules, and among them those that must not be sent.

        Args:
            folder: The working directory.
            excludes: More patterns, as in a runtime environment's `excludes`.
        """
        folder = folder.absolute()
        found: dict[str, int] = {}
        left_out: dict[str, str] = {}
        token = os.environ.get("RAY_AUTH_TOKEN_PATH")
        secrets = {Path(token).resolve()} if token else set()

        def weigh(path: Path) -> None:
            if not path.is_file():
                return
            relative = path.relative_to(folder)
            if reason := _reason_to_keep(folder, relative, secrets) or _told_by_content(path, relative):
                left_out[reason[0]] = reason[1]
            else:
                found[relative.as_posix()] = path.stat().st_size

        visit_package(folder, excludes, weigh)
        return cls(folder, dict(sorted(found.items(), key=lambda item: (-item[1], item[0]))), left_out)

    def patterns(self) -> list[str]:
        """Returns what is left out as Ray's `excludes`, written as in an ignore file."""
        return ["/" + re.sub(r"([\\*?\[\]!# ])", r"\\\1", path) for path in self.left_out]

    def left_out_text(self) -> str:
        """Names what is left out, and why."""
        shown = list(self.left_out.items())[: 2 * _NUM_NAMED]
        more = len(self.left_out) - len(shown)
        return ", ".join(f"{path} ({reason})" for path, reason in shown) + (f" and {more} more" if more else "")

    @property
    def mib(self) -> float:
        """Size of the upload in MiB; Ray's archive is not compressed."""
        return sum(self.sizes.values()) / 2**20

    def largest(self) -> str:
        """Names the largest files with their sizes."""
        named = list(self.sizes.items())[:_NUM_NAMED]
        return ", ".join(f"{name} ({size / 2**20:.1f} MiB)" for name, size in named)

    def to_ignore(self) -> list[str]:
        """Suggests lines for `.rayignore`: where the largest files lie, never a folder that holds code."""
        code = {folder for name in self.sizes if name.endswith(".py") for folder in PurePosixPath(name).parents}
        lines: list[str] = []
        for name in list(self.sizes)[:_NUM_NAMED]:
            path = PurePosixPath(name)
            # The outermost folder without code; the file alone where even its own folder has some.
            free = [folder for folder in path.parents if folder not in code and folder.name]
            line = f"/{free[-1]}/" if free else f"/{path}"
            if line not in lines:
                lines.append(line)
        return lines

    def check(self, limit_mib: float = DEFAULT_LIMIT_MIB) -> None:
        """Checks the size before anything is sent.

        Raises:
            ResourceError: It is too large; names the largest files and what to ignore.
        """
        if self.mib > limit_mib:
            raise ResourceError(
                f"the job's package would be {self.mib:.0f} MiB of {len(self.sizes)} files, more than {limit_mib:g} "
                f"MiB; the largest: {self.largest()}",
                f"add to .rayignore what a job does not need: {' '.join(self.to_ignore())} "
                "(data belong on a disk or bucket that every node reads)",
            )


def _reason_to_keep(folder: Path, relative: Path, secrets: set[Path]) -> tuple[str, str] | None:
    """Returns what is not to be sent of a file's path, and why; None where nothing is wrong with it."""
    base = folder.resolve()
    for depth, part in enumerate(relative.parts, 1):
        outer = Path(*relative.parts[:depth])
        if (folder / outer).is_symlink() and not (folder / outer).resolve().is_relative_to(base):
            return outer.as_posix(), "a link that leads elsewhere"
        if part in _SECRET_FOLDERS and depth < len(relative.parts):
            return outer.as_posix(), "secrets"
    there = (folder / relative).resolve()  # another file of the folder, where this is a link
    if there in secrets or _is_secret(relative) or _is_secret(there.relative_to(base)):
        return relative.as_posix(), "a secret"
    return None


def _told_by_content(path: Path, relative: Path) -> tuple[str, str] | None:
    """Returns the same for a small file that holds a private key or token under a name that does not say so."""
    if path.suffix in _CODE or path.stat().st_size > _LOOKED_AT:
        return None
    try:
        content = path.read_bytes()
    except OSError:  # Ray says it, who reads it next
        return None
    return (relative.as_posix(), "it holds a key or token") if _SECRET_TEXT.search(content) else None


def _is_secret(path: Path) -> bool:
    if not _SECRET_FOLDERS.isdisjoint(path.parent.parts):
        return True
    name = path.name.lower()
    return path.suffix not in _CODE and any(fnmatch.fnmatchcase(name, p) for p in _SECRET_FILES)
