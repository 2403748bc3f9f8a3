"""Cutie's object memory: summaries of what each object looks like, and the transformer that reads them.

A few queries per object, half of them for its foreground and half for everything else, exchange information with the
pixels of the readout (Cutie section 3.2). Published parameter names throughout.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ovos_ray.networks.blocks import CAResBlock, aggregate_logits
from ovos_ray.networks.convolutions import PointwiseConv2d
from ovos_ray.networks.precision import full_precision

__all__ = ["ObjectSummarizer", "ObjectTransformer", "PositionalEncoding"]

_SCALE = 32.0  # coordinate of the last row and column
_TEMPERATURE = 128.0  # base of the geometric series of frequencies


class PositionalEncoding(nn.Module):
    """Sines and cosines of the relative position in the image, x in the first half of the channels and y in the other.

    Args:
        dim: Channels, a multiple of 4.
    """

    inv_freq: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        half = dim // 2
        self.register_buffer("inv_freq", _TEMPERATURE ** (-torch.arange(0, half, 2).float() / half))

    def forward(self, height: int, width: int) -> Tensor:
        """Returns (height, width, dim), float32."""
        x = self._encode(width)[None].expand(height, -1, -1)
        y = self._encode(height)[:, None].expand(-1, width, -1)
        return torch.cat([x, y], dim=-1)

    def _encode(self, length: int) -> Tensor:
        frequencies = full_precision(self.inv_freq)
        positions = torch.arange(length, device=frequencies.device, dtype=frequencies.dtype)
        angles = torch.outer(positions / (length - 1 + 1e-6) * _SCALE, frequencies)
        return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


class ObjectSummarizer(nn.Module):
    """Pools memory values into sums per query, weighted by where the query looks and by the object's mask.

    Args:
        dim: C, channels of the memory values.
        num_queries: Q; the first half sees the object, the second half everything else.
    """

    def __init__(self, dim: int, num_queries: int) -> None:
        super().__init__()
        self.pos_enc = PositionalEncoding(dim)
        self.input_proj = nn.Linear(dim, dim)
        self.feature_pred = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim))
        self.weights_pred = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, num_queries))
        self.num_foreground = num_queries // 2

    def forward(self, masks: Tensor, value: Tensor) -> Tensor:
        """Takes masks (B·N, h, w) and values (B·N, C, h, w).

        Returns:
            (B·N, Q, C+1): sums over positions of weight times feature, and of the weights; float32.
        """
        x = self.input_proj(_tokens(value))
        with torch.autocast(value.device.type, enabled=False):
            x = full_precision(x) + self.pos_enc(*value.shape[-2:]).flatten(0, 1)
            own = full_precision(masks).flatten(1)[:, :, None]
            weights = self.weights_pred(x).sigmoid()
            foreground, background = weights[..., : self.num_foreground], weights[..., self.num_foreground :]
            weights = torch.cat([foreground * own, background * (1 - own)], dim=-1).transpose(1, 2)
            return torch.cat([weights @ self.feature_pred(x), weights.sum(-1, keepdim=True)], dim=-1)


class _Attention(nn.Module):
    """Multi-head attention; its parameters are named as torch's."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * dim, dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * dim))
        self.out_proj = nn.Linear(dim, dim)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, allowed: Tensor | None = None) -> Tensor:
        """Takes (M, L, C) queries, (M, S, C) keys and values, and where to attend, (M, 1, L, S) bool."""
        q, k, v = (
            F.linear(x, weight, bias).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for x, weight, bias in zip(
                (query, key, value), self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3), strict=True
            )
        )
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed)
        return self.out_proj(out.transpose(1, 2).flatten(2))


class _CrossAttention(nn.Module):
    """Attention to other tokens. With `norm`, the residual is the *normalised* query: the published behaviour."""

    def __init__(self, dim: int, heads: int, *, norm: bool) -> None:
        super().__init__()
        self.cross_attn = _Attention(dim, heads)
        self.norm = nn.LayerNorm(dim) if norm else nn.Identity()

    def forward(self, x: Tensor, x_pe: Tensor, key: Tensor, value: Tensor, allowed: Tensor | None = None) -> Tensor:
        x = self.norm(x)
        return x + self.cross_attn(x + x_pe, key, value, allowed)


class _SelfAttention(nn.Module):
    """The residual is the normalised input here too."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.self_attn = _Attention(dim, heads)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor, x_pe: Tensor) -> Tensor:
        x = self.norm(x)
        positioned = x + x_pe
        return x + self.self_attn(positioned, positioned, x)


class _FeedForward(nn.Module):
    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(dim, hidden)
        self.linear2 = nn.Linear(hidden, dim)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.linear2(torch.relu_(self.linear1(self.norm(x))))


class _PixelFeedForward(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv = CAResBlock(dim)

    def forward(self, tokens: Tensor, height: int) -> Tensor:
        return _tokens(self.conv(_maps(tokens, height)))


class _Block(nn.Module):
    def __init__(self, dim: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.read_from_pixel = _CrossAttention(dim, heads, norm=True)
        self.self_attn = _SelfAttention(dim, heads)
        self.ffn = _FeedForward(dim, hidden)
        self.read_from_query = _CrossAttention(dim, heads, norm=False)
        self.pixel_ffn = _PixelFeedForward(dim)

    def forward(
        self, query: Tensor, query_pe: Tensor, pixel: Tensor, pixel_pe: Tensor, allowed: Tensor, height: int
    ) -> tuple[Tensor, Tensor]:
        query = self.read_from_pixel(query, query_pe, pixel + pixel_pe, pixel, allowed)
        query = self.ffn(self.self_attn(query, query_pe))
        pixel = self.read_from_query(pixel, pixel_pe, query + query_pe, query)
        return query, self.pixel_ffn(pixel, height)


class ObjectTransformer(nn.Module):
    """Lets the pixels of the readout and the object summaries inform each other."""

    def __init__(self, dim: int, num_queries: int, num_blocks: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.query_init = nn.Embedding(num_queries, dim)
        self.query_emb = nn.Embedding(num_queries, dim)
        self.summary_to_query_init = nn.Linear(dim, dim)
        self.summary_to_query_emb = nn.Linear(dim, dim)
        self.pixel_init_proj = PointwiseConv2d(dim, dim)
        self.pixel_emb_proj = PointwiseConv2d(dim, dim)
        self.spatial_pe = PositionalEncoding(dim)
        self.blocks = nn.ModuleList(_Block(dim, heads, hidden) for _ in range(num_blocks))
        self.mask_pred = nn.ModuleList(nn.Sequential(nn.ReLU(), nn.Conv2d(dim, 1, 1)) for _ in range(num_blocks + 1))

    def forward(
        self, readout: Tensor, summary: Tensor, objects: int, selector: Tensor | None, aux: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Takes a readout (B·N, C, h, w), summaries (B·N, Q, C+1), N, and the selector (B, N) or None.

        Returns:
            The refined readout (B·N, C, h, w), and, if `aux`, aggregated mask logits of all heads (L, B, 1+N, h, w).
        """
        height, width = readout.shape[-2:]
        with torch.autocast(readout.device.type, enabled=False):
            mean = summary[..., :-1] / (summary[..., -1:] + 1e-4)
        query = self.query_init.weight + self.summary_to_query_init(mean)
        query_pe = self.query_emb.weight + self.summary_to_query_emb(mean)
        pixel = _tokens(self.pixel_init_proj(readout))
        pixel_pe = _tokens(self.pixel_emb_proj(readout)) + self.spatial_pe(height, width).flatten(0, 1)

        heads = []
        for index, block in enumerate(self.blocks):
            logits = self._masks(index, pixel, height, objects, selector)
            heads.append(logits)
            query, pixel = block(query, query_pe, pixel, pixel_pe, self._allowed(logits), height)
        if aux:
            heads.append(self._masks(len(self.blocks), pixel, height, objects, selector))
        return _maps(pixel, height), torch.stack(heads) if aux else None

    def _masks(self, index: int, pixel: Tensor, height: int, objects: int, selector: Tensor | None) -> Tensor:
        return aggregate_logits(self.mask_pred[index](_maps(pixel, height)), objects, selector)

    @torch.no_grad()
    def _allowed(self, logits: Tensor) -> Tensor:
        """Where each query may look, (B·N, 1, Q, h·w): foreground queries at the object, the others elsewhere."""
        foreground = (logits[:, 1:] >= logits.amax(1, keepdim=True)).flatten(0, 1).flatten(1)[:, None, None]
        half = self.query_init.num_embeddings // 2
        allowed = torch.cat([foreground.expand(-1, -1, half, -1), ~foreground.expand(-1, -1, half, -1)], dim=2)
        return allowed | ~allowed.any(-1, keepdim=True)


def _tokens(maps: Tensor) -> Tensor:
    return maps.flatten(2).transpose(1, 2)


def _maps(tokens: Tensor, height: int) -> Tensor:
    return tokens.transpose(1, 2).unflatten(-1, (height, -1))
