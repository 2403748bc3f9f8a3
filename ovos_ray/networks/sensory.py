"""The recurrent (sensory) memory of XMem and Cutie: one cell, updated from two places. Float32 whatever the autocast.

The cell is no ordinary GRU: h' = f·h·(1 - u) + u·n, with n computed from the un-gated h by the same convolution as the
forget and update gates (XMem section 3.3 and its published code).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ovos_ray.networks.convolutions import PointwiseConv2d
from ovos_ray.networks.precision import full_precision

__all__ = ["DecoderUpdate", "DeepUpdate"]


def _cell(in_channels: int, channels: int) -> nn.Conv2d:
    transform = nn.Conv2d(in_channels + channels, 3 * channels, 3, padding=1)
    nn.init.xavier_normal_(transform.weight)
    return transform


def _step(gates: Tensor, sensory: Tensor) -> Tensor:
    forget, update, new = gates.chunk(3, dim=1)
    forget, update = forget.sigmoid(), update.sigmoid()
    return forget * sensory * (1 - update) + update * new.tanh()


class DeepUpdate(nn.Module):
    """Updates the sensory memory (`channels`: Cs) from a memory value (`in_channels`: Cv)."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.transform = _cell(in_channels, channels)

    def forward(self, value: Tensor, sensory: Tensor) -> Tensor:
        """Takes (B·N, Cv, h, w) and (B·N, Cs, h, w); returns the new sensory memory."""
        with torch.autocast(value.device.type, enabled=False):
            return _step(self.transform(torch.cat([full_precision(value), sensory], dim=1)), sensory)


class DecoderUpdate(nn.Module):
    """Updates the sensory memory from the decoder's three scales and its mask logits.

    Args:
        in_channels: Decoder channels at strides 16, 8 and 4.
        inner: Channels in which the scales are summed.
        channels: Cs.
    """

    def __init__(self, in_channels: tuple[int, int, int], inner: int, channels: int) -> None:
        super().__init__()
        self.g16_conv = PointwiseConv2d(in_channels[0], inner)
        self.g8_conv = PointwiseConv2d(in_channels[1], inner)
        self.g4_conv = PointwiseConv2d(in_channels[2] + 1, inner)
        self.transform = _cell(inner, channels)

    def forward(self, g16: Tensor, g8: Tensor, g4: Tensor, logits: Tensor, sensory: Tensor) -> Tensor:
        """Takes decoder features and logits, (B·N, C, ·, ·) at strides 16, 8, 4 and 4; returns the sensory memory."""
        with torch.autocast(g16.device.type, enabled=False):
            g8 = F.avg_pool2d(full_precision(g8), 2)
            g4 = torch.cat([F.avg_pool2d(full_precision(g4), 4), F.avg_pool2d(full_precision(logits), 4)], dim=1)
            summed = self.g16_conv(full_precision(g16)) + self.g8_conv(g8) + self.g4_conv(g4)
            return _step(self.transform(torch.cat([summed, sensory], dim=1)), sensory)
