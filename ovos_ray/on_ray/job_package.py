"""What is uploaded with a job: the current folder without what ignore files name, weighed beforehand."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ovos_ray.errors import ResourceError

__all__ = ["DEFAULT_LIMIT_MIB", "JobPackage"]

DEFAULT_LIMIT_MIB = 100
"""Ray refuses 512 MiB; every node unpacks what is sent, so that far less is already a mistake."""
_NUM_NAMED = 5


@dataclass(frozen=True)
class JobPackage:
    """The files of a job's working directory.

    Attributes:
        folder: The folder they lie in.
        sizes: Bytes by path relative to the folder, largest first.
    """

    folder: Path
    sizes: dict[str, int]

    @classmethod
    def of(cls, folder: Path, excludes: Sequence[str] = ()) -> JobPackage:
        """Finds the files that Ray would pack, by Ray's own rules.

        Args:
            folder: The working directory.
            excludes: More patterns, as in a runtime environment's `excludes`.
        """
        from ray._private.ray_constants import RAY_RUNTIME_ENV_IGNORE_GITIGNORE
        from ray._private.runtime_env import packaging

        folder = folder.absolute()
        found: dict[str, int] = {}

        def weigh(path: Path) -> None:
            if path.is_file():
                found[path.relative_to(folder).as_posix()] = path.stat().st_size

        quiet = logging.getLogger(f"{__name__}.ignored")
        quiet.setLevel(logging.WARNING)
        # Private, since Ray has no public way to ask; a test compares the outcome with the archive Ray makes.
        packaging._dir_travel(
            folder,
            [packaging._get_excludes(folder, list(excludes))],
            weigh,
            include_gitignore=os.environ.get(RAY_RUNTIME_ENV_IGNORE_GITIGNORE, "0") != "1",
            logger=quiet,
        )
        return cls(folder, dict(sorted(found.items(), key=lambda item: (-item[1], item[0]))))

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
