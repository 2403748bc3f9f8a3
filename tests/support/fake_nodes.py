"""Nodes that are processes of this machine, for Ray's autoscaler; named in its configuration by `processes.RayHead`."""

from __future__ import annotations

from typing import Any

from ray.autoscaler._private.fake_multi_node.node_provider import FakeMultiNodeProvider


class FakeNodes(FakeMultiNodeProvider):  # type: ignore[misc]  # ray is untyped
    """Ray's own, of whose nodes the autoscaler may know the memory: a new node finds out itself how much it has."""

    def _create_node_with_resources_and_labels(
        self, node_config: Any, tags: Any, count: int, resources: dict[str, float], labels: Any
    ) -> None:
        known = {name: number for name, number in resources.items() if name != "memory"}
        super()._create_node_with_resources_and_labels(node_config, tags, count, known, labels)
