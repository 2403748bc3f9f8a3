"""A clip of the plan becomes arrays: read, decode, crop where an object shows, renumber the objects.

Legend of shapes: T frames of a clip, S crop size.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ovos_ray import seeding
from ovos_ray.arrays import UInt8Array
from ovos_ray.config import AugmentationConfig, DataConfig, ExperimentConfig
from ovos_ray.config.data_settings import static_augmentation
from ovos_ray.data import masks
from ovos_ray.data.clips.batches import NO_LABEL
from ovos_ray.data.clips.plan import Clip
from ovos_ray.data.shards.reader import FrameRow, ShardReader
from ovos_ray.errors import DataError
from ovos_ray.pixels import augment as transforms
from ovos_ray.pixels.merging import paste_objects

__all__ = ["ClipDecoder", "Sample"]


@dataclass(frozen=True)
class Sample:
    """One training sample; uint8 until it is on the device.

    Attributes:
        position: Place in the plan.
        frames: (T, 3, S, S) uint8 RGB.
        labels: (L, S, S) uint8 object indices 1 … num_objects; L = 1 (the reference frame) or T. Frames without a label
            are filled with `NO_LABEL`, and so are, in further labels, objects that the reference label does not show.
        num_objects: Objects the reference label shows.
        weight: 1, or 0 for a sample without object and for an unreadable one.
        problem: What could not be read; empty for a good sample.
    """

    position: int
    frames: UInt8Array
    labels: UInt8Array
    num_objects: int
    weight: float
    problem: str = ""


class ClipDecoder:
    """Turns clips into samples. Picklable; one a process is enough.

    Args:
        data: The data part of the configuration.
        all_labels: Whether every frame's label is needed (fully supervised) or the reference frame's alone; the others
            are read where the shards have them, since they show how good the masks between are.
        further_labels: Whether those of further frames are needed where the shards have them (`method.further_labels`).
    """

    def __init__(self, data: DataConfig, *, all_labels: bool, further_labels: bool = False) -> None:
        self.data, self.all_labels, self.further_labels = data, all_labels, further_labels
        self._readers = [ShardReader(folder, data.cache) for folder in data.shards]
        some = data.static_share or further_labels or any(reader.index.labels == "all" for reader in self._readers)
        self._num_labels = data.clip_length if all_labels or some else 1

    @classmethod
    def of(cls, config: ExperimentConfig) -> ClipDecoder:
        """Returns the decoder of a run, with the labels that its method needs."""
        method = config.method
        return cls(config.data, all_labels=method.needs_all_labels, further_labels=method.compares_further_labels)

    def __call__(self, clip: Clip, out: UInt8Array | None = None) -> Sample:
        """Decodes a clip.

        Args:
            clip: Of the plan.
            out: Where its frames go, (T, 3, S, S), such as a part of a batch; None: into memory of their own.

        Raises:
            DataError: A row cannot be read, unless `data.on_bad_row` is `skip`: then the sample has weight zero and
                names its problem, and no other sample takes its place.
        """
        n, size = self.data.clip_length, self.data.crop_size
        out = np.empty((n, 3, size, size), np.uint8) if out is None else out
        try:
            return self._decode(clip, out)
        except DataError as error:
            if self.data.on_bad_row == "error":
                raise DataError(
                    f"position {clip.position}, video {clip.video!r}: {error.message}",
                    error.remedy
                    or "`ovos-ray verify SHARDS` lists every bad row; data.on_bad_row=skip goes on without",
                ) from error
            out[:] = 0
            return Sample(
                position=clip.position,
                frames=out,
                labels=np.zeros((self._num_labels, size, size), np.uint8),
                num_objects=0,
                weight=0.0,
                problem=f"video {clip.video!r}: {error.message}",
            )

    def _decode(self, clip: Clip, out: UInt8Array) -> Sample:
        rows = self._rows(clip)
        if clip.static:
            return self._decode_static(clip, rows[0], out)
        frames, labels = self._augmented(clip, rows, out)
        order = clip.object_order
        if clip.merged is not None and len(np.unique(labels[0][labels[0] > 0])) < self.data.max_objects:
            others = self._readers[clip.merged.source].read(clip.merged.video, clip.merged.frames)
            other = self._augmented(clip.merged, others, np.empty_like(out))
            frames, labels = paste_objects(frames, labels, *other)
            order = _order_of_both(clip, labels)
        return self._sample(clip, order, frames, labels, out)

    def _rows(self, clip: Clip) -> list[FrameRow]:
        return self._readers[clip.source].read(clip.video, clip.frames)

    def _augmented(self, clip: Clip, rows: Sequence[FrameRow], out: UInt8Array) -> tuple[UInt8Array, UInt8Array]:
        """Returns frames (T, 3, S, S), which are `out`, and labels (L, S, S), with the ids of the dataset."""
        images = [masks.decode_image(row.jpeg) for row in rows]
        height, width = images[0].shape[:2]
        first = _label_of(rows[0])
        labels = [first, *self._labels_after(rows)]
        parameters = self._first_showing(clip, first, height, width)
        for t, image in enumerate(images):
            transforms.apply_to_frame(image, parameters, t, out[t])
        cropped = np.full((len(labels), *out.shape[2:]), NO_LABEL, np.uint8)
        for t, label in enumerate(labels):
            if label is not None:
                cropped[t] = transforms.apply_to_label(label, parameters, t)
        return out, cropped

    def _labels_after(self, rows: Sequence[FrameRow]) -> list[UInt8Array | None]:
        """Returns the labels of the frames after the reference frame as far as they are there, if they are wanted."""
        shown = self._num_labels > 1 and all(row.label is not None for row in rows)
        if self.all_labels or shown:
            return [_label_of(row) for row in rows[1:]]
        return [None if row.label is None else _label_of(row) for row in rows[1:]] if self.further_labels else []

    def _first_showing(self, clip: Clip, label: UInt8Array, height: int, width: int) -> transforms.ClipParameters:
        """Returns the first seeded crop that shows an object; after the last try, the whole frame."""
        for attempt in range(self.data.crop_tries):
            parameters = transforms.draw_parameters(
                seeding.integer_seed(clip.seed, attempt, "crop"),
                self._augmentation(clip),
                self.data.crop_size,
                height,
                width,
                self.data.clip_length,
            )
            if bool(transforms.apply_to_label(label, parameters, 0).any()):
                return parameters
        return transforms.draw_parameters(clip.seed, None, self.data.crop_size, height, width, self.data.clip_length)

    def _augmentation(self, clip: Clip) -> AugmentationConfig | None:
        """Returns the augmentation in force; it draws the same crops and colours with and without frame geometry."""
        augmentation = self.data.augmentation
        if augmentation is None or clip.frame_geometry:
            return augmentation
        return dataclasses.replace(augmentation, frame_rotation=0.0, frame_shear=0.0)

    def _decode_static(self, clip: Clip, row: FrameRow, out: UInt8Array) -> Sample:
        from ovos_ray.pixels import layered_clips, pasted_clips, static_clips

        ways = {"affine": static_clips.synthesise, "layers": layered_clips.synthesise_layers}
        rows = [row, *(self._rows(clip.merged) if clip.merged else ())]
        pictures = [part for row in rows for part in (masks.decode_image(row.jpeg), _label_of(row))]
        augmentation = self._augmentation(clip) if self.data.source == "static" else static_augmentation()
        spec = static_clips.ClipSpec(self.data.clip_length, self.data.crop_size, clip.seed, augmentation)
        frames, labels = ways.get(self.data.static_clips, pasted_clips.synthesise_pasted)(*pictures, spec=spec)
        order = _order_of_both(clip, labels) if clip.merged else clip.object_order
        return self._sample(clip, order, frames, labels[: self._num_labels], out)

    def _sample(
        self, clip: Clip, order: Sequence[int], frames: UInt8Array, labels: UInt8Array, out: UInt8Array
    ) -> Sample:
        """Keeps the first `max_objects` of the order that the reference label still shows, numbered from 1."""
        shown = set(np.unique(labels[0]).tolist()) - {0}
        kept = sorted([i for i in order if i in shown][: self.data.max_objects])
        renumber = np.zeros(256, np.uint8)
        if self.further_labels and not clip.static:
            # What the reference label does not show is unknown, not background; what it shows and is not kept is.
            renumber[[i for i in range(1, 256) if i not in shown]] = NO_LABEL
        renumber[kept] = np.arange(1, len(kept) + 1)
        if frames is not out:
            out[:] = frames
        missing = np.full((self._num_labels - len(labels), *labels.shape[1:]), NO_LABEL, np.uint8)
        return Sample(
            position=clip.position,
            frames=out,
            labels=np.concatenate([renumber[labels], missing]),
            num_objects=len(kept),
            weight=1.0 if kept else 0.0,
        )


def _order_of_both(clip: Clip, labels: UInt8Array) -> tuple[int, ...]:
    """Returns the ids that the first frame of two clips in one shows, in a random order."""
    ids = np.unique(labels[0][labels[0] > 0])
    return tuple(seeding.generator(clip.seed, 0, "merged objects").permutation(ids).tolist())


def _label_of(row: FrameRow) -> UInt8Array:
    if row.label is None:
        raise DataError(
            f"frame {row.name} has no label",
            "the fully supervised method needs shards packed with --labels all",
        )
    return masks.decode_mask(row.label)
