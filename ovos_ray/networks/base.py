"""All that `methods/` and `evaluate/` know of a network.

A network turns frames into features (`encode`), features and masks into memory (`memorise`), and features and what was
read from memory into masks (`segment`). Whoever walks over the frames owns the memory: `methods/propagation.py` keeps
a list of frames for training, `evaluate/infer/` a bounded bank with top-k and long-term memory. Both walk so:

    state = network.start(masks)                                       # masks of the first frame
    frame, state = network.memorise(features[0], state, deep_update=True)
    for t in 1, 2, …:
        readout = read(memory of all `frame`s, features[t])            # networks/memory.py
        logits, state = network.segment(features[t], readout, state)   # state.masks are now those of frame t
        frame, state = network.memorise(features[t], state)            # on memory frames only

Legend of shapes: B samples, N objects, M frames, H x W pixels, h x w = H/16 x W/16, Ck key channels, Cv value
channels, Cs sensory channels. Logits and probabilities of B, 1+N channels have the background first.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from dataclasses import dataclass

import torch
from torch import Tensor, nn

__all__ = [
    "AuxiliaryLogits",
    "FrameFeatures",
    "InferenceDefaults",
    "MemoryFrame",
    "Padding",
    "Readout",
    "State",
    "VOSNetwork",
    "num_trained",
]

AuxiliaryLogits = dict[str, Tensor]
"""Training-only outputs of one segmented frame, each (L, B, 1+N, h, w) for L heads; Cutie: `sensory`, `query`."""


@dataclass(frozen=True, kw_only=True)
class FrameFeatures:
    """What an image gives before any mask is known. All tensors share the leading dimension M.

    M counts frames, or the samples of a batch at one time.

    Attributes:
        key: (M, Ck, h, w), float32; the query when the frame is segmented, the key when it is memorised.
        shrinkage: (M, 1, h, w), how peaked the match of each memory position is (XMem, equation 3), or None.
        selection: (M, Ck, h, w) in [0, 1], which key channels matter for each query position, or None.
        image: (M, 3, H, W), normalised, for the mask encoder.
        maps: The network's own feature maps, in an order of its own, such as (f16, f8, f4).
    """

    key: Tensor
    shrinkage: Tensor | None = None
    selection: Tensor | None = None
    image: Tensor
    maps: tuple[Tensor, ...] = ()

    def map(self, function: Callable[[Tensor], Tensor]) -> FrameFeatures:
        """Returns a copy with `function` applied to every tensor."""
        return FrameFeatures(
            key=function(self.key),
            shrinkage=None if self.shrinkage is None else function(self.shrinkage),
            selection=None if self.selection is None else function(self.selection),
            image=function(self.image),
            maps=tuple(function(x) for x in self.maps),
        )

    def detach(self) -> FrameFeatures:
        """Returns the same features outside the graph; nothing is copied."""
        return self.map(Tensor.detach)

    def split(self, size: int) -> list[FrameFeatures]:
        """Splits the leading dimension into views of `size`, in order."""
        starts = range(0, len(self.key), size)
        return [self.map(lambda x, start=start: x[start : start + size]) for start in starts]  # type: ignore[misc]


@dataclass(frozen=True, kw_only=True)
class MemoryFrame:
    """One memorised frame.

    Attributes:
        key: (B, Ck, h, w) and shrinkage: (B, 1, h, w) or None, as in `FrameFeatures`.
        value: (B, N, Cv, h, w), one per object.
        summary: (B, N, Q, C+1) object summaries (Cutie: C sums of features and a sum of weights for Q queries), or
            None. Summaries of several frames are added.
    """

    key: Tensor
    shrinkage: Tensor | None
    value: Tensor
    summary: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Readout:
    """What memory says about the frame to be segmented.

    Attributes:
        value: (B, N, Cv, h, w), for every query position the affinity-weighted mean of memory values.
        summary: (B, N, Q, C+1), the sum of the summaries of **all** memorised frames, or None.
    """

    value: Tensor
    summary: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class State:
    """What one frame hands to the next.

    Attributes:
        masks: (B, N, H, W) soft masks of the latest frame, without the background.
        sensory: (B, N, Cs, h, w) float32, the recurrent (sensory) memory; None for networks without one.
    """

    masks: Tensor
    sensory: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class InferenceDefaults:
    """How the published evaluation of a family runs on DAVIS and YouTube-VOS.

    Attributes:
        memory_interval: Frames between two memorised frames.
        top_k: Memory positions each query attends to.
        max_frames: Working-memory frames, the permanent first one included; None: all are kept.
        min_frames: With long-term memory: working frames that are left after a compression, the first included.
        long_term: Whether frames beyond `max_frames` are compressed into prototypes instead of dropped.
        num_prototypes: Prototypes made by one compression.
        max_tokens: Most long-term positions.
        buffer_tokens: Positions freed at once when long-term memory is full, beyond the room for new prototypes.
        exclusive_update: XMem: on memory frames only the deep update. Cutie: the decoder's update, then the deep one.
        stagger_updates: Decoder updates of the sensory memory between two memory frames; None: at every frame.
    """

    memory_interval: int = 5
    top_k: int | None = 30
    max_frames: int | None = None
    min_frames: int = 5
    long_term: bool = False
    num_prototypes: int = 128
    max_tokens: int = 10_000
    buffer_tokens: int = 0
    exclusive_update: bool = False
    stagger_updates: int | None = None


class VOSNetwork(nn.Module, ABC):
    """A network that propagates masks from frame to frame.

    Features must not depend on masks nor on the other frames of a batch, so that a frame encoded once can serve every
    propagation over it: normalisation is per sample or frozen, also in training mode.

    Attributes:
        stride: Pixels per feature position; image sides must be multiples of it.
        sensory_dim: Cs, channels of the sensory memory; 0 for networks without one.
        num_reference_frames: Memory frames read per query in training (drawn anew for each); None: all.
        keeps_first_reference: Whether the first frame of the order is always one of them.
        deep_update_probability: Chance of a deep sensory update at memorised frames after the first, in training.
        padding_colour: RGB in [0, 1] around images whose sides are no multiples of the stride, as published.
        inference: The test-time settings of the published evaluation.
        backbone_prefixes: How the names of the image encoder's parameters begin, which may have a learning rate of
            their own.
        embedding_suffixes: How the names of learned embeddings end, which may be free of weight decay.
        mask_inputs: Weights whose last input channel is the mask of the other objects, which files of networks for a
            single object (stage 0) do not have.
    """

    stride: int = 16
    sensory_dim: int = 0
    num_reference_frames: int | None = None
    keeps_first_reference: bool = True
    deep_update_probability: float = 0.0
    padding_colour: tuple[float, float, float] = (0.0, 0.0, 0.0)
    inference: InferenceDefaults = InferenceDefaults()
    backbone_prefixes: tuple[str, ...] = ()
    embedding_suffixes: tuple[str, ...] = ()
    mask_inputs: tuple[str, ...] = ()

    @classmethod
    def recognise(cls, state: Collection[str]) -> str | None:
        """Returns which of the family's published configurations has parameters of these names; None: none of them."""
        return None

    @property
    def recurrent(self) -> bool:
        """Whether there is a sensory memory, whose update is trained only by orders of three frames or more."""
        return self.sensory_dim > 0

    @abstractmethod
    def encode(self, images: Tensor) -> FrameFeatures:
        """Computes what depends on images alone.

        Args:
            images: (M, 3, H, W) RGB in [0, 1]; normalised inside. H and W are multiples of `stride`.
        """

    @abstractmethod
    def memorise(
        self, features: FrameFeatures, state: State, *, deep_update: bool = False
    ) -> tuple[MemoryFrame, State]:
        """Turns a frame and its masks into memory.

        Args:
            features: Features of B frames, one per sample.
            state: `state.masks` are the masks of this very frame.
            deep_update: Whether the sensory memory also learns from the memory value.

        Returns:
            The memory of the frame, and the state with the sensory memory after the deep update, if there was one.
        """

    @abstractmethod
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
        """Turns a frame and what memory says about it into masks.

        Args:
            features: Features of B frames, one per sample.
            readout: What `networks.memory.read` gave for these features.
            state: The state after the previous frame; `state.masks` are the previous masks.
            update_sensory: Whether the decoder updates the sensory memory.
            selector: (B, N), 1 for real objects and 0 for padded ones; None: all are real.
            aux: A list to which the auxiliary logits are appended; None: they are not computed.

        Returns:
            Logits (B, 1+N, H, W), float32, background first, whose softmax are the probabilities; and the new state,
            whose masks are these probabilities without the background, inside the graph.
        """

    def start(self, masks: Tensor) -> State:
        """Returns the state at a first frame: its masks (B, N, H, W) and a sensory memory of zeros."""
        batch, objects, height, width = masks.shape
        if not self.recurrent:
            return State(masks=masks)
        shape = (batch, objects, self.sensory_dim, height // self.stride, width // self.stride)
        return State(masks=masks, sensory=masks.new_zeros(shape, dtype=torch.promote_types(masks.dtype, torch.float32)))

    def extend(self, state: State, masks: Tensor) -> State:
        """Returns the state with new objects appended.

        Args:
            state: The state with N objects.
            masks: (B, N+A, H, W) masks of the old and the A new objects at the present frame.
        """
        new = self.start(masks[:, state.masks.shape[1] :])
        if state.sensory is None or new.sensory is None:
            return State(masks=masks)
        return State(masks=masks, sensory=torch.cat([state.sensory, new.sensory], dim=1))


def num_trained(network: nn.Module) -> int:
    """Returns the number of parameters that are trained."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


@dataclass(frozen=True)
class Padding:
    """Rows and columns added so that both sides are multiples of the stride, the smaller half on the left and top."""

    left: int
    right: int
    top: int
    bottom: int

    @classmethod
    def of(cls, height: int, width: int, stride: int = 16) -> Padding:
        """Returns the padding of an image of `height` x `width` pixels."""
        rows, columns = -height % stride, -width % stride
        return cls(columns // 2, columns - columns // 2, rows // 2, rows - rows // 2)

    @property
    def empty(self) -> bool:
        """Whether nothing is added."""
        return not (self.left or self.right or self.top or self.bottom)

    def images(self, images: Tensor, colour: tuple[float, float, float]) -> Tensor:
        """Pads images (…, 3, H, W) with a colour; returns them as they are where nothing is added."""
        if self.empty:
            return images
        height, width = images.shape[-2:]
        shape = (*images.shape[:-2], height + self.top + self.bottom, width + self.left + self.right)
        padded = images.new_empty(shape)
        for channel, value in enumerate(colour):  # as numbers: a tensor of them would have to wait for the device
            padded[..., channel, :, :] = value
        padded[..., self.top : self.top + height, self.left : self.left + width] = images
        return padded

    def masks(self, masks: Tensor) -> Tensor:
        """Pads masks (…, H, W) with zeros."""
        return masks if self.empty else nn.functional.pad(masks, (self.left, self.right, self.top, self.bottom))

    def crop(self, padded: Tensor) -> Tensor:
        """Takes the padding off again, from anything (…, H, W); a view."""
        height, width = padded.shape[-2:]
        return padded[..., self.top : height - self.bottom, self.left : width - self.right]
