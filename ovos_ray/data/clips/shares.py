"""Shares of shard folders in a run: how often each is visited, whatever the order in which they are given."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath

from ovos_ray.data.folders.description import pack_command
from ovos_ray.data.shards.index import ShardIndex
from ovos_ray.errors import ConfigError

__all__ = ["check_shared_images", "per_shard"]


def per_shard(
    key: str,
    given: tuple[tuple[str, int], ...] | tuple[int, ...],
    indices: Sequence[ShardIndex],
    folders: Sequence[str],
    default: Sequence[int],
) -> list[int]:
    """Returns a value for every shard folder.

    Args:
        key: Of the setting, for messages.
        given: (name, value) pairs, or a value for each folder in their order; empty: the defaults. A name is that of a
            folder, without `_all`, or of what it holds: a dataset, or a split.
        indices: Of the folders.
        folders: Their paths.
        default: Values of those that no name stands for.

    Raises:
        ConfigError: A name stands for none of them, or there is another number of values.
    """
    named = {pair[0]: pair[1] for pair in given if isinstance(pair, tuple)}
    if given and not named:
        if len(given) != len(indices):
            raise ConfigError(f"data.{key} has {len(given)} values for {len(indices)} data.shards")
        return [value for value in given if isinstance(value, int)]
    values, used = list(default), set()
    for position, index in enumerate(indices):
        names = {index.dataset, index.split}
        if position < len(folders):
            names.add(PurePath(folders[position]).name.removesuffix("_all"))
        for name in names & set(named):
            values[position] = named[name]
            used.add(name)
    if len(used) < len(named):
        raise ConfigError(
            f"data.{key} names {', '.join(sorted(set(named) - used))}, which none of data.shards is "
            f"({', '.join(folders)})",
            f"set data.{key} for these shards, or leave it empty: data.{key}=",
        )
    return values


def check_shared_images(indices: Sequence[ShardIndex], folders: Sequence[str]) -> None:
    """Refuses photographs that lie in two shards: then a folder holds several sets, and their shares are not as said.

    Raises:
        ConfigError: An image is in two folders.
    """
    seen: dict[tuple[str, str], str] = {}
    for index, folder in zip(indices, folders, strict=False):
        for video in index.outlines():
            other = seen.setdefault((index.dataset, video.name), folder)
            if other != folder:
                raise ConfigError(
                    f"{other} and {folder} both hold {video.name!r}, which would be visited more often than was said",
                    f"pack each set for itself: {pack_command(folder)}",
                )
