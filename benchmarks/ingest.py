"""Training clips a processor second, ours beside the published pipeline, on the same 480p frames in one run.

python benchmarks/ingest.py --root ../shared/davis-mini

The published pipeline is written anew from its description: PIL reads every frame and mask from its file, torchvision's
transforms run on PIL images under re-seeded generators, a `DataLoader` collates; 8 frames of XMem's video stage, crops
of 384. Ours decodes the same clips of the plan from shards. Both take turns, one thread each.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import platform
import pstats
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from common import name_of
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.transforms import InterpolationMode

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ovos_ray.config import ExperimentConfig, override
from ovos_ray.data.clips.batches import decode_batch
from ovos_ray.data.clips.decode import ClipDecoder
from ovos_ray.data.clips.plan import Clip, Plan
from ovos_ray.data.folders.open import open_dataset
from ovos_ray.data.folders.video import Video
from ovos_ray.data.shards.index import ShardIndex
from ovos_ray.packing.pack import pack
from trainables import augmentation

SIDE, FRAMES, BATCH = 384, 8, 4
FILL = (124, 116, 104)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def _seeded(transform: Callable[[Any], Any], image: Any, seed: int) -> Any:
    """Applies a transform under both generators that it may draw from, as the published code does."""
    random.seed(seed)
    torch.manual_seed(seed)
    return transform(image)


class PublishedDataset(Dataset[dict[str, Any]]):
    """One clip an item: files opened with PIL, images and masks transformed one by one, a one-hot label at the end."""

    def __init__(self, videos: dict[str, Video], clips: Sequence[Clip]) -> None:
        self.videos, self.clips = videos, clips
        crop = {"scale": (0.36, 1.0), "ratio": (3 / 4, 4 / 3)}
        image, mask = InterpolationMode.BILINEAR, InterpolationMode.NEAREST
        self.clip_image = transforms.Compose(
            [transforms.RandomHorizontalFlip(), transforms.RandomResizedCrop((SIDE, SIDE), interpolation=image, **crop)]
        )
        self.clip_mask = transforms.Compose(
            [transforms.RandomHorizontalFlip(), transforms.RandomResizedCrop((SIDE, SIDE), interpolation=mask, **crop)]
        )
        self.clip_colour = transforms.Compose(
            [transforms.ColorJitter(0.1, 0.03, 0.03, 0), transforms.RandomGrayscale(0.05)]
        )
        self.frame_image = transforms.RandomAffine(15, shear=10, interpolation=image, fill=FILL)
        self.frame_mask = transforms.RandomAffine(15, shear=10, interpolation=mask, fill=0)
        self.frame_colour = transforms.ColorJitter(0.01, 0.01, 0.01, 0)
        self.final = transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, STD)])

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, number: int) -> dict[str, Any]:
        clip = self.clips[number]
        video = self.videos[clip.video]
        images, masks = [], []
        for frame in clip.frames:
            own = (clip.seed + 1 + frame) % 2**31
            image = Image.open(video.frames[frame]).convert("RGB")
            mask = Image.open(video.masks[frame]).convert("P")
            image = _seeded(self.clip_colour, _seeded(self.clip_image, image, clip.seed), clip.seed)
            mask = _seeded(self.clip_mask, mask, clip.seed)
            image = _seeded(self.frame_colour, _seeded(self.frame_image, image, own), own)
            images.append(self.final(image))
            masks.append(np.array(_seeded(self.frame_mask, mask, own)))
        stacked = np.stack(masks)
        ids = [i for i in np.unique(stacked[0]) if i][:3]
        label = np.zeros((FRAMES, SIDE, SIDE), np.int64)
        one_hot = np.zeros((3, SIDE, SIDE), np.int64)
        for place, object_id in enumerate(ids):
            label[stacked == object_id] = place + 1
            one_hot[place] = stacked[0] == object_id
        return {"rgb": torch.stack(images), "first_frame_gt": one_hot, "cls_gt": label[:, None], "objects": len(ids)}


def published(videos: dict[str, Video], clips: Sequence[Clip]) -> Iterator[dict[str, Any]]:
    yield from DataLoader(PublishedDataset(videos, clips), BATCH, num_workers=0)


def ours(decoder: ClipDecoder, clips: Sequence[Clip]) -> Iterator[dict[str, Any]]:
    for first in range(0, len(clips), BATCH):
        yield decode_batch(decoder, clips[first : first + BATCH])


def per_second(batches: Iterator[dict[str, Any]], count: int) -> float:
    """Clips per second of processor time of this process."""
    began = time.process_time()
    for _ in batches:
        pass
    return count / (time.process_time() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path(os.environ.get("OVOS_SHARED", "../shared")) / "davis-mini")
    parser.add_argument("--clips", type=int, default=24, help="of each pipeline in each turn")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--profile", action="store_true", help="show where our own time goes, and stop")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    source = open_dataset(arguments.root, "davis2016")
    with tempfile.TemporaryDirectory() as folder:
        pack(source, folder, labels="all")
        base = {"data.shards": (folder,), "data.clip_length": FRAMES, "data.crop_size": SIDE, "data.batch_size": BATCH}
        config = override(
            ExperimentConfig(), {**base, "data.augmentation": augmentation.XMEM, "data.max_skip": ((0.0, 5),)}
        )
        plan = Plan([ShardIndex.load(folder)], config.data, seed=0, steps=10_000)
        clips = [plan.clip(position) for position in range(arguments.clips)]
        videos = {video.name: video for video in source.videos("train")}
        first = tempfile.mkdtemp(dir=folder)
        pack(source, Path(first) / "shards", labels="first")
        one_label = override(config, {"data.shards": (str(Path(first) / "shards"),)})
        pipelines: dict[str, Callable[[], Iterator[dict[str, Any]]]] = {
            "published": lambda: published(videos, clips),
            "ours, all labels": lambda: ours(ClipDecoder(config.data, all_labels=True), clips),
            "ours, one label": lambda: ours(ClipDecoder(one_label.data, all_labels=False), clips),
        }
        if arguments.profile:
            profile = cProfile.Profile(time.process_time)
            profile.runcall(lambda: list(pipelines["ours, one label"]()))
            pstats.Stats(profile).sort_stats("tottime").print_stats(18)
            return
        found: dict[str, list[float]] = {name: [] for name in pipelines}
        for turn in range(arguments.turns + 1):
            for name, batches in pipelines.items():
                rate = per_second(batches(), len(clips))
                if turn:  # the first turn warms caches
                    found[name].append(rate)
    rates = {name: statistics.median(values) for name, values in found.items()}
    ratios = {
        name: sorted(round(mine / theirs, 2) for mine, theirs in zip(values, found["published"], strict=True))
        for name, values in found.items()
        if name != "published"
    }
    versions = {name: metadata.version(name) for name in ("torch", "torchvision", "pillow", "opencv-python-headless")}
    machine = {"cpu": name_of(torch.device("cpu")), "python": platform.python_version(), "load": os.getloadavg()[0]}
    print(json.dumps({"clips per processor second": rates, "ratios": ratios, **machine, **versions}, indent=2))


if __name__ == "__main__":
    main()
