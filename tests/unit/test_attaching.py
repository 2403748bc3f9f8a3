"""A cluster named by RAY_ADDRESS that cannot be used is an error that says so, at once."""

from __future__ import annotations

import socket
from typing import Any

import pytest
import ray
from processes import free_port
from ray.exceptions import AuthenticationError

from ovos_ray.errors import ClusterError
from ovos_ray.on_ray.session import attached, ray_session


@pytest.mark.parametrize("address", ["127.0.0.1:{port}", "127.0.0.1:x", "ray://127.0.0.1:{port}"])
def test_an_address_where_nobody_answers(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    address = address.format(port=free_port())
    monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setattr(ray, "init", lambda *_, **__: pytest.fail("Ray would try for minutes"))
    for session in (ray_session(), attached(address)):
        with (
            pytest.raises(ClusterError, match=f"no Ray cluster answers at RAY_ADDRESS = {address} ") as caught,
            session,
        ):
            pass
        assert "HEAD:6379" in str(caught.value.remedy)


def test_a_cluster_that_asks_for_another_token(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise ConnectionError("Failed to connect to Ray cluster") from AuthenticationError("InvalidAuthToken")

    monkeypatch.setattr(ray, "init", refused)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(ClusterError, match=r"does not let this user in .*InvalidAuthToken") as caught:
            attached(address).__enter__()
    assert "RAY_AUTH_TOKEN" in str(caught.value.remedy)
