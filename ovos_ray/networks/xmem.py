"""XMem (Cheng and Schwing, ECCV 2022): STCN with an anisotropic affinity and a recurrent sensory memory per object.

New against STCN: keys come with shrinkage and selection; the decoder also reads the object's sensory memory, and
updates it; memorising a frame may update it too, from the memory value (deep update).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

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
    KeyProjection,
    Normalise,
    SkipUpsample,
    aggregate_logits,
    fold,
    other_masks,
    unfold,
    upsample,
)
from ovos_ray.networks.resnet import RESNET18, RESNET50, TINY, EncoderConfig, ImageEncoder, MaskEncoder
from ovos_ray.networks.sensory import DecoderUpdate, DeepUpdate

__all__ = ["CONFIGS", "XMem", "XMemConfig"]


@dataclass(frozen=True)
class XMemConfig:
    """Sizes of an XMem; the defaults are the published ones. `hidden_dim` 0 is the published no-sensory network."""

    image_encoder: EncoderConfig = RESNET50
    mask_encoder: EncoderConfig = RESNET18
    key_dim: int = 64
    value_dim: int = 512
    hidden_dim: int = 64
    decoder_dim: int = 256
    key_gain: float = 1.0
    """Scale of the initial key projection; see `KeyProjection`."""


CONFIGS = {
    "xmem": XMemConfig(),
    "xmem-tiny": XMemConfig(
        image_encoder=TINY,
        mask_encoder=TINY,
        key_dim=32,
        value_dim=48,
        hidden_dim=16,
        decoder_dim=32,
        key_gain=2.0,
    ),
}


class XMem(VOSNetwork):
    """The network; `networks.base.VOSNetwork` says what its methods do."""

    num_reference_frames = 3
    deep_update_probability = 0.2
    padding_colour = Normalise.MEAN
    backbone_prefixes = ("key_encoder.",)
    mask_inputs = ("value_encoder.conv1.weight",)
    inference = InferenceDefaults(max_frames=10, long_term=True, exclusive_update=True)

    def __init__(self, config: XMemConfig) -> None:
        super().__init__()
        self.sensory_dim = config.hidden_dim
        self.normalise = Normalise()
        self.key_encoder = ImageEncoder(config.image_encoder)
        self.value_encoder = ValueEncoder(config)
        self.key_proj = KeyProjection(
            config.image_encoder.channels[-1], config.key_dim, anisotropic=True, gain=config.key_gain
        )
        self.decoder = Decoder(config)

    @classmethod
    def recognise(cls, state: Collection[str]) -> str | None:
        """See `VOSNetwork.recognise`."""
        return "xmem" if "decoder.fuser.block1.conv1.weight" in state else None

    def encode(self, images: Tensor) -> FrameFeatures:
        """See `VOSNetwork.encode`; maps are f16, f8 and f4."""
        image = self.normalise(images)
        f16, f8, f4 = self.key_encoder(image)
        key, shrinkage, selection = self.key_proj(f16)
        return FrameFeatures(key=key, shrinkage=shrinkage, selection=selection, image=image, maps=(f16, f8, f4))

    def memorise(
        self, features: FrameFeatures, state: State, *, deep_update: bool = False
    ) -> tuple[MemoryFrame, State]:
        """See `VOSNetwork.memorise`."""
        objects = state.masks.shape[1]
        masks = torch.stack([state.masks, other_masks(state.masks)], dim=2)
        value = self.value_encoder(features.image, features.maps[0], fold(masks))
        if deep_update and state.sensory is not None:
            sensory = self.value_encoder.hidden_reinforce(value, fold(state.sensory))
            state = State(masks=state.masks, sensory=unfold(sensory, objects))
        return MemoryFrame(key=features.key, shrinkage=features.shrinkage, value=unfold(value, objects)), state

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
        objects = readout.value.shape[1]
        sensory = None if state.sensory is None else fold(state.sensory)
        mask_logits, sensory = self.decoder(features, fold(readout.value), sensory, update_sensory)
        logits = aggregate_logits(upsample(mask_logits, 4), objects, selector)
        return logits, State(
            masks=logits.softmax(1)[:, 1:], sensory=None if sensory is None else unfold(sensory, objects)
        )


class ValueEncoder(MaskEncoder):
    """A `MaskEncoder` that holds the deep update."""

    def __init__(self, config: XMemConfig) -> None:
        super().__init__(config.mask_encoder)
        own, shared = config.mask_encoder.channels[-1], config.image_encoder.channels[-1]
        self.fuser = ConcatFusion(shared, own, config.value_dim, shared_first=True)
        if config.hidden_dim:
            self.hidden_reinforce = DeepUpdate(config.value_dim, config.hidden_dim)


class Decoder(nn.Module):
    """Readout, sensory memory and image features to mask logits at stride 4, and the updated sensory memory."""

    def __init__(self, config: XMemConfig) -> None:
        super().__init__()
        c16, c8, c4 = config.image_encoder.channels[::-1]
        value, hidden, inner = config.value_dim, config.hidden_dim, config.decoder_dim
        self.fuser = ConcatFusion(c16, value + hidden, value, shared_first=True)
        if hidden:
            self.hidden_update = DecoderUpdate((value, inner, inner), inner, hidden)
        self.up_16_8 = SkipUpsample(c8, value, inner)
        self.up_8_4 = SkipUpsample(c4, inner, inner)
        self.pred = nn.Conv2d(inner, 1, 3, padding=1)

    def forward(
        self, features: FrameFeatures, value: Tensor, sensory: Tensor | None, update_sensory: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Takes features of B images, values (B·N, Cv, h, w) and sensory memory (B·N, Cs, h, w).

        Returns:
            Mask logits (B·N, 1, 4h, 4w) and the sensory memory.
        """
        f16, f8, f4 = features.maps
        g16 = self.fuser(f16, value if sensory is None else torch.cat([value, sensory.to(value.dtype)], dim=1))
        g8 = self.up_16_8(f8, g16)
        g4 = self.up_8_4(f4, g8)
        logits = self.pred(torch.relu(g4))
        if update_sensory and sensory is not None:
            sensory = self.hidden_update(g16, g8, g4, logits, sensory)
        return logits, sensory
