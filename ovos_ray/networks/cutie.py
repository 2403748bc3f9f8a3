"""Cutie (Cheng et al., CVPR 2024): XMem with object-level memory.

New against XMem: memorised frames also leave a summary per object; an object transformer refines the readout with it;
fusion adds instead of concatenating; previous masks inform the readout; masks are aggregated at stride 4, then
upsampled. Two auxiliary heads exist for training.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
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
    AdditiveFusion,
    KeyProjection,
    Normalise,
    ResBlock,
    aggregate,
    aggregate_logits,
    fold,
    other_masks,
    unfold,
    upsample,
)
from ovos_ray.networks.convolutions import PointwiseConv2d, add_shared
from ovos_ray.networks.object_transformer import ObjectSummarizer, ObjectTransformer
from ovos_ray.networks.precision import full_precision
from ovos_ray.networks.resnet import RESNET18, RESNET50, TINY, EncoderConfig, ImageEncoder, MaskEncoder
from ovos_ray.networks.sensory import DecoderUpdate, DeepUpdate

__all__ = ["CONFIGS", "Cutie", "CutieConfig"]


@dataclass(frozen=True)
class CutieConfig:
    """Sizes of a Cutie; the defaults are those of cutie-base."""

    image_encoder: EncoderConfig = RESNET50
    mask_encoder: EncoderConfig = RESNET18
    key_dim: int = 64
    dim: int = 256
    sensory_dim: int = 256
    decoder_dim: int = 128
    num_queries: int = 16
    num_blocks: int = 3
    num_heads: int = 8
    feed_forward_dim: int = 2048


CONFIGS = {
    "cutie-base": CutieConfig(),
    "cutie-small": CutieConfig(image_encoder=RESNET18),
    "cutie-tiny": CutieConfig(
        image_encoder=TINY,
        mask_encoder=TINY,
        key_dim=32,
        dim=48,
        sensory_dim=16,
        decoder_dim=32,
        num_queries=8,
        num_blocks=2,
        num_heads=4,
        feed_forward_dim=96,
    ),
}


class Cutie(VOSNetwork):
    """The network; `networks.base.VOSNetwork` says what its methods do."""

    num_reference_frames = 3
    keeps_first_reference = False
    deep_update_probability = 0.2
    backbone_prefixes = ("pixel_encoder.",)
    # They also take in `summary_to_query_init.weight` and `summary_to_query_emb.weight`, as in published training.
    embedding_suffixes = ("query_init.weight", "query_emb.weight")
    mask_inputs = ("mask_encoder.conv1.weight", "pixel_fuser.sensory_compress.weight")
    inference = InferenceDefaults(max_frames=5, buffer_tokens=2000, stagger_updates=5)

    def __init__(self, config: CutieConfig) -> None:
        super().__init__()
        c16 = config.image_encoder.channels[-1]
        self.sensory_dim = config.sensory_dim
        self.normalise = Normalise()
        self.pixel_encoder = ImageEncoder(config.image_encoder)
        self.pix_feat_proj = PointwiseConv2d(c16, config.dim)
        self.key_proj = ProjectedKey(c16, config)
        self.mask_encoder = ValueEncoder(config)
        self.mask_decoder = Decoder(config)
        self.pixel_fuser = PixelFuser(config)
        self.object_transformer = ObjectTransformer(
            config.dim, config.num_queries, config.num_blocks, config.num_heads, config.feed_forward_dim
        )
        self.object_summarizer = ObjectSummarizer(config.dim, config.num_queries)
        self.aux_computer = AuxiliaryHeads(config)

    @classmethod
    def recognise(cls, state: Collection[str]) -> str | None:
        """See `VOSNetwork.recognise`; the larger one has the deeper encoder."""
        if not any(key.startswith("object_transformer.") for key in state):
            return None
        return "cutie-base" if "pixel_encoder.layer3.5.conv1.weight" in state else "cutie-small"

    def encode(self, images: Tensor) -> FrameFeatures:
        """See `VOSNetwork.encode`; maps are the projected features at strides 16, 8 and 4."""
        image = self.normalise(images)
        f16, f8, f4 = self.pixel_encoder(image)
        key, shrinkage, selection = self.key_proj(f16)
        maps = (self.pix_feat_proj(f16), *self.mask_decoder.decoder_feat_proc(f8, f4))
        return FrameFeatures(key=key, shrinkage=shrinkage, selection=selection, image=image, maps=maps)

    def memorise(
        self, features: FrameFeatures, state: State, *, deep_update: bool = False
    ) -> tuple[MemoryFrame, State]:
        """See `VOSNetwork.memorise`."""
        objects = state.masks.shape[1]
        masks = torch.stack([state.masks, other_masks(state.masks).clamp(0, 1)], dim=2)
        value = self.mask_encoder(features.image, features.maps[0], fold(masks))
        if deep_update and state.sensory is not None:
            sensory = self.mask_encoder.sensory_update(value, fold(state.sensory))
            state = replace(state, sensory=unfold(sensory, objects))
        summary = self.object_summarizer(fold(F.avg_pool2d(state.masks, self.stride)), value)
        frame = MemoryFrame(
            key=features.key,
            shrinkage=features.shrinkage,
            value=unfold(value, objects),
            summary=unfold(summary, objects),
        )
        return frame, state

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
        if state.sensory is None or readout.summary is None:
            raise ValueError("Cutie needs a sensory memory and object summaries")
        objects = readout.value.shape[1]
        pixel, f8, f4 = features.maps
        sensory = fold(state.sensory)
        fused = self.pixel_fuser(pixel, fold(readout.value), sensory, F.avg_pool2d(state.masks, self.stride))
        refined, query_logits = self.object_transformer(
            fused, fold(readout.summary), objects, selector, aux is not None
        )
        if aux is not None:
            aux.append({"sensory": self.aux_computer(pixel, sensory, objects, selector), "query": query_logits})
        mask_logits, sensory = self.mask_decoder(f8, f4, refined, sensory, update_sensory)
        logits = upsample(aggregate_logits(mask_logits, objects, selector), 4)
        return logits, State(masks=logits.softmax(1)[:, 1:], sensory=unfold(sensory, objects))


class ProjectedKey(KeyProjection):
    """A key projection behind a pointwise one."""

    def __init__(self, in_channels: int, config: CutieConfig) -> None:
        super().__init__(config.dim, config.key_dim, anisotropic=True)
        self.pix_feat_proj = PointwiseConv2d(in_channels, config.dim)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Returns key, shrinkage and selection of (M, C, h, w)."""
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(self.pix_feat_proj(full_precision(x)))


class ValueEncoder(MaskEncoder):
    """A `MaskEncoder` that holds the deep update, and fuses by addition."""

    def __init__(self, config: CutieConfig) -> None:
        super().__init__(config.mask_encoder)
        self.fuser = AdditiveFusion(config.dim, config.mask_encoder.channels[-1], config.dim)
        self.sensory_update = DeepUpdate(config.dim, config.sensory_dim)


class PixelFuser(nn.Module):
    """Joins readout, sensory memory, previous masks and image feature."""

    def __init__(self, config: CutieConfig) -> None:
        super().__init__()
        self.fuser = AdditiveFusion(config.dim, config.dim, config.dim)
        self.sensory_compress = PointwiseConv2d(config.sensory_dim + 2, config.dim)

    def forward(self, pixel: Tensor, value: Tensor, sensory: Tensor, masks: Tensor) -> Tensor:
        """Takes (B, C, h, w), (B·N, C, h, w), (B·N, Cs, h, w) and previous masks (B, N, h, w)."""
        previous = fold(torch.stack([masks, other_masks(masks).clamp(0, 1)], dim=2))
        return self.fuser(pixel, value + self.sensory_compress(torch.cat([sensory, previous], dim=1)))


class SkipProjection(nn.Module):
    """Pointwise projections of the encoder features at strides 8 and 4, done once per image."""

    def __init__(self, c8: int, c4: int, out: tuple[int, int]) -> None:
        super().__init__()
        self.transforms = nn.ModuleList([PointwiseConv2d(c8, out[0]), PointwiseConv2d(c4, out[1])])

    def forward(self, f8: Tensor, f4: Tensor) -> tuple[Tensor, Tensor]:
        """Returns both features projected."""
        return self.transforms[0](f8), self.transforms[1](f4)


class AddUpsample(nn.Module):
    """Doubles the resolution and adds the projected encoder feature found there."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.out_conv = ResBlock(in_channels, out_channels, shortcut=1)

    def forward(self, skip: Tensor, x: Tensor) -> Tensor:
        """Takes (B, C, 2h, 2w) and (B·N, C, h, w); returns (B·N, out, 2h, 2w)."""
        return self.out_conv(add_shared(upsample(x, 2), skip))


class Decoder(nn.Module):
    """The transformer's readout and image features to mask logits at stride 4, and the updated sensory memory."""

    def __init__(self, config: CutieConfig) -> None:
        super().__init__()
        _, c8, c4 = config.image_encoder.channels[::-1]
        inner = config.decoder_dim
        self.sensory_update = DecoderUpdate((config.dim, inner, inner), config.dim, config.sensory_dim)
        self.decoder_feat_proc = SkipProjection(c8, c4, (config.dim, inner))
        self.up_16_8 = AddUpsample(config.dim, inner)
        self.up_8_4 = AddUpsample(inner, inner)
        self.pred = nn.Conv2d(inner, 1, 3, padding=1)

    def forward(
        self, f8: Tensor, f4: Tensor, readout: Tensor, sensory: Tensor, update_sensory: bool
    ) -> tuple[Tensor, Tensor]:
        """Takes projected features of B images, (B·N, C, h, w) and (B·N, Cs, h, w).

        Returns:
            Mask logits (B·N, 1, 4h, 4w), float32, and the sensory memory.
        """
        g8 = self.up_16_8(f8, readout)
        g4 = self.up_8_4(f4, g8)
        with torch.autocast(g4.device.type, enabled=False):
            logits = self.pred(torch.relu(full_precision(g4)))
        if update_sensory:
            sensory = self.sensory_update(readout, g8, g4, logits, sensory)
        return logits, sensory


class _SensoryHead(nn.Module):
    def __init__(self, config: CutieConfig) -> None:
        super().__init__()
        self.projection = PointwiseConv2d(config.sensory_dim, config.dim + 1)


class AuxiliaryHeads(nn.Module):
    """Masks from the sensory memory alone, for the auxiliary loss: a linear classifier per position."""

    def __init__(self, config: CutieConfig) -> None:
        super().__init__()
        self.sensory_aux = _SensoryHead(config)

    def forward(self, pixel: Tensor, sensory: Tensor, objects: int, selector: Tensor | None) -> Tensor:
        """Takes (B, C, h, w) and (B·N, Cs, h, w); returns aggregated logits (1, B, 1+N, h, w)."""
        classifier = unfold(self.sensory_aux.projection(sensory), objects)
        weight, bias = classifier[:, :, :-1], classifier[:, :, -1]
        probabilities = full_precision((weight * pixel.unsqueeze(1)).sum(2) + bias).sigmoid()
        return aggregate(probabilities, selector)[None]
