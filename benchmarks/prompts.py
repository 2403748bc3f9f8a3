"""How good a mask becomes of a box and clicks: J on the first frames of a dataset.

    python benchmarks/prompts.py --root ../shared/davis2016-train

The box is that of the true mask. A click is made where a person would make it: in the middle of the largest region that
is wrong; up to five. `--frame suggested` takes the frame that `ovos-ray label` suggests instead of the first.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from ovos_ray.data.folders.open import open_dataset
from ovos_ray.data.masks import boxes
from ovos_ray.errors import DataError
from ovos_ray.label.prompts import Click, mask_from_box
from ovos_ray.label.suggest import look_at, suggested_frame

NUM_CLICKS = 5

Bools = npt.NDArray[np.bool_]


def similarity(mask: Bools, truth: Bools) -> float:
    return np.count_nonzero(mask & truth) / np.count_nonzero(mask | truth)


def next_click(mask: Bools, truth: Bools) -> Click | None:
    """Returns the pixel farthest from the edge of the largest region that is wrong; None where nothing is."""
    wrong = [
        (np.ascontiguousarray(region), positive) for region, positive in ((truth & ~mask, True), (mask & ~truth, False))
    ]
    found: list[tuple[int, Bools, bool]] = []
    for region, positive in wrong:
        count, labels, stats, _ = cv2.connectedComponentsWithStats(region.astype(np.uint8))
        if count > 1:
            largest = 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
            found.append((int(stats[largest, cv2.CC_STAT_AREA]), labels == largest, positive))
    if not found:
        return None
    _, region, positive = max(found, key=lambda one: one[0])
    depth = cv2.distanceTransform(np.pad(region.astype(np.uint8), 1), cv2.DIST_L2, 5)[1:-1, 1:-1]
    y, x = np.unravel_index(int(depth.argmax()), depth.shape)
    return Click(int(x), int(y), positive)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--split", default="train")
    parser.add_argument("--frame", choices=["first", "suggested"], default="first")
    options = parser.parse_args()
    rows, seconds = [], []
    for video in open_dataset(options.root).videos(options.split):
        t = suggested_frame([look_at(image) for image in video.images()]) if options.frame == "suggested" else 0
        image, truth = next(video.images([t])), video.mask(t) > 0
        if not truth.any():
            continue
        (where,) = boxes(truth.astype(np.uint8))
        clicks: list[Click] = []
        scores: list[float] = []
        for _ in range(NUM_CLICKS + 1):
            began = time.process_time()
            try:
                mask = mask_from_box(image, (where.x0, where.y0, where.x1, where.y1), clicks)
            except DataError:
                mask = np.zeros(truth.shape, bool)
            seconds.append(time.process_time() - began)
            scores.append(100 * similarity(mask, truth))
            click = next_click(mask, truth)
            clicks += [] if click is None else [click]
        filled = 100 * where.area / ((where.x1 - where.x0) * (where.y1 - where.y0))
        rows.append([filled, *scores])
        print(f"{video.name:20} {filled:4.0f} % of its box |", *(f"{score:5.1f}" for score in scores), flush=True)
    table = np.array(rows)
    print(f"{len(rows)} frames; J of the box alone, and with 1 to {NUM_CLICKS} clicks")
    for name, values in (("mean", table.mean(0)), ("median", np.median(table, 0))):
        print(f"{name:6} the box itself {values[0]:.1f} |", *(f"{value:5.1f}" for value in values[1:]))
    print(f"{(table[:, 1] > 75).sum()} of {len(rows)} above 75 by the box alone, {(table[:, 1] < 50).sum()} below 50")
    print(f"{np.median(seconds):.2f} s of processor time each (median; at most {max(seconds):.2f})")


if __name__ == "__main__":
    main()
