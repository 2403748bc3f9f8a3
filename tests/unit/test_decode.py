"""Clips become samples: crops that show an object, renumbered objects, and bad rows that keep their place."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ovos_ray.config import AugmentationConfig, DataConfig
from ovos_ray.data.clips.batches import LocalStream, decode_batch
from ovos_ray.data.clips.decode import ClipDecoder
from ovos_ray.data.clips.plan import Plan
from ovos_ray.data.folders import synthetic
from ovos_ray.data.folders.open import open_dataset
from ovos_ray.data.masks import decode_image, decode_mask
from ovos_ray.data.shards.index import ShardIndex
from ovos_ray.data.shards.reader import ShardReader
from ovos_ray.errors import DataError, StorageError
from ovos_ray.packing.pack import pack
from trainables import augmentation as presets


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    small = synthetic.SyntheticConfig(height=48, width=64, num_frames=8)
    synthetic.generate(root / "dataset", seed=5, num_videos={"train": 4, "val": 1}, config=small)
    for labels in ("first", "all"):
        pack(open_dataset(root / "dataset"), root / labels, labels=labels, split="train")
    return root


def make(folder: Path, labels: str = "first", **changes: Any) -> tuple[Plan, ClipDecoder]:
    values = {"clip_length": 3, "crop_size": 48, "batch_size": 4, "max_objects": 3, **changes}
    data = DataConfig(shards=(str(folder / labels),), **values)
    plan = Plan([ShardIndex.load(folder / labels)], data, seed=0, steps=10)
    return plan, ClipDecoder(data, all_labels=labels == "all")


def test_without_augmentation_a_sample_is_the_resized_frames(folder: Path) -> None:
    plan, decoder = make(folder, augmentation=None)
    clip = plan.clip(0)
    sample = decoder(clip)
    rows = ShardReader(folder / "first").read(clip.video, clip.frames)
    assert sample.frames.shape == (3, 3, 48, 48)
    for t, row in enumerate(rows):
        image = torch.from_numpy(decode_image(row.jpeg)).permute(2, 0, 1).float()
        expected = torch.nn.functional.interpolate(image[None], (48, 48), mode="bilinear", antialias=True)[0]
        assert float((torch.from_numpy(sample.frames[t]).float() - expected).abs().mean()) < 1.0
    label = decode_mask(rows[0].label or b"")
    assert sample.num_objects == len(np.unique(label)) - 1
    assert set(np.unique(sample.labels)) == set(range(sample.num_objects + 1))


def test_samples_are_a_function_of_the_position(folder: Path) -> None:
    plan, decoder = make(folder)
    again, other_decoder = make(folder)
    for position in range(6):
        a, b = decoder(plan.clip(position)), other_decoder(again.clip(position))
        assert np.array_equal(a.frames, b.frames)
        assert np.array_equal(a.labels, b.labels)
    assert not np.array_equal(decoder(plan.clip(0)).frames, decoder(plan.clip(plan.epoch_length)).frames)


def test_every_crop_shows_an_object(folder: Path) -> None:
    tight = AugmentationConfig(crop_scale=(0.02, 0.05))
    plan, decoder = make(folder, augmentation=tight)
    samples = [decoder(plan.clip(p)) for p in range(40)]
    assert all(sample.num_objects > 0 and sample.labels.any() for sample in samples)
    assert all(sample.weight == 1.0 for sample in samples)


@pytest.mark.parametrize("source", ["video", "static"])
def test_the_last_phase_leaves_crops_and_colours_and_drops_the_geometry_of_frames(folder: Path, source: str) -> None:
    turned = AugmentationConfig(frame_rotation=15.0, frame_shear=10.0)
    still = AugmentationConfig()
    phased, decoder = make(
        folder, "all", source=source, augmentation=dataclasses.replace(turned, frame_geometry_until=0.6)
    )
    always, never = (
        make(folder, "all", source=source, augmentation=augmentation)[1] for augmentation in (turned, still)
    )
    for position in (22, 23, 24, 25):  # the 6th of 10 steps ends with clip 23
        sample = decoder(phased.clip(position))
        clip = dataclasses.replace(phased.clip(position), frame_geometry=True)
        expected, other = (always, never) if position < 24 else (never, always)
        assert np.array_equal(sample.frames, expected(clip).frames)
        assert np.array_equal(sample.labels, expected(clip).labels)
        assert not np.array_equal(sample.frames, other(clip).frames)


def test_at_most_max_objects_are_kept_and_numbered_from_one(folder: Path) -> None:
    plan, decoder = make(folder, max_objects=1, augmentation=None)
    kept = set()
    for position in range(24):
        clip = plan.clip(position)
        sample = decoder(clip)
        assert sample.num_objects == 1
        assert set(np.unique(sample.labels)) == {0, 1}
        kept.add((clip.video, clip.object_order[0]))
    assert len(kept) > len({video for video, _ in kept}), "not always the same object of a video"


def test_all_labels_are_renumbered_alike(folder: Path) -> None:
    plan, decoder = make(folder, "all", augmentation=None, clip_start="any", crop_size=64)
    clip = plan.clip(0)
    sample = decoder(clip)
    assert sample.labels.shape == (3, 64, 64)
    kept = sorted(clip.object_order)
    for row, label in zip(ShardReader(folder / "all").read(clip.video, clip.frames), sample.labels, strict=True):
        truth = decode_mask(row.label or b"")
        for number, object_id in enumerate(kept, start=1):
            # Rows were stretched from 48 to 64 and columns kept: areas grow by 4/3.
            assert abs((label == number).sum() - (truth == object_id).sum() * 4 / 3) < 40


def test_clips_of_single_images_have_a_label_for_every_frame(folder: Path) -> None:
    augmentation = dataclasses.replace(presets.CUTIE_STATIC, spline=1.0)
    plan, decoder = make(folder, "all", source="static", max_objects=1, augmentation=augmentation)
    samples = [decoder(plan.clip(p)) for p in range(12)]
    shown = [sample for sample in samples if sample.weight]
    assert len(shown) > 8, "a zoom of two may lose a small object"
    for sample in shown:
        assert sample.labels.shape == (3, 48, 48)
        assert (sample.num_objects, set(np.unique(sample.labels[0]))) == (1, {0, 1})
        assert not np.array_equal(sample.frames[0], sample.frames[1])
    again = decoder(plan.clip(3))
    assert np.array_equal(again.frames, samples[3].frames)
    only_first = ClipDecoder(plan.data, all_labels=False)(plan.clip(3))
    assert np.array_equal(only_first.labels, samples[3].labels)


def test_the_supervised_method_needs_all_labels(folder: Path) -> None:
    plan, _ = make(folder, "first")
    decoder = ClipDecoder(plan.data, all_labels=True)
    with pytest.raises(DataError, match="--labels all"):
        decoder(plan.clip(0))


class Broken:
    """A reader whose every second video cannot be read."""

    def __init__(self, reader: ShardReader, bad: set[str]) -> None:
        self._reader, self._bad = reader, bad

    def read(self, video: str, frames: Any) -> Any:
        if video in self._bad:
            raise DataError(f"frames-00000.parquet: video {video!r}: checksum does not match", "pack it again")
        return self._reader.read(video, frames)


def test_a_bad_row_is_an_error_or_a_counted_zero_weight_slot(folder: Path) -> None:
    plan, decoder = make(folder)
    bad = {plan.clip(1).video}
    decoder._readers = [Broken(decoder._readers[0], bad)]  # type: ignore[list-item]
    with pytest.raises(DataError, match=r"position 1, video .*checksum does not match"):
        decoder(plan.clip(1))

    decoder.data = dataclasses.replace(decoder.data, on_bad_row="skip")
    stream = LocalStream(plan, decoder)
    batches = list(stream.batches())
    good_plan, good_decoder = make(folder)
    for batch, expected in zip(batches, LocalStream(good_plan, good_decoder).batches(), strict=True):
        assert torch.equal(batch["position"], expected["position"])
        for i, position in enumerate(batch["position"].tolist()):
            if plan.clip(position).video in bad:
                assert batch["weight"][i] == 0
                assert not batch["frames"][i].any()
            else:
                assert torch.equal(batch["frames"][i], expected["frames"][i])
    listed = [position for position, _ in stream.problems]
    assert listed == [p for p in range(40) if plan.clip(p).video in bad]
    assert all("checksum" in what for _, what in stream.problems)


def test_columns_are_stacked_in_order(folder: Path) -> None:
    plan, decoder = make(folder)
    columns = decode_batch(decoder, [plan.clip(p) for p in (3, 4)])
    assert columns["position"].tolist() == [3, 4]
    assert columns["frames"].shape == (2, 3, 3, 48, 48)
    assert columns["frames"].dtype == np.uint8


def test_a_storage_out_of_reach_is_an_error_and_no_bad_row(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, decoder = make(folder, on_bad_row="skip")

    def answers(error: Exception) -> None:
        def opened(*_: object) -> None:
            raise error

        monkeypatch.setattr("ovos_ray.data.shards.reader.open_shard", opened)

    answers(StorageError("s3://b: the storage cannot be reached"))
    with pytest.raises(StorageError):
        decoder(plan.clip(0))
    answers(DataError("damaged"))
    assert decoder(plan.clip(0)).weight == 0, "the control"
