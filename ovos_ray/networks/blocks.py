"""Building blocks that the families share.

Inside a network objects are folded into the batch: (B, N, C, h, w) becomes (B·N, C, h, w).
"""

from __future__ import annotations

import math
from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ovos_ray.networks.convolutions import FusingConv2d, PointwiseConv2d, add_shared
from ovos_ray.networks.precision import full_precision

__all__ = [
    "CBAM",
    "EMPTY_LOGIT",
    "AdditiveFusion",
    "CAResBlock",
    "ConcatFusion",
    "FusingResBlock",
    "KeyProjection",
    "Normalise",
    "ResBlock",
    "SkipUpsample",
    "aggregate",
    "aggregate_logits",
    "fold",
    "other_masks",
    "unfold",
    "upsample",
]

_EPSILON = 1e-7
EMPTY_LOGIT = float(torch.logit(torch.tensor(0.0), eps=_EPSILON))
"""What `aggregate` returns for probability zero, hence the logit of every padded object."""


class Normalise(nn.Module):
    """Subtracts the ImageNet mean and divides by its standard deviation; nothing of it is in the state dict."""

    MEAN = (0.485, 0.456, 0.406)
    STD = (0.229, 0.224, 0.225)

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(self.MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(self.STD)[:, None, None], persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Normalises (…, 3, H, W)."""
        return (images - self.mean) / self.std


def fold(x: Tensor) -> Tensor:
    """Folds objects into the batch: (B, N, …) to (B·N, …)."""
    return x.flatten(0, 1)


def unfold(x: Tensor, objects: int) -> Tensor:
    """The reverse of `fold`: (B·N, …) to (B, N, …), a view."""
    return x.view(-1, objects, *x.shape[1:])


def upsample(x: Tensor, factor: int) -> Tensor:
    """Bilinear interpolation without aligned corners."""
    return F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)


def other_masks(masks: Tensor) -> Tensor:
    """Returns for each object the sum of the other objects' masks; (B, N, H, W) to the same shape."""
    if masks.shape[1] == 1:
        return torch.zeros_like(masks)
    return masks.sum(1, keepdim=True) - masks


def aggregate(probabilities: Tensor, selector: Tensor | None = None) -> Tensor:
    """Joins independent object probabilities (B, N, h, w) into logits (B, 1+N, h, w), background first.

    The background is where no object is, Π(1 - p). Probabilities are clamped to [1e-7, 1 - 1e-7] (STCN section 3.4).
    Objects that the selector (B, N) marks with 0 have probability 0.
    """
    probabilities = full_precision(probabilities)
    if selector is not None:
        probabilities = probabilities * selector[:, :, None, None]
    background = reduce(torch.mul, (1 - probabilities).unbind(1))
    return torch.logit(torch.cat([background.unsqueeze(1), probabilities], dim=1), eps=_EPSILON)


def aggregate_logits(logits: Tensor, objects: int, selector: Tensor | None) -> Tensor:
    """The same for logits of a decoder, one channel an object: (B·N, 1, h, w) to (B, 1+N, h, w)."""
    return aggregate(unfold(full_precision(logits).sigmoid(), objects).squeeze(2), selector)


class KeyProjection(nn.Module):
    """Keys from the coarsest feature map, in float32 whatever the autocast: they are compared by squared distance.

    Args:
        in_channels: Channels of the feature map.
        key_dim: Ck.
        anisotropic: Whether there are also shrinkage and selection (XMem and Cutie).
        gain: Scale of the initial weights. Networks without pretrained features need more than the published 1: their
            affinity is else so flat at first that a read cannot tell objects apart.
    """

    def __init__(self, in_channels: int, key_dim: int, *, anisotropic: bool, gain: float = 1.0) -> None:
        super().__init__()
        self.key_proj = nn.Conv2d(in_channels, key_dim, 3, padding=1)
        nn.init.orthogonal_(self.key_proj.weight, gain=gain)
        nn.init.zeros_(self.key_proj.bias)  # type: ignore[arg-type]
        self.anisotropic = anisotropic
        if anisotropic:
            self.d_proj = nn.Conv2d(in_channels, 1, 3, padding=1)
            self.e_proj = nn.Conv2d(in_channels, key_dim, 3, padding=1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Returns key, shrinkage and selection of (M, C, h, w)."""
        with torch.autocast(x.device.type, enabled=False):
            x = full_precision(x)
            if not self.anisotropic:
                return self.key_proj(x), None, None
            return self.key_proj(x), self.d_proj(x).square() + 1, self.e_proj(x).sigmoid()


class ResBlock(nn.Module):
    """Pre-activation residual block; where channels change, the shortcut is a convolution of the raw input.

    `shortcut` is its kernel size: 3 in STCN and XMem, 1 in Cutie.
    """

    def __init__(self, in_channels: int, out_channels: int, shortcut: int = 3) -> None:
        super().__init__()
        self.downsample = (
            nn.Identity()
            if in_channels == out_channels
            else nn.Conv2d(in_channels, out_channels, shortcut, padding=shortcut // 2)
        )
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Takes (M, in, h, w); returns (M, out, h, w)."""
        residual = self.conv2(torch.relu_(self.conv1(torch.relu(x))))
        return residual + self.downsample(x)


class FusingResBlock(nn.Module):
    """A `ResBlock` on the concatenation of image and object features."""

    def __init__(self, shared: int, own: int, out: int, *, shared_first: bool) -> None:
        super().__init__()
        self.downsample = FusingConv2d(shared, own, out, 3, shared_first=shared_first)
        self.conv1 = FusingConv2d(shared, own, out, 3, shared_first=shared_first)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1)

    def forward(self, shared: Tensor, own: Tensor) -> Tensor:
        """Takes (B, Cs, h, w) and (B·N, Co, h, w); returns (B·N, out, h, w)."""
        residual = self.conv2(torch.relu_(self.conv1(torch.relu(shared), torch.relu(own))))
        return residual + self.downsample(shared, own)


class _ChannelGate(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(1, channels // 16)
        self.mlp = nn.Sequential(nn.Flatten(), nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels))

    def forward(self, x: Tensor) -> Tensor:
        gate = self.mlp(x.mean((2, 3), keepdim=True)) + self.mlp(x.amax((2, 3), keepdim=True))
        return x * gate.sigmoid()[:, :, None, None]


class _Spatial(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 7, padding=3)


class _SpatialGate(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.spatial = _Spatial()

    def forward(self, x: Tensor) -> Tensor:
        statistics = torch.cat([x.amax(1, keepdim=True), x.mean(1, keepdim=True)], dim=1)
        return x * self.spatial.conv(statistics).sigmoid()


class CBAM(nn.Module):
    """Channel, then spatial attention (Woo et al. 2018), with the parameter names of the published networks."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.ChannelGate = _ChannelGate(channels)
        self.SpatialGate = _SpatialGate()

    def forward(self, x: Tensor) -> Tensor:
        """Takes and returns (M, C, h, w)."""
        return self.SpatialGate(self.ChannelGate(x))


class ConcatFusion(nn.Module):
    """STCN's and XMem's fusion of an image feature with object features, by concatenation and attention."""

    def __init__(self, shared: int, own: int, out: int, *, shared_first: bool) -> None:
        super().__init__()
        self.block1 = FusingResBlock(shared, own, out, shared_first=shared_first)
        self.attention = CBAM(out)
        self.block2 = ResBlock(out, out)

    def forward(self, shared: Tensor, own: Tensor) -> Tensor:
        """Takes (B, Cs, h, w) and (B·N, Co, h, w); returns (B·N, out, h, w)."""
        x = self.block1(shared, own)
        return self.block2(x + self.attention(x))


class SkipUpsample(nn.Module):
    """STCN's and XMem's decoder step: doubles the resolution and adds the encoder feature found there."""

    def __init__(self, skip: int, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.skip_conv = nn.Conv2d(skip, in_channels, 3, padding=1)
        self.out_conv = ResBlock(in_channels, out_channels)

    def forward(self, skip: Tensor, x: Tensor) -> Tensor:
        """Takes (B, C, 2h, 2w) and (B·N, C', h, w); returns (B·N, out, 2h, 2w)."""
        return self.out_conv(add_shared(upsample(x, 2), self.skip_conv(skip)))


class CAResBlock(nn.Module):
    """Cutie's residual block with channel attention: a convolution along the channels of the pooled features."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        size = int((abs(math.log2(channels)) + 1) // 2)
        kernel = size if size % 2 else size + 1
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv = nn.Conv1d(1, 1, kernel, padding=(kernel - 1) // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Takes and returns (M, C, h, w)."""
        residual = self.conv2(torch.relu_(self.conv1(torch.relu(x))))
        gate = self.conv(residual.mean((2, 3))[:, None]).sigmoid()[:, 0, :, None, None]
        return torch.addcmul(x, residual, gate)


class _Distributor(nn.Module):
    def __init__(self, shared: int, own: int, out: int) -> None:
        super().__init__()
        self.x_transform = PointwiseConv2d(shared, out)
        self.g_transform = PointwiseConv2d(own, out)

    def forward(self, shared: Tensor, own: Tensor) -> Tensor:
        return add_shared(self.g_transform(own), self.x_transform(shared))


class AdditiveFusion(nn.Module):
    """Cutie's fusion of an image feature with object features, by addition."""

    def __init__(self, shared: int, own: int, out: int) -> None:
        super().__init__()
        self.distributor = _Distributor(shared, own, out)
        self.block1 = CAResBlock(out)
        self.block2 = CAResBlock(out)

    def forward(self, shared: Tensor, own: Tensor) -> Tensor:
        """Takes (B, Cs, h, w) and (B·N, Co, h, w); returns (B·N, out, h, w)."""
        return self.block2(self.block1(self.distributor(shared, own)))
