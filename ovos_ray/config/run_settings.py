"""How long, on what and from what a run trains, and what is scored along the way and at its end."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Literal

from ovos_ray.config.roles import (
    Added,
    AtLeast,
    Bookkeeping,
    Computes,
    Fraction,
    Identifies,
    Inherited,
    Located,
    Machine,
    Member,
    Open,
    Priced,
)
from ovos_ray.errors import ConfigError

__all__ = ["EvaluationConfig", "PretrainConfig", "ScoredSplit", "SegmentConfig", "TrainConfig", "ValidationConfig"]


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Length, resources, numerics and bookkeeping of one run."""

    steps: Annotated[int, AtLeast(1), Computes, Priced] = 1000
    """Optimiser steps from the first to the last."""
    num_workers: Annotated[int, AtLeast(1), Machine, Inherited, Priced] = 1
    """Each has a part of the global batch; parts differ by one clip at most."""
    min_workers: Annotated[int | None, Machine, Inherited, Priced] = None
    """Elastic training: with how many workers a run goes on, and starts, while the cluster has no room for
    `num_workers`; None: it waits for all of them."""
    cpus_per_worker: Annotated[float, AtLeast(0), Machine, Inherited, Priced] = 1.0
    """CPU cores that Ray reserves for a worker, to train and to decode on; fractions are fine."""
    gpus_per_worker: Annotated[float, AtLeast(0), Machine, Inherited, Priced] = 0.0
    """GPUs that Ray reserves for a worker; 0 trains on the CPU, a fraction shares a GPU between workers."""
    checkpoint_every: Annotated[int, AtLeast(1), Bookkeeping] = 500
    """Steps between checkpoints, which are written beside the training; at most this much work is lost."""
    checkpoint_every_s: Annotated[float, AtLeast(0), Bookkeeping] = 600.0
    """Seconds after which one is written between those, however long steps last; 0: never."""
    keep_checkpoints: Annotated[int, AtLeast(1), Bookkeeping] = 2
    """Complete checkpoints kept, the best one aside; older ones are removed."""
    keep_finished: Annotated[bool, Bookkeeping] = True
    """False: a run that has its result removes its checkpoints, which only `train --extend` reads then: two thirds of
    its folder."""
    stall_timeout_s: Annotated[float, AtLeast(0), Bookkeeping, Inherited] = 1800.0
    """Seconds that a worker waits for its next batch, on Ray, before the run ends and says what it waited for; 0: for
    ever."""
    log_every: Annotated[int, AtLeast(1), Bookkeeping] = 20
    """Steps over which loss, speed and the like are averaged before they are logged."""
    snapshot_every: Annotated[int, AtLeast(0), Bookkeeping] = 0
    """Steps between snapshots: masks of two videos of the validation (or else evaluation) split, kept for the report's
    pictures of how masks emerge (Figure 6); 0: none."""
    snapshot_videos: Annotated[tuple[str, ...], Bookkeeping] = ()
    """The videos whose masks are kept, such as `motocross-jump,drift-chicane`; empty: the first two of the split."""
    max_failures: Annotated[int, Bookkeeping, Inherited] = 3
    """Worker or node failures survived before the run is given up."""
    max_nonfinite_steps: Annotated[int, Computes] = 10
    """Consecutive steps with a non-finite loss or gradient (each is skipped) before the run is given up."""
    precision: Annotated[Literal["auto", "float32", "bfloat16"], Computes, Priced] = "auto"
    """`auto`: bfloat16 autocast on GPUs that have it, float32 elsewhere."""
    rollout_precision: Annotated[Literal["same", "bfloat16"], Computes, Priced] = "same"
    """Autocast of the forward roll-out alone, which carries no gradient."""
    rollout: Annotated[Literal["auto", "graph", "eager"], Machine, Priced] = "auto"
    """`graph`: the forward roll-out is captured as a CUDA graph, once for each number of objects; the same but for
    rounding. `auto`: on GPUs. What cannot be captured is eager, and log and `result.json` say why; so is a roll-out
    that shares features of another precision (`rollout_precision` beside float32)."""
    ema_decay: Annotated[float | None, Fraction, Computes, Added(before=None)] = None
    """Beside the last weights their exponential moving average is kept, scored as `final/ema/jf`, and left as
    `network_ema.safetensors`: this share of it stays at every step (Two-shot VOS: 0.995). None: no average."""
    channels_last: Annotated[bool, Computes, Priced] = True
    """Lays images and weights out channels last in memory, which convolutions on GPUs prefer."""
    compile: Annotated[bool, Computes, Priced] = False
    """Compiles the encoders with `torch.compile`: minutes at the start, faster steps after."""
    gradient_checkpointing: Annotated[bool, Computes, Priced] = False
    """Recompute each backward-propagation step instead of storing it."""
    deterministic: Annotated[bool, Computes, Priced] = True
    """On CPUs: algorithms that give the same results bit for bit. On GPUs it changes nothing: the fastest are taken,
    results differ by rounding from run to run, and the run says so when it starts."""
    gradient_exchange: Annotated[Literal["same", "bfloat16"], Computes, Added(before="same")] = "same"
    """What several workers send each other of their gradients; `bfloat16` halves it, for slow networks, and rounds:
    weights are then not those of one worker to the last digits."""
    num_threads: Annotated[int | None, Machine, Inherited, Priced] = None
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

    root: Annotated[str | None, Computes, Located] = None
    """A dataset folder; None switches validation off."""
    shards: Annotated[str | None, Computes, Located, Added(before=None)] = None
    """Instead of a folder: shards of the split, packed with `--labels all`, on a disk or in a bucket."""
    layout: Annotated[str, Computes] = "auto"
    """How the folder is read: a layout or dataset of `ovos-ray ls`; `auto` finds out."""
    split: Annotated[str, Computes] = "val"
    """Which of its splits chooses; never the one that is reported."""
    every: Annotated[int, AtLeast(0), Computes] = 0
    """Optimiser steps between validations; 0: only at the end."""
    num_videos: Annotated[int | None, AtLeast(1), Computes] = None
    """Only the first so many videos of the split; None: all."""
    select_best: Annotated[bool, Computes] = False
    """True: the checkpoint with the best J&F of this split is the result. False (default): the last one."""

    @property
    def source(self) -> str | None:
        """Where the videos lie, if there are any: a dataset folder, or shards."""
        return self.root or self.shards


@dataclass(frozen=True)
class ScoredSplit:
    """A further dataset to score, written `NAME=FOLDER` or `NAME=FOLDER:SPLIT`.

    Attributes:
        name: Its scores are called `final/NAME/jf`.
        root: The dataset's folder.
        split: Which of its splits.
    """

    name: str
    root: str
    split: str = "val"

    @classmethod
    def from_text(cls, text: str) -> ScoredSplit:
        """Reads what the command line says.

        Raises:
            ConfigError: It is of another form.
        """
        match = re.fullmatch(r"([\w.-]+)=(.+?)(?::([\w.-]+))?", text)
        if match is None:
            raise ConfigError(f"evaluation.also = {text!r} names no dataset", "write NAME=FOLDER or NAME=FOLDER:SPLIT")
        return cls(match[1], match[2], match[3] or "val")

    def __str__(self) -> str:
        return f"{self.name}={self.root}" + ("" if self.split == "val" else f":{self.split}")

    def __repr__(self) -> str:  # as `ovos-ray show` prints it and reads it back
        return repr(str(self))


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """The split that is reported, scored once with the resulting weights."""

    root: Annotated[str | None, Computes, Located] = None
    """A dataset folder; None: nothing is scored at the end of the run."""
    shards: Annotated[str | None, Computes, Located, Added(before=None)] = None
    """Instead of a folder: shards of the split, packed with `--labels all`, on a disk or in a bucket."""
    layout: Annotated[str, Computes] = "auto"
    """How the folder is read: a layout or dataset of `ovos-ray ls`; `auto` finds out."""
    split: Annotated[str, Computes] = "val"
    """Which of its splits is reported."""
    protocol: Annotated[
        Literal["auto", "davis2016", "davis2017", "youtube-vos"], Computes, Open("auto", counts_as="davis2017")
    ] = "auto"
    """By which benchmark's rules it is scored; `davis2016` merges all objects into one foreground. `auto`: by those of
    the dataset's layout, `davis2017` where it has none of its own; filled in when a run is prepared."""
    shortest_side: Annotated[int | None, AtLeast(1), Computes] = None
    """Frames are predicted at this size (and scored at their own); None: the published one, 480."""
    also: Annotated[tuple[ScoredSplit, ...], Computes] = ()
    """More datasets scored with the same weights, `NAME=FOLDER` or `NAME=FOLDER:SPLIT` each, such as
    `davis2016=DAVIS/2016` for the other half of Table 1; shards will do. Their scores are called `final/NAME/jf`."""

    @property
    def source(self) -> str | None:
        """Where the videos lie, if there are any: a dataset folder, or shards."""
        return self.root or self.shards


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """Another recipe whose weights this one starts from; computed once per digest and shared.

    The pretraining has the network, the tracking store and the workers of the run that asks for it; the rest is the
    recipe's, with its own seed. A weights file as `network.init` takes its place.
    """

    recipe: Annotated[str, Computes] = "trainables.static_pretraining"
    """Module path, such as `trainables.static_pretraining.xmem`."""
    overrides: Annotated[tuple[str, ...], Computes] = ()
    """Settings that differ from the recipe, written as on the command line: `train.steps=1000,data.batch_size=8`."""
    storage: Annotated[str | None, Bookkeeping] = None
    """Folder of all pretrainings, one subfolder per digest; None: `pretraining` in the run's storage."""
    digest: Annotated[str, Computes] = ""
    """Digest of the pretraining's configuration; filled in when the run is prepared."""


@dataclass(frozen=True, kw_only=True)
class SegmentConfig:
    """The part of a run from a step, at which another run stopped, up to a later one: population-based training.

    The other run's weights, optimiser state and step are taken over. `train.steps` and all schedules stay those of the
    whole; its digest, and so that of everything before it, is part of this one's.
    """

    start_step: Annotated[int, Identifies] = 0
    """Optimiser step at which the segment begins."""
    stop_step: Annotated[int, Identifies] = 1
    """Optimiser step at which it ends."""
    parent: Annotated[str, Bookkeeping] = ""
    """Name of the run, in the same storage, that stopped at `start_step`; empty at step 0."""
    parent_digest: Annotated[str, Identifies] = ""
    """Digest of that run's configuration as written; what its data is says the segment itself."""
    member: Annotated[int, Member] = 0
    """Of the population, from 0."""
    generation: Annotated[int, Bookkeeping] = 0
    """From 0."""
