"""What a server does not have yet: found in the spools under a folder, and sent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ovos_ray.errors import OvosError, TrackingError, first_line
from ovos_ray.track.sender import Sender
from ovos_ray.track.servers import is_known, remember, resolve_tracking_uri
from ovos_ray.track.spool import Spool, find_spools

__all__ = ["Unsent", "backlog", "sync"]


@dataclass(frozen=True)
class Unsent:
    """What `sync` could not send of one run."""

    run_key: str
    experiment: str
    tracking_uri: str
    num_records: int
    reason: str

    def __str__(self) -> str:
        if not self.tracking_uri:
            return self.reason
        left = f"{self.num_records} records" if self.num_records else "the link to the sweep"
        return f"{self.experiment}, {self.run_key}: {left} not sent to {self.tracking_uri}: {self.reason}"


def backlog(spool: Path) -> list[Unsent]:
    """Returns the runs under `spool` with records that no server has confirmed yet; sends nothing."""
    found, damaged = find_spools(spool)
    return [_damaged(error) for error in damaged] + [
        _unsent(one, "waiting") for one in found if not Sender(one).complete
    ]


def sync(
    spool: Path, *, tracking_uri: str | None = None, confirm: Callable[[str, Path], bool] | None = None
) -> list[Unsent]:
    """Sends what is left in the spools under `spool`, runs in use by a living process excepted.

    Spools of this user's own runs go where these were tracked. Others, as from an archive of somebody else, are sent
    only where the user agrees: MLflow adds the user's credentials to what it sends.

    Args:
        spool: The folder given to `Sink.open`, or one above it.
        tracking_uri: A server that records may be sent to, beside those that runs of this user have used.
        confirm: Asked once for each other server, with the first spool that names it. None: they are not sent.

    Returns:
        One entry for each run that is still incomplete on its server, with the reason.

    Raises:
        TrackingError: There is no such folder.
        ConfigError: `tracking_uri` holds credentials.
    """
    if not spool.is_dir():
        raise TrackingError(f"there is no folder {spool}", "give the storage folder of the runs, such as runs")
    allowed = {} if tracking_uri is None else {resolve_tracking_uri(tracking_uri): True}
    found, damaged = find_spools(spool)
    unsent = [_damaged(error) for error in damaged]
    for one in found:
        try:
            reason = _send(one, allowed, confirm)
        except Exception as error:
            reason = first_line(error)
        if reason:
            unsent.append(_unsent(one, reason))
    return unsent


def _send(spool: Spool, allowed: dict[str, bool], confirm: Callable[[str, Path], bool] | None) -> str:
    """Sends one spool; returns why it is not complete, or nothing."""
    sender = Sender(spool)
    if sender.complete:
        return ""
    server = spool.identity.tracking_uri
    if server not in allowed:
        allowed[server] = is_known(server) or (confirm is not None and confirm(server, spool.folder))
        if allowed[server]:
            remember(server)
    if not allowed[server]:
        return f"no run of yours was tracked there; if you trust it: ovos-ray sync --tracking-uri {server} FOLDER"
    with spool.locked() as mine:
        if not mine:
            return "in use by a running process, which sends it itself"
        sender = Sender(spool)  # another process may have sent some of it meanwhile
        sender.drain()
    return "" if sender.complete else f"its parent run {spool.identity.parent_key} is not there yet"


def _unsent(spool: Spool, reason: str) -> Unsent:
    try:
        number = sum(1 for _ in spool.records(spool.sent["offset"]))
    except OSError:
        number = 0
    identity = spool.identity
    return Unsent(identity.run_key, identity.experiment, identity.tracking_uri, number, reason)


def _damaged(error: OvosError) -> Unsent:
    return Unsent("", "", "", 0, error.listed)
