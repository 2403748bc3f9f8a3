"""A picture of the masks that runs of `one_label.py` predict halfway through each video, and the J&F of each.

    python benchmarks/one_label_masks.py RUNS/davis2016-xmem-tiny-1200-1-{supervised-warm,static-only} --out masks.webp

Masks alone: frames belong to the data set.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
from one_label import video_rows

from ovos_ray.data.masks import decode_mask

_WIDTH, _HEIGHT, _GAP, _NAMES, _LINE = 96, 54, 4, 128, 8
_GROUND, _OBJECT = np.array((60, 46, 38)), np.array((120, 220, 250))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of runs of one data set, network, length and seed")
    parser.add_argument("--out", type=Path, required=True, help="the picture")
    arguments = parser.parse_args()
    scores = {run: {name: float(jf) for name, jf, *_ in video_rows(run / "scores.csv")} for run in arguments.runs}
    videos = sorted(scores[arguments.runs[0]])
    lines = []
    for first in range(0, len(videos), _LINE):
        own = videos[first : first + _LINE]
        lines.append(np.hstack([_text("", _NAMES, 16), *(_text(name[:15], _WIDTH + _GAP, 16) for name in own)]))
        for run in arguments.runs:
            name = _text(run.name.split("-", 5)[-1], _NAMES, _HEIGHT + _GAP)
            lines.append(np.hstack([name, *(_cell(run, video, scores[run][video]) for video in own)]))
    width = max(line.shape[1] for line in lines)
    padded = [np.pad(line, ((0, 0), (0, width - line.shape[1]), (0, 0)), constant_values=255) for line in lines]
    cv2.imwrite(str(arguments.out), np.vstack(padded), [cv2.IMWRITE_WEBP_QUALITY, 80])


def _text(text: str, width: int, height: int) -> np.ndarray:
    image = np.full((height, width, 3), 255, np.uint8)
    cv2.putText(image, text, (0, height // 2 + 4), cv2.FONT_HERSHEY_SIMPLEX, 0.36, (30, 30, 30), 1, cv2.LINE_AA)
    return image


def _cell(run: Path, video: str, jf: float) -> np.ndarray:
    files = sorted((run / "predictions" / video).glob("*.png"))
    mask = (decode_mask(files[len(files) // 2]) > 0).astype(np.float32)
    mask = cv2.resize(mask, (_WIDTH, _HEIGHT), interpolation=cv2.INTER_AREA)[..., None]
    image = (_GROUND * (1 - mask) + _OBJECT * mask).astype(np.uint8)
    place = (_WIDTH - 20, _HEIGHT - 5)
    cv2.putText(image, f"{jf:.0f}", place, cv2.FONT_HERSHEY_SIMPLEX, 0.38, (255, 255, 255), 1, cv2.LINE_AA)
    return np.pad(image, ((0, _GAP), (0, _GAP), (0, 0)), constant_values=255)


if __name__ == "__main__":
    main()
