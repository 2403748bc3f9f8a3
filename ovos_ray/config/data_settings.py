"""Where clips come from, how they are drawn, and how they are augmented."""

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
    Machine,
    Pinned,
    Priced,
)

__all__ = ["AugmentationConfig", "DataConfig", "static_augmentation"]


@dataclass(frozen=True, kw_only=True)
class AugmentationConfig:
    """Clip-consistent augmentation, as in the published data pipelines. Angles in degrees, probabilities in [0, 1]."""

    horizontal_flip: Annotated[float, Fraction, Computes, Live] = 0.5
    """Probability that the whole clip is mirrored."""
    crop_scale: Annotated[tuple[float, float], Computes, Live] = (0.36, 1.0)
    """Area range of the random resized crop, as a fraction of the frame."""
    crop_ratio: Annotated[tuple[float, float], Computes, Live] = (0.75, 4 / 3)
    """Range of the crop's width divided by its height, before it is resized to a square."""
    interpolation: Annotated[Literal["bilinear", "bicubic"], Computes, Live] = "bilinear"
    """Of images, in resizing and warping (STCN: bicubic); labels take the nearest pixel."""
    clip_rotation: Annotated[float, Computes, Live] = 0.0
    """All frames are rotated by one angle of up to so many degrees, before the crop (Cutie: 25)."""
    clip_shear: Annotated[float, Computes, Live] = 0.0
    """All frames are sheared by one angle of up to so many degrees, before the crop (Cutie: 20)."""
    clip_scale: Annotated[tuple[float, float], Computes, Live] = (1.0, 1.0)
    """Zoom of all frames together, before the crop."""
    clip_jitter: Annotated[tuple[float, float, float, float], Computes, Live] = (0.1, 0.03, 0.03, 0.0)
    """Brightness, contrast, saturation, hue; one draw for all frames of the clip."""
    grayscale: Annotated[float, Fraction, Computes, Live] = 0.05
    """Probability that the whole clip loses its colours."""
    frame_rotation: Annotated[float, Computes, Live] = 0.0
    """Every frame is rotated on its own by up to so many degrees, after the crop (STCN, XMem: 15)."""
    frame_shear: Annotated[float, Computes, Live] = 0.0
    """Every frame is sheared on its own by up to so many degrees, after the crop (STCN, XMem: 10)."""
    frame_scale: Annotated[tuple[float, float], Computes, Live] = (1.0, 1.0)
    """Zoom of every frame on its own."""
    frame_geometry_until: Annotated[float, Fraction, Computes, Live] = 1.0
    """Fraction of the steps after which frames are no longer rotated and sheared on their own (XMem: 100/110)."""
    frame_jitter: Annotated[tuple[float, float, float, float], Computes, Live] = (0.01, 0.01, 0.01, 0.0)
    """As clip_jitter, drawn anew for every frame."""
    spline: Annotated[float, Fraction, Computes, Live] = 0.0
    """Probability of a thin-plate spline, for every frame of a clip that is synthesised from one image."""


def static_augmentation() -> AugmentationConfig:
    """Returns what STCN's and XMem's synthetic clips are made with; crop scale and ratio are unused."""
    return AugmentationConfig(
        interpolation="bicubic",
        clip_scale=(0.8, 1.5),
        clip_jitter=(0.1, 0.05, 0.05, 0.05),
        frame_rotation=20.0,
        frame_shear=10.0,
        frame_scale=(0.9, 1.1),
        frame_jitter=(0.1, 0.05, 0.05, 0.0),
        spline=0.33,
    )


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where clips come from and how they are drawn."""

    shards: Annotated[tuple[str, ...], Computes, Located] = ()
    """Folders written by `ovos-ray pack`; several are concatenated."""
    digests: Annotated[tuple[str, ...], Identifies, Pinned, Added(before=())] = ()
    """Digest of the content of each of `shards`, as its index has it; filled in when a run is prepared."""
    cache: Annotated[str | None, Machine, Inherited] = None
    """A folder on each node's own disk, such as `/mnt/nvme/shards`, where shards of a bucket are kept from their first
    use on; None: clips are read from the bucket."""
    decode_cpus: Annotated[int | None, AtLeast(1), Machine, Inherited] = None
    """Clips decoded at a time beside a worker on Ray, on as many CPUs of its node; None: on its even part of them."""
    multipliers: Annotated[tuple[tuple[str, int], ...] | tuple[int, ...], Computes] = ()
    """How often shards are visited per epoch: (name of the folder, dataset or split, times) pairs, once for the others.
    Numbers alone belong to `shards` in their order."""
    frame_intervals: Annotated[tuple[tuple[str, int], ...] | tuple[int, ...], Computes] = ()
    """Video frames between annotated frames, by which D is divided, written as `multipliers`; by default what the index
    says."""
    source: Annotated[Literal["video", "static"], Computes, Priced] = "video"
    """`static`: a clip is synthesised from one labelled image (stage 0)."""
    static_share: Annotated[tuple[tuple[float, float], ...], Computes, Priced, Added(before=())] = ()
    """A curriculum like `max_skip`: (fraction of training from which it holds, share of optimiser steps). These steps
    train supervised on clips synthesised from the run's own labelled frames, with the published augmentation of stage
    0; they read no label more. Empty: none, as in the paper."""
    static_clips: Annotated[Literal["affine", "layers", "pasted"], Computes, Added(before="affine")] = "affine"
    """How a clip is synthesised from labelled images: each frame one of them under another affine map, as published;
    every object cut out and moved on a path of its own over a background that moves too
    (`pixels/layered_clips.py`); or objects of one pasted onto another (`pixels/pasted_clips.py`)."""
    clip_length: Annotated[int, AtLeast(2), Computes, Priced] = 3
    """n, the frames of a clip, the labelled one included (paper section 4.1)."""
    clip_start: Annotated[Literal["label", "labels", "any"], Computes] = "label"
    """Where clips start: at the video's first label; at any of its labels, where shards hold several (`pack --labels
    4`); or at any labelled frame, with labels on all that follow (fully supervised only)."""
    time_reversal: Annotated[float, Fraction, Computes] = 0.0
    """Probability of a reversed clip (fully supervised only; published: 0.5)."""
    clip_merging: Annotated[float, Fraction, Computes] = 0.0
    """Probability of pasting another clip's objects (fully supervised only; published for Cutie: 0.5)."""
    label_side: Annotated[Literal["both", "after"], Computes, Added(before="both")] = "both"
    """On which side of a label in the middle of its video clips lie: half of them on either, or all after it, in the
    order of time, as the paper's always are. `both` uses more of a video, also of the time before an object appears."""
    frame_sampling: Annotated[Literal["uniform_gaps", "grown", "stcn"], Computes, Added(before="uniform_gaps")] = (
        "uniform_gaps"
    )
    """How frames are drawn: every gap uniform up to D; from one frame on, the next within D of any of those before
    (XMem, Cutie), which makes clips about 0.6 times as long; or as STCN draws three of them."""
    max_skip: Annotated[tuple[tuple[float, int], ...], Computes, Live] = ((0.0, 5),)
    """The curriculum of D: (fraction of training from which it holds, D in frames)."""
    batch_size: Annotated[int, AtLeast(1), Computes, Priced] = 4
    """The global batch G, whatever the number of workers."""
    crop_size: Annotated[int, AtLeast(1), Computes, Priced] = 384
    """Height and width of a training crop in pixels. Any size works: networks pad to multiples of their stride."""
    max_objects: Annotated[int, AtLeast(1), Computes, Priced] = 3
    """Objects kept per clip; more are drawn at random without replacement."""
    augmentation: Annotated[AugmentationConfig | None, Computes, Live] = field(default_factory=AugmentationConfig)
    """None: only a resize of the whole frame to the crop size."""
    crop_tries: Annotated[int, AtLeast(1), Computes] = 5
    """Seeded crops tried until one shows an object. After the last the whole frame is taken; where that shows none
    either, the sample is counted and not trained. Published STCN and XMem train on the empty crop, as background."""
    on_bad_row: Annotated[Literal["error", "skip"], Computes] = "error"
    """`skip` turns an unreadable sample into a counted, listed, zero-weight slot."""
    max_bad_fraction: Annotated[float, Fraction, Computes] = 0.001
    """With `skip`: the share of bad samples above which the run stops."""
