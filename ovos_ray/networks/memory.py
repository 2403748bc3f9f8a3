"""The affinity read, written once for all networks: which memory positions look like this query position?

The similarity of memory position i and query position j is a negative squared distance,

    S_ij = -s_i · Σ_c e_cj (k_ci - q_cj)² / sqrt(Ck)

with shrinkage s = 1 and selection e = 1 where a network has none (STCN section 3.2; XMem equation 3; Cutie the same).
Expanded, it is one dot product of augmented vectors, k' = s·[-k², 2k, -1] and q' = [e, e·q, Σ e·q²] (without e the
first part shrinks to one channel, without s the last disappears), so it is also what attention kernels compute.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

__all__ = ["ReadPath", "affinity", "augment_memory", "augment_query", "read", "read_with_usage", "similarity"]

ReadPath = Literal["auto", "exact", "lean"]

# Above this many affinities in one matrix, `auto` no longer materialises it (64 Mi floats are 256 MiB).
LEAN_ABOVE = 64 * 1024 * 1024
# Queries handled together on the lean path where no fused kernel takes the read.
_CHUNK = 256


def augment_memory(key: Tensor, shrinkage: Tensor | None, *, with_selection: bool) -> Tensor:
    """Returns k' for memory keys.

    Args:
        key: (B, Ck, M) keys of M memory positions.
        shrinkage: (B, 1, M), or None.
        with_selection: Whether queries come with a selection.

    Returns:
        (B, D, M) float32, D = 2 Ck + 1 with a selection, Ck + 1 or Ck + 2 without.
    """
    key = key.float()
    square = key.square() if with_selection else key.square().sum(1, keepdim=True)
    parts = [square.neg(), 2 * key]
    if shrinkage is not None:  # without it the term in q² is the same for all memory positions: softmax drops it
        parts.append(key.new_full((key.shape[0], 1, key.shape[2]), -1.0))
    augmented = torch.cat(parts, dim=1)
    return augmented if shrinkage is None else torch.mul(augmented, shrinkage.float())


def augment_query(query: Tensor, selection: Tensor | None, *, with_shrinkage: bool) -> Tensor:
    """Returns q' / sqrt(Ck) for queries (B, Ck, Q); selection (B, Ck, Q) or None. Shapes as `augment_memory`."""
    query = query.float()
    scale = math.sqrt(query.shape[1])
    if selection is None:
        parts = [torch.ones_like(query[:, :1]), query]
        square = query.square()
    else:
        selection = selection.float()
        weighted = selection * query
        parts = [selection, weighted]
        square = weighted * query
    if with_shrinkage:
        parts.append(square.sum(1, keepdim=True))
    return torch.cat(parts, dim=1) / scale


def similarity(key: Tensor, shrinkage: Tensor | None, query: Tensor, selection: Tensor | None) -> Tensor:
    """Returns S (B, M, Q) in float32, up to a constant per query, for keys (B, Ck, M) and queries (B, Ck, Q)."""
    memory = augment_memory(key, shrinkage, with_selection=selection is not None)
    return torch.bmm(memory.transpose(1, 2), augment_query(query, selection, with_shrinkage=shrinkage is not None))


def affinity(scores: Tensor, top_k: int | None = None) -> Tensor:
    """Normalises similarities (B, M, Q) over memory; with `top_k` all but the k largest per query become zero."""
    if top_k is None or top_k >= scores.shape[1]:
        return scores.softmax(dim=1)
    values, indices = scores.topk(top_k, dim=1)
    return torch.zeros_like(scores).scatter_(1, indices, values.softmax(dim=1))


def read(
    key: Tensor,
    shrinkage: Tensor | None,
    value: Tensor,
    query: Tensor,
    selection: Tensor | None,
    *,
    top_k: int | None = None,
    path: ReadPath = "auto",
) -> Tensor:
    """Reads memory values for every query position, in float32 whatever the autocast.

    Args:
        key: (B, Ck, M) keys of the memory positions.
        shrinkage: (B, 1, M), or None.
        value: (B, N, Cv, M) values of N objects; all read with one affinity.
        query: (B, Ck, Q).
        selection: (B, Ck, Q), or None.
        top_k: Memory positions kept per query; None: all.
        path: `exact` builds the (M, Q) matrix; `lean` never does and agrees with it to 1e-4; `auto` is exact as long
            as the matrix is small.

    Returns:
        (B, N, Cv, Q), in the dtype of `value`.
    """
    with torch.autocast(query.device.type, enabled=False):
        memory = augment_memory(key, shrinkage, with_selection=selection is not None)
        queries = augment_query(query, selection, with_shrinkage=shrinkage is not None)
        flat = value.flatten(1, 2)
        if path == "auto":
            path = "lean" if memory.shape[0] * memory.shape[2] * queries.shape[2] > LEAN_ABOVE else "exact"
        if path == "exact":
            weights = affinity(memory.transpose(1, 2) @ queries, top_k)
            return torch.bmm(flat, weights.to(flat.dtype)).view(*value.shape[:3], -1)
        if top_k is None and query.is_cuda:
            return _read_fused(memory, queries, value)
        return _read_chunked(memory, queries, flat, top_k).view(*value.shape[:3], -1)


def read_with_usage(
    key: Tensor,
    shrinkage: Tensor | None,
    value: Tensor,
    query: Tensor,
    selection: Tensor | None,
    *,
    top_k: int | None = None,
) -> tuple[Tensor, Tensor]:
    """As `read`, and how much each memory position was used: (B, M), its affinities summed over queries."""
    with torch.autocast(query.device.type, enabled=False):
        weights = affinity(similarity(key, shrinkage, query, selection), top_k)
        flat = value.flatten(1, 2)
        return torch.bmm(flat, weights.to(flat.dtype)).view(*value.shape[:3], -1), weights.sum(2)


def _read_fused(memory: Tensor, queries: Tensor, value: Tensor) -> Tensor:
    """Attention by a fused kernel, objects as heads. Channels are padded to the alignment the kernels ask for."""
    extra = -memory.shape[1] % 8
    heads = value.shape[1]
    k = F.pad(memory, (0, 0, 0, extra)).transpose(1, 2).unsqueeze(1).expand(-1, heads, -1, -1)
    q = F.pad(queries, (0, 0, 0, extra)).transpose(1, 2).unsqueeze(1).expand(-1, heads, -1, -1)
    out = F.scaled_dot_product_attention(q, k, value.float().transpose(2, 3), scale=1.0)
    return out.transpose(2, 3).to(value.dtype)


def _read_chunked(memory: Tensor, queries: Tensor, flat: Tensor, top_k: int | None) -> Tensor:
    """Exact affinities for a few queries at a time; with gradient, each chunk is recomputed instead of stored."""

    def chunk(memory: Tensor, part: Tensor, flat: Tensor) -> Tensor:
        return torch.bmm(flat, affinity(memory.transpose(1, 2) @ part, top_k).to(flat.dtype))

    parts = torch.split(queries, _CHUNK, dim=2)
    if not torch.is_grad_enabled():
        return torch.cat([chunk(memory, part, flat) for part in parts], dim=2)
    return torch.cat(
        [checkpoint(chunk, memory, part, flat, use_reentrant=False, preserve_rng_state=False) for part in parts], dim=2
    )
