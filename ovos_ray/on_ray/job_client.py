"""A cluster's job server: connecting to it with a token, and following a job to its exit status."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from ovos_ray.errors import ClusterError, first_line
from ovos_ray.on_ray.private import CHATTY_LOGGERS

__all__ = ["connect", "follow", "use_token"]

_RECONNECT_S = 300.0


def use_token(token_file: Path | None = None) -> None:
    """Lets this process send the cluster's token. Ray reads the variables when it is imported, so call this before.

    Args:
        token_file: File with the token; None: `RAY_AUTH_TOKEN` or `RAY_AUTH_TOKEN_PATH`, if set.

    Raises:
        ClusterError: There is no such file.
    """
    if token_file is not None:
        if not token_file.is_file():
            raise ClusterError(f"there is no token file {token_file}")
        os.environ.pop("RAY_AUTH_TOKEN", None)
        os.environ["RAY_AUTH_TOKEN_PATH"] = str(token_file.absolute())
    if {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys():
        os.environ.setdefault("RAY_AUTH_MODE", "token")  # Ray sends no token without


def connect(address: str | None = None, token_file: Path | None = None) -> Any:
    """Returns a `JobSubmissionClient` of the cluster.

    Args:
        address: The cluster, as `http://HEAD:8265`; None: `RAY_API_SERVER_ADDRESS`, `RAY_ADDRESS`, or one on this
            machine.
        token_file: File with the cluster's token; None: `RAY_AUTH_TOKEN` or `RAY_AUTH_TOKEN_PATH`, if set.

    Raises:
        ClusterError: It cannot be reached, or asks for another token.
    """
    if address:
        os.environ["RAY_API_SERVER_ADDRESS"] = address  # Ray prefers its variables to what it is told
    use_token(token_file)
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    for name in CHATTY_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
    where = address or os.environ.get("RAY_API_SERVER_ADDRESS") or os.environ.get("RAY_ADDRESS")
    try:
        return JobSubmissionClient(address)
    except AuthenticationError as error:
        raise ClusterError(
            f"the cluster {where} does not let this user in ({first_line(error)})",
            "give the token its head was started with: --token-file FILE, or RAY_AUTH_MODE=token and RAY_AUTH_TOKEN "
            "(docs/cluster.md, Authentication)",
        ) from error
    except Exception as error:  # requests and Ray raise many kinds
        raise ClusterError(
            f"no Ray cluster answers at {where or 'this machine'} ({type(error).__name__}: {first_line(error)})",
            "give its dashboard as --address http://HEAD:8265, or start one here: ray start --head",
        ) from error


def follow(client: Any, job: str, console: Console) -> int:
    """Prints a job's log to a console until it ends, over broken connections too, and returns its exit status.

    Raises:
        ClusterError: The cluster stayed out of reach; the job may go on.
    """
    import aiohttp

    log, deadline = _Log(client, job, console), None
    while True:
        try:
            asyncio.run(log.print_rest())
            info = client.get_job_info(job)
            if info.status.is_terminal():
                return _exit_status(job, info, console)
            deadline = None
        except (RuntimeError, OSError, aiohttp.ClientError) as error:
            deadline = deadline or time.monotonic() + _RECONNECT_S
            if time.monotonic() > deadline:
                raise ClusterError(
                    f"the cluster was out of reach for {_RECONNECT_S:.0f} s ({first_line(error)}); the job may go on",
                    f"look again later: ray job status {job}, ray job logs --follow {job}",
                ) from error
        time.sleep(1)


class _Log:
    """A job's log, printed once although every new connection begins with its first line."""

    def __init__(self, client: Any, job: str, console: Console) -> None:
        self._client, self._job, self._console = client, job, console
        self._printed = 0

    async def print_rest(self) -> None:
        seen = 0
        async for text in self._client.tail_job_logs(self._job):
            fresh = text[max(0, self._printed - seen) :]
            seen += len(text)
            self._printed = max(self._printed, seen)
            self._console.print(fresh, end="")
            self._console.file.flush()


def _exit_status(job: str, info: Any, console: Console) -> int:
    status = str(info.status)
    code = info.driver_exit_code
    if status == "SUCCEEDED":
        console.print(f"job {job} succeeded")
        return 0
    if status == "FAILED" and code is None and info.message:
        console.print(info.message)  # it failed before its log began
    code = 1 if not code else 128 - code if code < 0 else code  # a signal, as a shell tells it
    console.print(f"job {job} {'was stopped' if status == 'STOPPED' else f'failed with exit status {code}'}")
    return code
