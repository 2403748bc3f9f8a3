"""A small dataset in the layout of DAVIS 2017, for tests that damage it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ovos_ray.data.masks import encode_jpeg, encode_mask

__all__ = ["FRAMES", "HEIGHT", "WIDTH", "make_davis"]

HEIGHT, WIDTH, FRAMES = 48, 80, 6


def make_davis(root: Path, num_videos: int = 3, seed: int = 0) -> Path:
    """Noisy frames, a mask per frame; the objects of video 1 appear in frame 2, and its ids are 1 and 3."""
    rng = np.random.default_rng(seed)
    for video in range(num_videos):
        for index in range(FRAMES):
            name = f"480p/v{video}/{index:05d}"
            (root / "JPEGImages" / name).parent.mkdir(parents=True, exist_ok=True)
            (root / "Annotations" / name).parent.mkdir(parents=True, exist_ok=True)
            frame = rng.integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)
            (root / "JPEGImages" / f"{name}.jpg").write_bytes(encode_jpeg(frame))
            mask = np.zeros((HEIGHT, WIDTH), np.uint8)
            if video != 1 or index >= 2:
                mask[5 : 15 + index, 10:30] = 1
                mask[20:40, 40 + video : 60] = 3
            (root / "Annotations" / f"{name}.png").write_bytes(encode_mask(mask))
    (root / "ImageSets/2017").mkdir(parents=True)
    (root / "ImageSets/2017/train.txt").write_text("".join(f"v{video}\n" for video in range(num_videos)))
    return root
