"""One propagation over a video, frame by frame, with the network's test-time memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ovos_ray.evaluate.infer.graphed import GraphedNetwork
from ovos_ray.evaluate.infer.memory_bank import MemoryBank
from ovos_ray.evaluate.infer.settings import InferenceSettings
from ovos_ray.networks.base import FrameFeatures, Padding, Readout, State, VOSNetwork
from ovos_ray.networks.blocks import aggregate

__all__ = ["Propagator"]


class Propagator:
    """Follows objects through a video; the test-time counterpart of `methods.propagation.propagate`.

    Args:
        network: The network, in evaluation mode, or one whose parts are graphs.
        settings: How to run it.

    Attributes:
        ids: Ids of the objects followed, in order of appearance; the order of channels.
        state: Masks and sensory memory after the latest frame, padded to the network's stride.
        banks: Memory, one bank for each group of objects that appeared together.
    """

    def __init__(self, network: VOSNetwork | GraphedNetwork, settings: InferenceSettings) -> None:
        self.network, self.settings = network, settings
        self.ids: list[int] = []
        self.state: State | None = None
        self.banks: list[MemoryBank] = []
        self._elapsed = 0

    @torch.inference_mode()
    def step(
        self, image: Tensor, mask: Tensor | None = None, ids: Sequence[int] | None = None, *, last: bool = False
    ) -> Tensor | None:
        """Goes on to the next frame.

        Args:
            image: (3, H, W) RGB in [0, 1].
            mask: (H, W) object ids given at this frame: of new objects, or of known ones to be corrected.
            ids: The objects that `mask` shows; None: those with a pixel in it.
            last: Whether no frame follows, so that nothing needs to be memorised.

        Returns:
            Probabilities (1+N, H, W), background first, then the objects in the order of `ids`; None before the first.
        """
        given = [] if mask is None else _present(mask) if ids is None else list(ids)
        if not self.ids and not given:
            return None
        network = self.network
        padding = Padding.of(image.shape[-2], image.shape[-1], network.stride)
        features = network.encode(padding.images(image, network.padding_colour)[None])
        self._elapsed += 1
        memorise = (bool(given) or self._elapsed >= self.settings.memory_interval) and not last
        probabilities = None
        if set(self.ids) - set(given):
            assert self.state is not None
            update = self.settings.updates_sensory(self._elapsed, memorise) and not last
            readout = _join([bank.read(features) for bank in self.banks])
            logits, self.state = network.segment(features, readout, self.state, update_sensory=update)
            probabilities = logits.softmax(1)
        if mask is not None and given:
            probabilities = self._merge(padding.masks(mask), given)
        if memorise:
            self._memorise(features)
            self._elapsed = 0
        assert probabilities is not None
        return padding.crop(probabilities[0])

    def remove(self, index: int) -> None:
        """Forgets an object of `ids`."""
        place = self.ids.index(index)
        self.ids.remove(index)
        start = 0
        for bank in self.banks:
            if start <= place < start + bank.num_objects:
                bank.remove(place - start)
                break
            start += bank.num_objects
        self.banks = [bank for bank in self.banks if bank.num_objects]
        assert self.state is not None
        kept = [i for i in range(len(self.ids) + 1) if i != place]
        sensory = self.state.sensory
        state = State(masks=self.state.masks[:, kept], sensory=None if sensory is None else sensory[:, kept])
        self.state = state if self.ids else None

    def _merge(self, mask: Tensor, given: list[int]) -> Tensor:
        """Lets a given mask overrule the prediction, adds its new objects, and returns the new probabilities."""
        known = len(self.ids)
        self.ids += [index for index in given if index not in self.ids]
        masks = torch.zeros((1, len(self.ids), *mask.shape), device=mask.device)
        if self.state is not None:
            masks[:, :known] = self.state.masks * (mask == 0)
        for index in given:
            masks[:, self.ids.index(index)] = mask == index
        probabilities = aggregate(masks).softmax(1)
        masks = probabilities[:, 1:]
        if self.state is None:
            self.state = self.network.start(masks)
        elif len(self.ids) > known:
            self.state = self.network.extend(self.state, masks)
        else:
            self.state = replace(self.state, masks=masks)
        if len(self.ids) > known:
            self.banks.append(MemoryBank(self.settings, len(self.ids) - known))
        return probabilities

    def _memorise(self, features: FrameFeatures) -> None:
        assert self.state is not None
        frame, self.state = self.network.memorise(features, self.state, deep_update=True)
        start = 0
        for bank in self.banks:
            objects = slice(start, start + bank.num_objects)
            summary = None if frame.summary is None else frame.summary[:, objects]
            bank.append(replace(frame, value=frame.value[:, objects], summary=summary), features)
            start += bank.num_objects


def _present(mask: Tensor) -> list[int]:
    return [index for index in torch.unique(mask).tolist() if index != 0]


def _join(readouts: list[Readout]) -> Readout:
    summaries = [readout.summary for readout in readouts if readout.summary is not None]
    return Readout(
        value=torch.cat([readout.value for readout in readouts], dim=1),
        summary=torch.cat(summaries, dim=1) if summaries else None,
    )
