"""The affinity read, written once for all networks: which memory positions look like this query position?

The similarity of memory position i and query position j is a negative squared distance,

    S_ij = -s_i · Σ_c e_cj (k_ci - q_cj)² / sqrt(Ck)

with shrinkage s = 1 and selection e = 1 where a network has none (STCN section 3.2; XMem equation 3; Cutie the same).
Expanded, it is one dot product of augmented vectors, k' = s·[-k², 2k, -1] and q' = [e, e·q, Σ e·q²] (without e the
first part shrinks to one channel, without s the last disappears). Large terms cancel in it: it is computed in float32,
which on a GPU must not be TF32.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ovos_ray.networks.precision import full_precision

__all__ = ["LEAN_ABOVE", "ReadPath", "augment_memory", "augment_query", "read"]

ReadPath = Literal["auto", "exact", "lean"]

# Above this many affinities in one matrix, `auto` no longer materialises it (64 Mi floats are 256 MiB).
LEAN_ABOVE = 64 * 1024 * 1024
# On the lean path: queries handled together, and affinities held together if more queries than that fit, on a GPU.
_CHUNK = 256
_CHUNK_AFFINITIES = LEAN_ABOVE // 4


def augment_memory(key: Tensor, shrinkage: Tensor | None, *, with_selection: bool) -> Tensor:
    """Returns k' for memory keys.

    Args:
        key: (B, Ck, M) keys of M memory positions.
        shrinkage: (B, 1, M), or None.
        with_selection: Whether queries come with a selection.

    Returns:
        (B, D, M) float32, D = 2 Ck + 1 with a selection, Ck + 1 or Ck + 2 without.
    """
    key = full_precision(key)
    square = key.square() if with_selection else key.square().sum(1, keepdim=True)
    parts = [square.neg(), 2 * key]
    if shrinkage is not None:  # without it the term in q² is the same for all memory positions: softmax drops it
        parts.append(key.new_full((key.shape[0], 1, key.shape[2]), -1.0))
    augmented = torch.cat(parts, dim=1)
    return augmented if shrinkage is None else torch.mul(augmented, full_precision(shrinkage))


def augment_query(query: Tensor, selection: Tensor | None, *, with_shrinkage: bool) -> Tensor:
    """Returns q' / sqrt(Ck) for queries (B, Ck, Q); selection (B, Ck, Q) or None. Shapes as `augment_memory`."""
    query = full_precision(query)
    scale = math.sqrt(query.shape[1])
    if selection is None:
        parts = [torch.ones_like(query[:, :1]), query]
        square = query.square()
    else:
        selection = full_precision(selection)
        weighted = selection * query
        parts = [selection, weighted]
        square = weighted * query
    if with_shrinkage:
        parts.append(square.sum(1, keepdim=True))
    return torch.cat(parts, dim=1) / scale


def read(
    key: Tensor,
    shrinkage: Tensor | None,
    value: Tensor,
    query: Tensor,
    selection: Tensor | None,
    *,
    path: ReadPath = "auto",
) -> Tensor:
    """Reads memory values for every query position, in float32 whatever the autocast.

    Args:
        key: (B, Ck, M) keys of the memory positions.
        shrinkage: (B, 1, M), or None.
        value: (B, N, Cv, M) values of N objects; all read with one affinity.
        query: (B, Ck, Q).
        selection: (B, Ck, Q), or None.
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
            return _read_exact(memory, queries, flat).view(*value.shape[:3], -1)
        return _read_chunked(memory, queries, flat).view(*value.shape[:3], -1)


def _read_exact(memory: Tensor, queries: Tensor, flat: Tensor) -> Tensor:
    weights = torch.bmm(memory.transpose(1, 2), queries).softmax(dim=1)
    return torch.bmm(flat, weights.to(flat.dtype))


def _read_chunked(memory: Tensor, queries: Tensor, flat: Tensor) -> Tensor:
    """Exact affinities for a few queries at a time; with gradient, each chunk is recomputed instead of stored."""
    size = _CHUNK
    if queries.is_cuda:  # a CPU is fastest with what fits its caches, a GPU with few, large products
        size = max(size, _CHUNK_AFFINITIES // (memory.shape[0] * memory.shape[2]))
    parts = torch.split(queries, size, dim=2)
    if not torch.is_grad_enabled():
        return torch.cat([_read_exact(memory, part, flat) for part in parts], dim=2)
    return torch.cat(
        [checkpoint(_read_exact, memory, part, flat, use_reentrant=False, preserve_rng_state=False) for part in parts],
        dim=2,
    )
