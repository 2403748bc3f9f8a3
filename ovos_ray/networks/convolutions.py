"""Convolutions that spare work: where an image feature meets object features, its share is done once per image."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["FusingConv2d", "PointwiseConv2d", "add_shared"]


def add_shared(own: Tensor, shared: Tensor) -> Tensor:
    """Adds image features (B, C, h, w) to those of each object (B·N, C, h, w)."""
    if len(own) == len(shared):
        return own + shared
    return (own.view(len(shared), -1, *own.shape[1:]) + shared.unsqueeze(1)).flatten(0, 1)


class PointwiseConv2d(nn.Conv2d):
    """A 1x1 convolution that is also fast on one CPU thread.

    There torch leaves 1x1 convolutions of fewer than 16 samples to a general matrix product, half as fast as its
    convolutions on some CPUs. In channels-last layout the rows of an image are a batch of images one row high.
    """

    def __init__(self, in_channels: int, out_channels: int, *, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Takes (M, in, h, w); returns (M, out, h, w)."""
        if not self._by_rows(x):
            return super().forward(x)
        rows = x.permute(0, 2, 3, 1).flatten(0, 1).unsqueeze(1).permute(0, 3, 1, 2)
        out = super().forward(rows).permute(0, 2, 3, 1).squeeze(1)
        return out.view(len(x), -1, *out.shape[1:]).permute(0, 3, 1, 2)

    def _by_rows(self, x: Tensor) -> bool:
        # Below that size it does not pay.
        return (
            not torch.compiler.is_compiling()
            and x.device.type == "cpu"
            and torch.get_num_threads() == 1
            and x.numel() * self.out_channels >= 2**24
            and x.is_contiguous(memory_format=torch.channels_last)
        )


class FusingConv2d(nn.Conv2d):
    """A convolution over the concatenation of image and object channels, without concatenating.

    Args:
        shared: Image channels, the same for all objects of an image.
        own: Channels of each object.
        out: Output channels.
        kernel: Kernel size; padded to keep the resolution.
        shared_first: Which of the two the weight's input channels begin with.
        stride: Stride.
        bias: Whether there is a bias.
    """

    def __init__(
        self,
        shared: int,
        own: int,
        out: int,
        kernel: int,
        *,
        shared_first: bool = True,
        stride: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__(shared + own, out, kernel, stride, padding=kernel // 2, bias=bias)
        self.shared_first = shared_first
        self.boundary = shared if shared_first else own

    def forward(self, shared: Tensor, own: Tensor) -> Tensor:  # type: ignore[override]
        """Takes (B, Cs, h, w) and (B·N, Co, h, w); returns (B·N, out, h', w')."""
        if len(shared) == len(own):
            pair = (shared, own) if self.shared_first else (own, shared)
            return super().forward(torch.cat(pair, dim=1))
        first, second = self.weight[:, : self.boundary], self.weight[:, self.boundary :]
        if not self.shared_first:
            first, second = second, first
        once = F.conv2d(shared, first, self.bias, self.stride, self.padding)
        return add_shared(F.conv2d(own, second, None, self.stride, self.padding), once)
