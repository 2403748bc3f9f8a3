"""Processor time of decoding and augmenting one 854x480 frame and its label, for the published augmentations.

python benchmarks/augmentation.py
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ovos_ray.data import masks
from ovos_ray.pixels.augment import (
    apply_to_frame,
    apply_to_label,
    draw_parameters,
)
from ovos_ray.seeding import generator
from trainables import augmentation as presets

HEIGHT, WIDTH, REPEATS = 480, 854, 60
PRESETS = {"STCN": (presets.STCN, 384), "XMem": (presets.XMEM, 384), "Cutie": (presets.CUTIE, 480)}


def milliseconds(function: Callable[[int], object]) -> float:
    times = []
    for seed in range(REPEATS):
        began = time.process_time()
        function(seed)
        times.append(time.process_time() - began)
    return 1000 * statistics.median(times)


def main() -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    coarse = generator(0, 0, "frame").integers(0, 256, (60, 107, 3), dtype=np.uint8)
    frame = cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC).astype(np.uint8)
    label = (frame[..., 0] > 160).astype(np.uint8)
    _, encoded = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, 92])
    jpeg = encoded.tobytes()
    print(f"JPEG of {len(jpeg) / 1000:.0f} kB: decoded in {milliseconds(lambda _: masks.decode_image(jpeg)):.1f} ms\n")
    print("| augmentation | crop | frame, ms | label, ms |\n|---|---|---|---|")
    for name, (config, size) in PRESETS.items():
        parameters = [draw_parameters(seed, config, size, HEIGHT, WIDTH, 8) for seed in range(REPEATS)]
        of_frame = milliseconds(lambda seed, p=parameters: apply_to_frame(frame, p[seed], seed % 8))  # type: ignore[misc]
        of_label = milliseconds(lambda seed, p=parameters: apply_to_label(label, p[seed], seed % 8))  # type: ignore[misc]
        print(f"| {name} | {size} | {of_frame:.1f} | {of_label:.1f} |")


if __name__ == "__main__":
    main()
