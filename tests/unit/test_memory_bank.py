"""The test-time memory against plain re-implementations of what the papers say."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from ovos_ray.evaluate.infer.memory_bank import MemoryBank
from ovos_ray.evaluate.infer.settings import InferenceSettings
from ovos_ray.networks.base import FrameFeatures, MemoryFrame

CK, CV, N, H, W = 6, 5, 2, 3, 4


def frame(seed: int, anisotropic: bool = True) -> tuple[MemoryFrame, FrameFeatures]:
    g = torch.Generator().manual_seed(seed)
    key = torch.randn(1, CK, H, W, generator=g)
    shrinkage = 1 + torch.rand(1, 1, H, W, generator=g) if anisotropic else None
    selection = torch.rand(1, CK, H, W, generator=g) if anisotropic else None
    features = FrameFeatures(key=key, shrinkage=shrinkage, selection=selection, image=torch.zeros(1, 3, 16 * H, 16 * W))
    value = torch.randn(1, N, CV, H, W, generator=g)
    return MemoryFrame(key=key, shrinkage=shrinkage, value=value), features


def plain_affinity(
    keys: Tensor, shrinkage: Tensor | None, query: Tensor, selection: Tensor | None, top_k: int | None
) -> Tensor:
    """(P, Ck), (P, 1), (Ck, Q), (Ck, Q) to (P, Q), by the formula of XMem's equation 2."""
    difference = (keys[:, :, None] - query[None]) ** 2
    scores = -(difference * (1 if selection is None else selection[None])).sum(1) / math.sqrt(CK)
    if shrinkage is not None:
        scores = scores * shrinkage
    if top_k is not None and top_k < len(scores):
        least = scores.topk(top_k, dim=0).values[-1:]
        scores = scores.masked_fill(scores < least, -torch.inf)
    return scores.softmax(0)


def rows(x: Tensor) -> Tensor:
    return x[0].flatten(1).T


def settings(**changes: object) -> InferenceSettings:
    return InferenceSettings(**{"top_k": None, "max_frames": None} | changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("top_k", [None, 1, 4, 1000])
@pytest.mark.parametrize("anisotropic", [True, False])
@pytest.mark.parametrize("chunked", [False, True])
def test_reads_what_the_formula_says(monkeypatch, top_k, anisotropic, chunked):
    if chunked:
        monkeypatch.setattr("ovos_ray.evaluate.infer.memory_bank._MAX_AFFINITIES", 5 * 3 * H * W)
    bank = MemoryBank(settings(top_k=top_k), N)
    frames = [frame(seed, anisotropic) for seed in range(3)]
    for memory, features in frames:
        bank.append(memory, features)
    query = frame(9, anisotropic)[1]
    keys = torch.cat([rows(m.key) for m, _ in frames])
    shrinkage = torch.cat([rows(m.shrinkage) for m, _ in frames]) if anisotropic else None
    selection = query.selection[0].flatten(1) if anisotropic else None
    weights = plain_affinity(keys, shrinkage, query.key[0].flatten(1), selection, top_k)
    values = torch.cat([m.value[0].flatten(2) for m, _ in frames], dim=2)
    expected = torch.einsum("ncp,pq->ncq", values, weights).view(1, N, CV, H, W)
    torch.testing.assert_close(bank.read(query).value, expected, rtol=1e-4, atol=1e-5)


def test_first_frame_stays_and_the_oldest_of_the_others_goes():
    bank = MemoryBank(settings(max_frames=3), N)
    frames = [frame(seed) for seed in range(7)]
    for memory, features in frames:
        bank.append(memory, features)
    assert bank.num_frames == 3
    kept = torch.cat([rows(frames[t][0].key) for t in (0, 5, 6)])
    torch.testing.assert_close(bank._columns["key"], kept)


def test_without_bound_everything_stays():
    bank = MemoryBank(settings(), N)
    for seed in range(7):
        bank.append(*frame(seed))
    assert bank.num_frames == 7


def test_summaries_of_all_frames_are_added_even_of_those_dropped():
    bank = MemoryBank(settings(max_frames=2), N)
    total = torch.zeros(1, N, 3, 4)
    for seed in range(5):
        memory, features = frame(seed)
        summary = torch.full((1, N, 3, 4), float(seed))
        bank.append(
            MemoryFrame(key=memory.key, shrinkage=memory.shrinkage, value=memory.value, summary=summary), features
        )
        total += summary
    torch.testing.assert_close(bank.read(frame(9)[1]).summary, total)


LONG = {"long_term": True, "max_frames": 5, "min_frames": 2, "num_prototypes": 7, "top_k": 6}


def test_consolidation_follows_the_paper():
    """Most used positions of the middle frames become keys; values and shrinkage are smoothed over those frames."""
    bank = MemoryBank(settings(**LONG), N)
    frames = [frame(seed) for seed in range(5)]
    size = H * W
    use, life = torch.zeros(0), torch.zeros(0)
    for t, (memory, features) in enumerate(frames):
        bank.append(memory, features)
        use, life = torch.cat([use, torch.zeros(size)]), torch.cat([life, torch.full((size,), 1e-7)])
        if t == 4:
            break
        for seed in (20 + t, 30 + t):
            query = frame(seed)[1]
            bank.read(query)
            keys = torch.cat([rows(m.key) for m, _ in frames[: t + 1]])
            shrinkage = torch.cat([rows(m.shrinkage) for m, _ in frames[: t + 1]])
            weights = plain_affinity(keys, shrinkage, query.key[0].flatten(1), query.selection[0].flatten(1), 6)
            use, life = use + weights.sum(1), life + 1
    assert (bank.num_frames, bank.num_prototypes) == (2, 7)
    middle = slice(size, 4 * size)  # all but the first frame and the newest one
    keys = torch.cat([rows(m.key) for m, _ in frames])[middle]
    shrinkage = torch.cat([rows(m.shrinkage) for m, _ in frames])[middle]
    selection = torch.cat([rows(f.selection) for _, f in frames])[middle]
    values = torch.cat([rows(m.value.flatten(1, 2)) for m, _ in frames])[middle]
    chosen = (use / life)[middle].topk(7).indices
    weights = plain_affinity(keys, shrinkage, keys[chosen].T, selection[chosen].T, None)
    stored = {name: column[size : size + 7] for name, column in bank._columns.items()}
    torch.testing.assert_close(stored["key"], keys[chosen])
    torch.testing.assert_close(stored["value"], weights.T @ values, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(stored["shrinkage"], weights.T @ shrinkage, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(bank._columns["key"][:size], rows(frames[0][0].key))
    torch.testing.assert_close(bank._columns["key"][size + 7 :], rows(frames[4][0].key))


@pytest.mark.parametrize("buffer_tokens", [0, 5])
def test_long_term_memory_is_bounded_and_forgets_the_least_used(buffer_tokens):
    bank = MemoryBank(settings(**LONG, max_tokens=30, buffer_tokens=buffer_tokens), N)
    largest = 0
    forgotten = 0
    for seed in range(60):
        before = bank.num_prototypes
        usage = (bank._columns["use"] / bank._columns["life"])[H * W : H * W + before] if before else None
        keys = bank._columns["key"][H * W : H * W + before].clone() if before else None
        bank.append(*frame(seed))
        if bank.num_prototypes and before >= 30 - 7 and bank.num_frames == 2:
            forgotten += 1
            kept = usage.sort(descending=True, stable=True).indices[: 30 - 7 - buffer_tokens].sort().values
            torch.testing.assert_close(bank._columns["key"][H * W : H * W + len(kept)], keys[kept])
            assert bank.num_prototypes == len(kept) + 7
        bank.read(frame(100 + seed)[1])
        largest = max(largest, bank.num_prototypes)
        assert bank.num_positions <= 5 * H * W + 30
    assert largest <= 30
    assert forgotten > 3


def test_fewer_candidates_than_prototypes():
    bank = MemoryBank(settings(**LONG | {"num_prototypes": 500}, max_tokens=10_000), N)
    for seed in range(6):
        bank.append(*frame(seed))
    assert bank.num_prototypes == 3 * H * W
