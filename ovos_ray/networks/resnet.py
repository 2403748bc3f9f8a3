"""ResNets cut after their third stage (stride 16), as all three families use them.

Normalisation is either batch norm with frozen statistics (the published networks; its affine part is trained) or group
norm (the tiny ones, which have no pretrained statistics). Neither couples the frames of a batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from ovos_ray.networks.convolutions import FusingConv2d, PointwiseConv2d

__all__ = [
    "RESNET18",
    "RESNET18_WITH_BIAS",
    "RESNET50",
    "TINY",
    "EncoderConfig",
    "FrozenBatchNorm2d",
    "ImageEncoder",
    "MaskEncoder",
]


@dataclass(frozen=True)
class EncoderConfig:
    """Shape of a ResNet.

    Attributes:
        block: `bottleneck` (ResNet-50; 4 times wider outputs) or `basic` (ResNet-18).
        depths: Blocks in each of the three stages.
        width: Channels of the stem and of the first stage's 3x3 convolutions; doubled by every later stage.
        norm: `batch` (frozen statistics) or `group`.
        bias: Whether convolutions have biases (only STCN's mask encoder).
    """

    block: Literal["bottleneck", "basic"]
    depths: tuple[int, int, int]
    width: int = 64
    norm: Literal["batch", "group"] = "batch"
    bias: bool = False

    @property
    def channels(self) -> tuple[int, int, int]:
        """Output channels of the three stages, at strides 4, 8 and 16."""
        wide = self.width * (4 if self.block == "bottleneck" else 1)
        return wide, 2 * wide, 4 * wide


RESNET50 = EncoderConfig("bottleneck", (3, 4, 6))
RESNET18 = EncoderConfig("basic", (2, 2, 2))
RESNET18_WITH_BIAS = EncoderConfig("basic", (2, 2, 2), bias=True)
TINY = EncoderConfig("basic", (1, 1, 1), width=16, norm="group")


class FrozenBatchNorm2d(nn.BatchNorm2d):
    """Batch norm whose statistics never change, also in training mode; its affine parameters can be trained."""

    def train(self, mode: bool = True) -> FrozenBatchNorm2d:
        """Stays in evaluation mode."""
        super().train(False)
        return self


def _norm(kind: str, channels: int) -> nn.Module:
    return FrozenBatchNorm2d(channels).eval() if kind == "batch" else nn.GroupNorm(min(8, channels), channels)


def _conv(in_channels: int, out_channels: int, kernel: int, stride: int, bias: bool) -> nn.Conv2d:
    if kernel == stride == 1:
        return PointwiseConv2d(in_channels, out_channels, bias=bias)
    return nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, bias=bias)


class _Block(nn.Module):
    """Common to both kinds: the shortcut, and the last ReLU."""

    downsample: nn.Module | None

    def __init__(self, in_channels: int, out_channels: int, stride: int, config: EncoderConfig) -> None:
        super().__init__()
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(
                _conv(in_channels, out_channels, 1, stride, config.bias), _norm(config.norm, out_channels)
            )

    def residual(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        return torch.relu_(self.residual(x) + shortcut)


class _Basic(_Block):
    def __init__(self, in_channels: int, width: int, stride: int, config: EncoderConfig) -> None:
        super().__init__(in_channels, width, stride, config)
        self.conv1 = _conv(in_channels, width, 3, stride, config.bias)
        self.bn1 = _norm(config.norm, width)
        self.conv2 = _conv(width, width, 3, 1, config.bias)
        self.bn2 = _norm(config.norm, width)

    def residual(self, x: Tensor) -> Tensor:
        x = torch.relu_(self.bn1(self.conv1(x)))
        return self.bn2(self.conv2(x))


class _Bottleneck(_Block):
    """The stride sits on the 3x3 convolution, as in torchvision."""

    def __init__(self, in_channels: int, width: int, stride: int, config: EncoderConfig) -> None:
        super().__init__(in_channels, 4 * width, stride, config)
        self.conv1 = _conv(in_channels, width, 1, 1, config.bias)
        self.bn1 = _norm(config.norm, width)
        self.conv2 = _conv(width, width, 3, stride, config.bias)
        self.bn2 = _norm(config.norm, width)
        self.conv3 = _conv(width, 4 * width, 1, 1, config.bias)
        self.bn3 = _norm(config.norm, 4 * width)

    def residual(self, x: Tensor) -> Tensor:
        x = torch.relu_(self.bn1(self.conv1(x)))
        x = torch.relu_(self.bn2(self.conv2(x)))
        return self.bn3(self.conv3(x))


def _stage(config: EncoderConfig, index: int) -> nn.Sequential:
    block = _Bottleneck if config.block == "bottleneck" else _Basic
    width = config.width * 2**index
    in_channels = config.width if index == 0 else config.channels[index - 1]
    blocks = [block(in_channels, width, 1 if index == 0 else 2, config)]
    blocks += [block(config.channels[index], width, 1, config) for _ in range(config.depths[index] - 1)]
    return nn.Sequential(*blocks)


def _initialise(encoder: nn.Module) -> None:
    for module in encoder.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


class ImageEncoder(nn.Module):
    """Images (M, 3, H, W) to features at strides 16, 8 and 4. The first stage is called `res2`, as published."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.conv1 = _conv(3, config.width, 7, 2, config.bias)
        self.bn1 = _norm(config.norm, config.width)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.res2 = _stage(config, 0)
        self.layer2 = _stage(config, 1)
        self.layer3 = _stage(config, 2)
        _initialise(self)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns (f16, f8, f4)."""
        f4 = self.res2(self.maxpool(torch.relu_(self.bn1(self.conv1(images)))))
        f8 = self.layer2(f4)
        return self.layer3(f8), f8, f4


class MaskEncoder(nn.Module):
    """Image, mask and other masks to a memory value per object; published stage names `layer1` ….

    Each family fuses its feature map of an object, at stride 16, with that of the image in a way of its own, `fuser`.
    """

    fuser: nn.Module

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.conv1 = FusingConv2d(3, 2, config.width, 7, stride=2, bias=config.bias)
        self.bn1 = _norm(config.norm, config.width)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = _stage(config, 0)
        self.layer2 = _stage(config, 1)
        self.layer3 = _stage(config, 2)
        _initialise(self)
        with torch.no_grad():  # the published initialisation of the channels that ImageNet weights do not have
            nn.init.orthogonal_(self.conv1.weight[:, 3:])

    def forward(self, image: Tensor, shared: Tensor, masks: Tensor) -> Tensor:
        """Takes (B, 3, H, W), the image's feature (B, C, h, w) and (B·N, 2, H, W); returns (B·N, Cv, h, w)."""
        x = self.maxpool(torch.relu_(self.bn1(self.conv1(image, masks))))
        return self.fuser(shared, self.layer3(self.layer2(self.layer1(x))))
