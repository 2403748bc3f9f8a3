"""Which frame to label: the suggestion of `ovos-ray label` against the first and the middle frame.

    python benchmarks/suggested_frame.py --root ../shared/davis-mini --split val --baseline colour
    python benchmarks/suggested_frame.py --root ../shared/davis-mini --split val --checkpoint runs/NAME

From the mask of one frame, a video is predicted both ways at a quarter of its size; J is the mean over all other
frames, then over videos. `random` is the mean over six frames spread evenly, `best` the best of these six.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

from ovos_ray.data.folders.open import open_dataset
from ovos_ray.evaluate.infer.baselines import match_colours
from ovos_ray.evaluate.infer.inference import InferenceSettings, NetworkPredictor, Predictor
from ovos_ray.label.suggest import look_at, suggested_frame
from ovos_ray.train.load_network import load_network

NUM_SPREAD = 6


def both_ways(predictor: Predictor, frames: list[np.ndarray], mask: np.ndarray, t: int) -> list[np.ndarray]:
    before = [one.mask for one in predictor(frames[t::-1], {0: mask})][:0:-1]
    return before + [one.mask for one in predictor(frames[t:], {0: mask})]


def similarity(predicted: list[np.ndarray], truth: list[np.ndarray], skip: int) -> float:
    """Mean J over objects and all frames but one."""
    values = []
    for index in np.unique(np.stack(truth))[1:]:
        for t, (one, other) in enumerate(zip(predicted, truth, strict=True)):
            union = np.count_nonzero((one == index) | (other == index))
            if t != skip:
                values.append(np.count_nonzero((one == index) & (other == index)) / union if union else 1.0)
    return float(np.mean(values))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--split", default="val")
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--baseline", choices=["colour"])
    parser.add_argument("--shortest-side", type=int, default=120)
    options = parser.parse_args()
    predictor: Predictor = match_colours
    if options.checkpoint is not None:
        network = load_network(options.checkpoint)
        predictor = NetworkPredictor(network, InferenceSettings.of(network))
    folder = open_dataset(options.root)
    rows = []
    for video in folder.videos(options.split):
        full = list(video.images())
        height, width = full[0].shape[:2]
        scale = options.shortest_side / min(height, width)
        size = (round(width * scale), round(height * scale))
        frames = [cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in full]
        truth = [cv2.resize(video.mask(t), size, interpolation=cv2.INTER_NEAREST) for t in range(len(full))]
        suggested = suggested_frame([look_at(frame) for frame in full])
        places = [0, len(full) // 2, suggested, *(round(t) for t in np.linspace(0, len(full) - 1, NUM_SPREAD))]
        scores = {t: similarity(both_ways(predictor, frames, truth[t], t), truth, t) for t in set(places)}
        spread = [scores[t] for t in places[3:]]
        rows.append([*(scores[t] for t in places[:3]), float(np.mean(spread)), max(spread)])
        print(
            f"{video.name:22} {suggested:4}/{len(full):<4}", *(f"{100 * value:5.1f}" for value in rows[-1]), flush=True
        )
    values = 100 * np.array(rows)
    difference = values[:, 2:3] - values[:, :2]
    names = ("first", "middle", "suggested", "random", "best")
    print(*(f"{name} {mean:.1f}" for name, mean in zip(names, values.mean(0), strict=True)), sep="; ")
    error = difference.std(0, ddof=1) / np.sqrt(len(values))
    print(
        f"suggested - first: {difference.mean(0)[0]:+.1f} ± {error[0]:.1f} (standard error over {len(values)} videos)"
    )
    print(f"suggested - middle: {difference.mean(0)[1]:+.1f} ± {error[1]:.1f}")


if __name__ == "__main__":
    main()
