"""STCN: space-time correspondence (Cheng, Tai and Tang, NeurIPS 2021). The common root of the three families.

A frame's key comes from the image alone; a memorised frame has one value per object. A query position receives the
memory values whose keys are nearest to its own, and a decoder turns them into a mask, object by object.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ovos_ray.networks.base import (
    AuxiliaryLogits,
    FrameFeatures,
    InferenceDefaults,
    MemoryFrame,
    Readout,
    State,
    VOSNetwork,
)
from ovos_ray.networks.blocks import (
    ConcatFusion,
    FusingResBlock,
    KeyProjection,
    Normalise,
    SkipUpsample,
    aggregate_logits,
    fold,
    other_masks,
    unfold,
    upsample,
)
from ovos_ray.networks.resnet import RESNET18_WITH_BIAS, RESNET50, TINY, EncoderConfig, ImageEncoder, MaskEncoder

__all__ = ["CONFIGS", "STCN", "STCNConfig"]


@dataclass(frozen=True)
class STCNConfig:
    """Sizes of an STCN; the defaults are the published ones."""

    image_encoder: EncoderConfig = RESNET50
    mask_encoder: EncoderConfig = RESNET18_WITH_BIAS
    key_dim: int = 64
    value_dim: int = 512
    decoder_dim: int = 256


CONFIGS = {
    "stcn": STCNConfig(),
    "stcn-tiny": STCNConfig(
        image_encoder=TINY,
        mask_encoder=replace(TINY, bias=True),
        key_dim=32,
        value_dim=48,
        decoder_dim=32,
    ),
}


class STCN(VOSNetwork):
    """The network; `networks.base.VOSNetwork` says what its methods do."""

    padding_colour = Normalise.MEAN
    backbone_prefixes = ("key_encoder.",)
    mask_inputs = ("value_encoder.conv1.weight",)
    inference = InferenceDefaults(top_k=20)

    def __init__(self, config: STCNConfig) -> None:
        super().__init__()
        channels = config.image_encoder.channels[-1]
        self.normalise = Normalise()
        self.key_encoder = ImageEncoder(config.image_encoder)
        self.value_encoder = ValueEncoder(config)
        self.key_proj = KeyProjection(channels, config.key_dim, anisotropic=False)
        self.key_comp = nn.Conv2d(channels, config.value_dim, 3, padding=1)
        self.decoder = Decoder(config)

    @classmethod
    def recognise(cls, state: Collection[str]) -> str | None:
        """See `VOSNetwork.recognise`."""
        return "stcn" if "key_comp.weight" in state else None

    def encode(self, images: Tensor) -> FrameFeatures:
        """See `VOSNetwork.encode`; maps are f16, f8, f4 and the projection of f16 that meets the readout."""
        image = self.normalise(images)
        f16, f8, f4 = self.key_encoder(image)
        key, shrinkage, selection = self.key_proj(f16)
        return FrameFeatures(
            key=key, shrinkage=shrinkage, selection=selection, image=image, maps=(f16, f8, f4, self.key_comp(f16))
        )

    def memorise(
        self, features: FrameFeatures, state: State, *, deep_update: bool = False
    ) -> tuple[MemoryFrame, State]:
        """See `VOSNetwork.memorise`."""
        masks = torch.stack([state.masks, other_masks(state.masks)], dim=2)
        value = self.value_encoder(features.image, features.maps[0], fold(masks))
        return MemoryFrame(key=features.key, shrinkage=None, value=unfold(value, masks.shape[1])), state

    def segment(
        self,
        features: FrameFeatures,
        readout: Readout,
        state: State,
        *,
        update_sensory: bool = True,
        selector: Tensor | None = None,
        aux: list[AuxiliaryLogits] | None = None,
    ) -> tuple[Tensor, State]:
        """See `VOSNetwork.segment`."""
        _, f8, f4, thin = features.maps
        mask_logits = self.decoder(thin, f8, f4, fold(readout.value))
        logits = aggregate_logits(upsample(mask_logits, 4), readout.value.shape[1], selector)
        return logits, State(masks=logits.softmax(1)[:, 1:])


class ValueEncoder(MaskEncoder):
    """A `MaskEncoder` whose fusion is STCN's."""

    def __init__(self, config: STCNConfig) -> None:
        super().__init__(config.mask_encoder)
        own, shared = config.mask_encoder.channels[-1], config.image_encoder.channels[-1]
        self.fuser = ConcatFusion(shared, own, config.value_dim, shared_first=False)


class Decoder(nn.Module):
    """Readout and image features to mask logits at stride 4."""

    def __init__(self, config: STCNConfig) -> None:
        super().__init__()
        _, c8, c4 = config.image_encoder.channels[::-1]
        value, inner = config.value_dim, config.decoder_dim
        self.compress = FusingResBlock(value, value, value, shared_first=False)
        self.up_16_8 = SkipUpsample(c8, value, inner)
        self.up_8_4 = SkipUpsample(c4, inner, inner)
        self.pred = nn.Conv2d(inner, 1, 3, padding=1)

    def forward(self, thin: Tensor, f8: Tensor, f4: Tensor, value: Tensor) -> Tensor:
        """Takes features of B images and values (B·N, Cv, h, w); returns (B·N, 1, 4h, 4w)."""
        x = self.up_16_8(f8, self.compress(thin, value))
        return self.pred(torch.relu(self.up_8_4(f4, x)))
