"""Which network is trained, how a clip becomes a loss, and how a loss becomes a step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from ovos_ray.config.roles import (
    Added,
    AtLeast,
    Computes,
    Fraction,
    Identifies,
    Inherited,
    Live,
    Located,
    Pinned,
    Priced,
)

__all__ = ["INITS", "LossConfig", "MethodConfig", "NetworkConfig", "OptimizerConfig"]

INITS = ("auto", "imagenet", "random")
"""What `network.init` may be beside the path of a weights file."""


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """Which network is trained and what its weights start from."""

    name: Annotated[str, Computes, Inherited, Priced] = "xmem-tiny"
    """A name known to `ovos_ray.networks.build`."""
    init: Annotated[str, Computes, Located] = "auto"
    """`imagenet` (ResNet weights, fetched by torchvision), `random`, or the path of a weights file, ours or official.
    `auto`: ImageNet where there are such weights, random for the tiny networks, which have none."""
    init_sha256: Annotated[str, Identifies, Pinned, Added(before="")] = ""
    """SHA-256 of the weights file, if `init` is one; filled in when a run is prepared."""


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """The model-specific loss of equation 2 (STCN: cross-entropy; XMem: and dice; Cutie: points and heads)."""

    cross_entropy: Annotated[Literal["plain", "bootstrapped", "points"], Computes, Live, Priced] = "bootstrapped"
    """Over all pixels, over the hardest ones (STCN, XMem), or at `num_points` sampled points a frame (Cutie)."""
    dice: Annotated[bool, Computes, Live, Priced] = True
    """Adds the dice loss of every object (XMem and Cutie; STCN has none)."""
    warm_up_start: Annotated[int, Computes, Live] = 20_000
    """Optimiser step up to which the bootstrapped cross-entropy counts every pixel."""
    warm_up_end: Annotated[int, Computes, Live] = 70_000
    """Step from which it counts only the hardest `top_fraction` of pixels."""
    top_fraction: Annotated[float, Fraction, Computes, Live] = 0.15
    """The share of pixels that the bootstrapped cross-entropy counts in the end (STCN, XMem: 0.15)."""
    num_points: Annotated[int, AtLeast(1), Computes, Live, Priced] = 12_544
    """Points per frame of Cutie's point-sampled loss."""
    oversampling: Annotated[float, AtLeast(1), Computes, Live, Priced] = 3.0
    """Candidates drawn for every point, of which the most uncertain are taken (Cutie: 3)."""
    importance: Annotated[float, Fraction, Computes, Live] = 0.75
    """The share of points taken where the logits are uncertain; the rest is uniform (Cutie: 0.75)."""
    auxiliary_weight: Annotated[float, Computes, Live, Priced] = 0.01
    """Weight of Cutie's sensory and query heads."""


@dataclass(frozen=True, kw_only=True)
class MethodConfig:
    """How a clip becomes a loss (paper section 3)."""

    name: Annotated[Literal["one_shot", "supervised"], Computes, Priced] = "one_shot"
    """`supervised`: one forward propagation with a loss on every frame after the first (Figure 2, left)."""
    backward: Annotated[str, Computes, Live, Priced] = "2-step"
    """Backward strategy: `T-step`, or `k-step` for k frames walked back (`1-step`, `2-step`, …)."""
    reference: Annotated[Literal["predicted", "empty", "true"], Computes, Live, Priced] = "predicted"
    """What the backward propagation starts from; `empty` is the setting of section 4.4 and Figure 6. `true` is the
    label of frame T, an oracle that reads all labels: it says what a better forward mask would bring."""
    empty_objects: Annotated[Literal["draw", "merge"], Computes, Live, Priced] = "draw"
    """With an empty reference objects cannot be told apart: train one drawn object, or all merged into one."""
    reference_mask: Annotated[Literal["soft", "hard"], Computes, Live, Priced] = "soft"
    """Soft probabilities or one-hot argmax as the backward reference (open in the paper)."""
    allow_untrained_sensory: Annotated[bool, Computes, Live, Priced] = False
    """Permits 1-step on recurrent networks, which leaves their sensory update without gradient."""
    vanished: Annotated[Literal["keep", "leave_out"], Computes, Live, Added(before="keep")] = "keep"
    """What becomes of an object that the forward mask of frame T does not show: `keep` compares it with the label of
    frame 0 all the same, as the paper does; `leave_out` counts it as right. That mask alone decides, since frame T has
    no label: an object that the network lost counts as gone too. No matter where the reference is empty."""
    further_labels: Annotated[Literal["ignore", "compare"], Computes, Live, Added(before="ignore")] = "ignore"
    """What becomes of further labels of a clip (`pack --labels 4`, or `all`): `compare` averages the loss over all that
    the walk back passes, each clip's own included. Objects that this one does not show are left out of it."""
    shared_intermediate: Annotated[bool, Computes, Live, Priced, Added(before=True)] = True
    """Whether the frames that `k-step` draws between T and 0 are the same for the whole global batch. False: each
    sample has its own, as the paper says (section 3.4), for the price of encoding them once more."""
    rollout_memory: Annotated[Literal["training", "all"], Computes, Live, Priced, Added(before="training")] = "training"
    """What the forward walk reads: `training` as many frames, drawn at random, as the network reads when it is trained
    (XMem and Cutie: 3); `all` those before, as in equation 1 and at test time."""
    share_features: Annotated[bool, Computes, Live, Priced] = True
    """Encode each frame once per step; False is the plain two-pass version, equal and slower."""
    loss: LossConfig = field(default_factory=LossConfig)
    """What is compared with the label, and how."""

    @property
    def needs_all_labels(self) -> bool:
        """Whether a clip needs the labels of all its frames; one-shot training needs that of the first alone."""
        return self.name == "supervised" or self.reference == "true"

    @property
    def compares_further_labels(self) -> bool:
        """Whether a clip needs the labels of those of its frames that have one."""
        return self.name == "one_shot" and self.further_labels == "compare"


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """Optimiser and learning-rate schedule, all in optimiser steps."""

    name: Annotated[Literal["adam", "adamw"], Computes] = "adamw"
    """`adam` adds the decay to the gradient (STCN), `adamw` decays the weights themselves (XMem, Cutie)."""
    learning_rate: Annotated[float, AtLeast(0), Computes, Live] = 1e-5
    """After the warm-up and before the first of `decay_steps` (published: 1e-5 for STCN and XMem, 1e-4 for Cutie)."""
    weight_decay: Annotated[float, AtLeast(0), Computes, Live] = 0.05
    """Of all trained parameters, biases and norms included, as published (STCN: 1e-7; XMem: 0.05; Cutie: 0.001)."""
    epsilon: Annotated[float, AtLeast(0), Computes, Live] = 1e-8
    """Added to the root of the second moment, against division by zero."""
    decay_steps: Annotated[tuple[int, ...], Computes, Live] = ()
    """Steps at which the learning rate is multiplied by `decay_factor`."""
    decay_factor: Annotated[float, AtLeast(0), Computes, Live] = 0.1
    """By what the learning rate is multiplied at each of `decay_steps` (published: 0.1)."""
    warm_up_steps: Annotated[int, AtLeast(0), Computes, Live] = 0
    """Steps of linear warm-up from zero."""
    backbone_multiplier: Annotated[float, AtLeast(0), Computes] = 1.0
    """Learning rate of the image encoder relative to the rest (Cutie: 0.1)."""
    decay_embeddings: Annotated[bool, Computes] = True
    """False: no weight decay on query embeddings (Cutie)."""
    clip_norm: Annotated[float | None, AtLeast(0), Computes, Live] = None
    """Largest gradient norm (Cutie: 3.0); None: no clipping."""
