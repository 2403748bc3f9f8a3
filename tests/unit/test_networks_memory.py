"""The affinity read, against loops."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ovos_ray.networks import memory
from ovos_ray.networks.memory import read

CASES = [(False, False), (True, True), (True, False), (False, True)]


def _inputs(shrinkage: bool, selection: bool, positions: int = 12, queries: int = 7) -> dict[str, Tensor | None]:
    rng = torch.Generator().manual_seed(3)
    return {
        "key": torch.randn(2, 4, positions, generator=rng),
        "shrinkage": 1 + torch.rand(2, 1, positions, generator=rng) if shrinkage else None,
        "value": torch.randn(2, 3, 5, positions, generator=rng),
        "query": torch.randn(2, 4, queries, generator=rng),
        "selection": torch.rand(2, 4, queries, generator=rng) if selection else None,
    }


def _by_loops(data: dict[str, Tensor | None]) -> Tensor:
    key, shrinkage, value, query, selection = (
        None if x is None else x.double()
        for x in (data[k] for k in ("key", "shrinkage", "value", "query", "selection"))
    )
    batch, channels, positions = key.shape
    out = torch.zeros(*value.shape[:3], query.shape[2], dtype=torch.float64)
    for b in range(batch):
        for j in range(query.shape[2]):
            scores = []
            for i in range(positions):
                distance = 0.0
                for c in range(channels):
                    weight = 1.0 if selection is None else selection[b, c, j]
                    distance += weight * (key[b, c, i] - query[b, c, j]) ** 2
                scores.append(
                    -float(distance * (1.0 if shrinkage is None else shrinkage[b, 0, i])) / math.sqrt(channels)
                )
            total = sum(math.exp(score) for score in scores)
            for i, score in enumerate(scores):
                out[b, :, :, j] += math.exp(score) / total * value[b, :, :, i]
    return out


@pytest.mark.parametrize("path", ["exact", "lean"])
@pytest.mark.parametrize(("shrinkage", "selection"), CASES)
def test_read_is_the_weighted_mean_of_the_values(
    shrinkage: bool, selection: bool, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_CHUNK", 3)
    data = _inputs(shrinkage, selection)
    assert torch.allclose(read(**data, path=path).double(), _by_loops(data), atol=1e-5)


def test_paths_agree_at_a_realistic_size_and_so_do_their_gradients() -> None:
    rng = torch.Generator().manual_seed(0)
    shapes = {"key": (1, 64, 1200), "value": (1, 2, 32, 1200), "query": (1, 64, 600)}
    data = {name: torch.randn(shape, generator=rng) for name, shape in shapes.items()}
    data["shrinkage"] = 1 + torch.rand(1, 1, 1200, generator=rng)
    data["selection"] = torch.rand(1, 64, 600, generator=rng)
    results = {}
    for path in ("exact", "lean"):
        leaves = {name: tensor.clone().requires_grad_() for name, tensor in data.items()}
        out = read(**leaves, path=path)
        out.square().mean().backward()
        results[path] = [out.detach(), *(leaves[name].grad for name in sorted(leaves))]
    for exact, lean in zip(results["exact"], results["lean"], strict=True):
        assert (exact - lean).abs().max() <= 1e-4 * max(1.0, exact.abs().max().item())


class _LargestTensor(TorchDispatchMode):
    """Remembers the largest tensor that any operation returned."""

    def __init__(self) -> None:
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, Tensor):
                self.numel = max(self.numel, tensor.numel())
        return result


@pytest.mark.parametrize("gradient", [False, True])
def test_lean_path_never_materialises_the_affinity_matrix(gradient: bool) -> None:
    data = _inputs(True, True, positions=2000, queries=1500)
    largest = {}
    for path in ("exact", "lean"):
        leaves = {name: tensor.requires_grad_(gradient) for name, tensor in data.items()}
        with torch.set_grad_enabled(gradient), _LargestTensor() as seen:
            out = read(**leaves, path=path)
            if gradient:
                out.sum().backward()
        largest[path] = seen.numel
    assert largest["exact"] >= 2 * 2000 * 1500
    assert largest["lean"] <= 2 * 2000 * 256


def test_auto_takes_the_lean_path_when_the_matrix_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    data = _inputs(True, True, positions=200, queries=700)
    with _LargestTensor() as small:
        read(**data)
    monkeypatch.setattr(memory, "LEAN_ABOVE", 2 * 200 * 700 - 1)
    with _LargestTensor() as large:
        read(**data)
    assert large.numel < 2 * 200 * 700 <= small.numel


def test_read_is_exact_under_autocast() -> None:
    data = _inputs(True, True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under = read(**data)
    assert torch.equal(under, read(**data))
