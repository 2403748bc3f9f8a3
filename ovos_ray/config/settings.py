"""One experiment is one tree of frozen dataclasses; it is printed in full, digested and stored with every result.

A recipe (`trainables/*.py`) is a function that returns an `ExperimentConfig`. On the command line any leaf is
overridden by its dotted key, `method.backward=T-step`; search spaces use the same keys. Nothing here imports torch
or Ray.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ovos_ray.config.overrides import flatten, from_dict, override, to_dict

__all__ = [
    "INITS",
    "AugmentationConfig",
    "DataConfig",
    "EvaluationConfig",
    "ExperimentConfig",
    "LossConfig",
    "MethodConfig",
    "NetworkConfig",
    "OptimizerConfig",
    "PretrainConfig",
    "SegmentConfig",
    "TrainConfig",
    "ValidationConfig",
    "flatten",
    "from_dict",
    "override",
    "to_dict",
]

INITS = ("auto", "imagenet", "random")
"""What `network.init` may be beside the path of a weights file."""


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """Which network is trained and what its weights start from."""

    name: str = "xmem-tiny"
    """A name known to `ovos_ray.networks.build`."""
    init: str = "auto"
    """`imagenet` (ResNet weights, fetched by torchvision), `random`, or the path of a weights file, ours or official.
    `auto`: ImageNet where there are such weights, random for the tiny networks, which have none."""


@dataclass(frozen=True, kw_only=True)
class AugmentationConfig:
    """Clip-consistent augmentation, as in the published data pipelines. Angles in degrees, probabilities in [0, 1]."""

    horizontal_flip: float = 0.5
    crop_scale: tuple[float, float] = (0.36, 1.0)
    """Area range of the random resized crop, as a fraction of the frame."""
    crop_ratio: tuple[float, float] = (0.75, 4 / 3)
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    clip_rotation: float = 0.0
    clip_shear: float = 0.0
    clip_scale: tuple[float, float] = (1.0, 1.0)
    """Zoom of all frames together, before the crop."""
    clip_jitter: tuple[float, float, float, float] = (0.1, 0.03, 0.03, 0.0)
    """Brightness, contrast, saturation, hue; one draw for all frames of the clip."""
    grayscale: float = 0.05
    frame_rotation: float = 0.0
    frame_shear: float = 0.0
    frame_scale: tuple[float, float] = (1.0, 1.0)
    """Zoom of every frame on its own."""
    frame_geometry_until: float = 1.0
    """Fraction of the steps after which frames are no longer rotated and sheared on their own (XMem: 100/110)."""
    frame_jitter: tuple[float, float, float, float] = (0.01, 0.01, 0.01, 0.0)
    """As clip_jitter, drawn anew for every frame."""
    spline: float = 0.0
    """Probability of a thin-plate spline, for every frame of a clip that is synthesised from one image."""


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where clips come from and how they are drawn."""

    shards: tuple[str, ...] = ()
    """Folders written by `ovos-ray pack`; several are concatenated."""
    multipliers: tuple[int, ...] = ()
    """How often each of `shards` is visited per epoch; empty means once each."""
    frame_intervals: tuple[int, ...] = ()
    """Video frames between annotated frames, by which D is divided; empty means what the index says."""
    source: Literal["video", "static"] = "video"
    """`static`: a clip is synthesised from one labelled image (stage 0)."""
    static_share: tuple[tuple[float, float], ...] = ()
    """A curriculum like `max_skip`: (fraction of training from which it holds, share of optimiser steps). These steps
    train supervised on clips synthesised from the run's own labelled frames, with the published augmentation of stage
    0; they read no label more. Empty: none, as in the paper."""
    clip_length: int = 3
    """n, the frames of a clip, the labelled one included (paper section 4.1)."""
    clip_start: Literal["label", "any"] = "label"
    """Where clips start: at the video's one label, or at any labelled frame (fully supervised only)."""
    time_reversal: float = 0.0
    """Probability of a reversed clip (fully supervised only; published: 0.5)."""
    clip_merging: float = 0.0
    """Probability of pasting another clip's objects (fully supervised only; published for Cutie: 0.5)."""
    max_skip: tuple[tuple[float, int], ...] = ((0.0, 5),)
    """The curriculum of D: (fraction of training from which it holds, D in frames)."""
    batch_size: int = 4
    """The global batch G, whatever the number of workers."""
    crop_size: int = 384
    """Height and width of a training crop in pixels. Any size works: networks pad to multiples of their stride."""
    max_objects: int = 3
    """Objects kept per clip; more are drawn at random without replacement."""
    augmentation: AugmentationConfig | None = field(default_factory=AugmentationConfig)
    """None: only a resize of the whole frame to the crop size."""
    crop_tries: int = 5
    """Seeded crops tried until one shows an object. After the last the whole frame is taken; where that shows none
    either, the sample is counted and not trained. Published STCN and XMem train on the empty crop, as background."""
    on_bad_row: Literal["error", "skip"] = "error"
    """`skip` turns an unreadable sample into a counted, listed, zero-weight slot."""
    max_bad_fraction: float = 0.001
    """With `skip`: the share of bad samples above which the run stops."""


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """The model-specific loss of equation 2 (STCN: cross-entropy; XMem: and dice; Cutie: points and heads)."""

    cross_entropy: Literal["plain", "bootstrapped", "points"] = "bootstrapped"
    dice: bool = True
    warm_up_start: int = 20_000
    """Optimiser step up to which the bootstrapped cross-entropy counts every pixel."""
    warm_up_end: int = 70_000
    """Step from which it counts only the hardest `top_fraction` of pixels."""
    top_fraction: float = 0.15
    num_points: int = 12_544
    """Points per frame of Cutie's point-sampled loss."""
    oversampling: float = 3.0
    importance: float = 0.75
    auxiliary_weight: float = 0.01
    """Weight of Cutie's sensory and query heads."""


@dataclass(frozen=True, kw_only=True)
class MethodConfig:
    """How a clip becomes a loss (paper section 3)."""

    name: Literal["one_shot", "supervised"] = "one_shot"
    backward: str = "2-step"
    """Backward strategy: `T-step`, or `k-step` for k frames walked back (`1-step`, `2-step`, …)."""
    reference: Literal["predicted", "empty"] = "predicted"
    """What the backward propagation starts from; `empty` is the setting of section 4.4 and Figure 6."""
    empty_objects: Literal["draw", "merge"] = "draw"
    """With an empty reference objects cannot be told apart: train one drawn object, or all merged into one."""
    reference_mask: Literal["soft", "hard"] = "soft"
    """Soft probabilities or one-hot argmax as the backward reference (open in the paper)."""
    allow_untrained_sensory: bool = False
    """Permits 1-step on recurrent networks, which leaves their sensory update without gradient."""
    share_features: bool = True
    """Encode each frame once per step; False is the plain two-pass version, equal and slower."""
    loss: LossConfig = field(default_factory=LossConfig)


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """Optimiser and learning-rate schedule, all in optimiser steps."""

    name: Literal["adam", "adamw"] = "adamw"
    learning_rate: float = 1e-5
    weight_decay: float = 0.05
    epsilon: float = 1e-8
    decay_steps: tuple[int, ...] = ()
    """Steps at which the learning rate is multiplied by `decay_factor`."""
    decay_factor: float = 0.1
    warm_up_steps: int = 0
    """Steps of linear warm-up from zero."""
    backbone_multiplier: float = 1.0
    """Learning rate of the image encoder relative to the rest (Cutie: 0.1)."""
    decay_embeddings: bool = True
    """False: no weight decay on query embeddings (Cutie)."""
    clip_norm: float | None = None
    """Largest gradient norm (Cutie: 3.0); None: no clipping."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Length, resources, numerics and bookkeeping of one run."""

    steps: int = 1000
    num_workers: int = 1
    """Each has a part of the global batch; parts differ by one clip at most."""
    min_workers: int | None = None
    """Elastic training: with how many workers a run goes on, and starts, while the cluster has no room for
    `num_workers`; None: it waits for all of them."""
    cpus_per_worker: float = 1.0
    gpus_per_worker: float = 0.0
    checkpoint_every: int = 500
    """Steps between checkpoints; at most this much work is lost."""
    keep_checkpoints: int = 2
    log_every: int = 20
    snapshot_every: int = 0
    """Steps between snapshots: masks of two videos of the validation (or else evaluation) split, kept for the report's
    pictures of how masks emerge (Figure 6); 0: none."""
    max_failures: int = 3
    """Worker or node failures survived before the run is given up."""
    max_nonfinite_steps: int = 10
    """Consecutive steps with a non-finite loss or gradient (each is skipped) before the run is given up."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """`auto`: bfloat16 autocast on GPUs that have it, float32 elsewhere."""
    rollout_precision: Literal["same", "bfloat16"] = "same"
    """Autocast of the forward roll-out alone, which carries no gradient."""
    rollout: Literal["auto", "graph", "eager"] = "auto"
    """`graph`: the forward roll-out is captured as a CUDA graph, once for each number of objects; the same but for
    rounding. `auto`: on GPUs. Where it cannot be captured, it is eager, and the log says why."""
    channels_last: bool = True
    compile: bool = False
    gradient_checkpointing: bool = False
    """Recompute each backward-propagation step instead of storing it."""
    deterministic: bool = True
    """Algorithms that give the same results bit for bit, on CPUs; on GPUs the fastest are taken, and nothing is
    promised."""
    num_threads: int | None = None
    """CPU threads per worker; None: `cpus_per_worker` rounded up."""

    @property
    def fewest_workers(self) -> int:
        """With how many workers the run must be able to start."""
        return self.num_workers if self.min_workers is None else self.min_workers

    def clips_per_worker(self, batch_size: int) -> int:
        """Returns the clips of a global batch that a worker gets at most, when there are as few workers as allowed."""
        return -(-batch_size // self.fewest_workers)


@dataclass(frozen=True, kw_only=True)
class ValidationConfig:
    """J&F on a labelled split during training. Its labels count in the label budget."""

    root: str | None = None
    """A dataset folder; None switches validation off."""
    layout: str = "auto"
    split: str = "val"
    every: int = 0
    """Optimiser steps between validations; 0: only at the end."""
    num_videos: int | None = None
    select_best: bool = False
    """True: the checkpoint with the best J&F of this split is the result. False (default): the last one."""


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """The split that is reported, scored once with the resulting weights."""

    root: str | None = None
    """A dataset folder; None: nothing is scored at the end of the run."""
    layout: str = "auto"
    split: str = "val"
    protocol: Literal["davis2016", "davis2017", "youtube-vos"] = "davis2017"
    shortest_side: int | None = None
    """Frames are predicted at this size (and scored at their own); None: the published one, 480."""
    also: tuple[str, ...] = ()
    """More datasets scored with the same weights, `NAME=FOLDER` or `NAME=FOLDER:SPLIT` each, such as
    `davis2016=DAVIS/2016` for the other half of Table 1. Their scores are called `final/NAME/jf`."""


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """Another recipe whose weights this one starts from; computed once per digest and shared.

    The pretraining has the network, the tracking store and the workers of the run that asks for it; the rest is the
    recipe's, with its own seed. A weights file as `network.init` takes its place.
    """

    recipe: str = "trainables.static_pretraining"
    """Module path, such as `trainables.static_pretraining.xmem`."""
    overrides: tuple[str, ...] = ()
    """Settings that differ from the recipe, written as on the command line: `train.steps=1000,data.batch_size=8`."""
    storage: str | None = None
    """Folder of all pretrainings, one subfolder per digest; None: `pretraining` in the run's storage."""
    digest: str = ""
    """Digest of the pretraining's configuration; filled in when the run is prepared."""


@dataclass(frozen=True, kw_only=True)
class SegmentConfig:
    """The part of a run from a step, at which another run stopped, up to a later one: population-based training.

    The other run's weights, optimiser state and step are taken over. `train.steps` and all schedules stay those of the
    whole; its digest, and so that of everything before it, is part of this one's.
    """

    start_step: int = 0
    stop_step: int = 1
    parent: str = ""
    """Name of the run, in the same storage, that stopped at `start_step`; empty at step 0."""
    parent_digest: str = ""
    member: int = 0
    """Of the population, from 0."""
    generation: int = 0
    """From 0."""


@dataclass(frozen=True, kw_only=True)
class ExperimentConfig:
    """Everything that decides what one run computes."""

    name: str = "one-shot"
    seed: int = 0
    network: NetworkConfig = field(default_factory=NetworkConfig)
    data: DataConfig = field(default_factory=DataConfig)
    method: MethodConfig = field(default_factory=MethodConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    pretrain: PretrainConfig | None = None
    segment: SegmentConfig | None = None
    """None: the run is whole."""
    storage: str = "runs"
    """Folder or bucket URI for checkpoints and results."""
    tracking_uri: str = "sqlite:///mlflow.db"
    """MLflow tracking store; empty string: no tracking."""
    note: str = ""
    """Which table rows of the paper the recipe stands for."""

    @property
    def start_step(self) -> int:
        """Optimiser step at which this run begins: 0, but for a segment."""
        return 0 if self.segment is None else self.segment.start_step

    @property
    def stop_step(self) -> int:
        """Optimiser step at which this run ends: `train.steps`, but for a segment."""
        return self.train.steps if self.segment is None else self.segment.stop_step
