"""Draws docs/images/method.svg: `python docs/figures.py demo/runs/demo/stcn-tiny-2-step-seed-0`.

The run is one of `make demo`, with the shards that it was trained on; frames and masks are what its network computes.
"""

from __future__ import annotations

import io
import itertools
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.patches import FancyArrowPatch
from matplotlib.pyplot import figure

from ovos_ray.evaluate.infer.overlay import tile
from ovos_ray.methods import propagate
from ovos_ray.methods.losses import one_hot
from ovos_ray.networks import build, load_weights
from ovos_ray.run.here import local_stream
from ovos_ray.train.run_folder import RunFolder

GREY, LABEL, LOSS = "#7f8794", "#2e9e5b", "#d9534f"  # read well on white and on black
SIDE, GAP, ROW = 1.0, 0.28, 1.62


def masks_of(logits: list[torch.Tensor]) -> list[np.ndarray]:
    """(1, 1+N, H, W) logits to (H, W) ids."""
    return [one[0].argmax(0).to(torch.uint8).numpy() for one in logits]


def compute(run: Path, clip: int) -> tuple[np.ndarray, dict[str, dict[int, np.ndarray]]]:
    """Returns a clip's frames and, for each walk, the masks by frame."""
    folder = RunFolder.at(str(run.parent), run.name)
    config = folder.config()
    network = build(config.network.name)
    load_weights(network, run / "network.safetensors", strict=True)
    batch = next(local_stream(config).batches())
    frames, label = batch["frames"][clip : clip + 1], batch["label"][clip : clip + 1]
    masks = one_hot(label, 1 + int(batch["num_objects"][clip]))[:, 1:].float()
    last = frames.shape[1] - 1
    with torch.no_grad():
        forward = propagate(network, frames / 255, masks, range(last + 1))
        reference = forward[-1].softmax(1)[:, 1:]
        walks = {"T-step": list(range(last, -1, -1)), "2-step": [last, 2, 0]}
        back = {name: propagate(network, frames / 255, reference, order) for name, order in walks.items()}
    there = {0: label[0].numpy(), **dict(enumerate(masks_of(forward), start=1))}
    shown = {"forward": there}
    for name, order in walks.items():
        shown[name] = {last: there[last], **dict(zip(order[1:], masks_of(back[name]), strict=True))}
    return frames[0].permute(0, 2, 3, 1).numpy(), shown


def arrow(axes: Any, start: tuple[float, float], end: tuple[float, float], colour: str, **style: Any) -> None:
    """Draws an arrow from point to point."""
    axes.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=9, color=colour, lw=1.2, **style))


def draw(frames: np.ndarray, walks: dict[str, dict[int, np.ndarray]]) -> str:
    """Returns the figure as SVG: there, and back in two ways."""
    mpl.rcParams |= {"svg.fonttype": "none", "font.family": "sans-serif", "font.size": 8, "svg.hashsalt": "method"}
    number = len(frames)
    sheet = figure(figsize=(7.4, 5.2))
    axes = sheet.add_axes((0, 0, 1, 1))
    axes.set_xlim(-1.15, number * (SIDE + GAP))
    axes.set_ylim(-2 * ROW - 0.35, SIDE + 0.5)
    axes.set_axis_off()
    x = [column * (SIDE + GAP) for column in range(number)]
    words = {
        "forward": "forward, without gradient and without a loss: the label of frame 0 is carried to the last frame T",
        "T-step": "T-step backward, with gradient and fresh memory: only the mask of T has crossed over",
        "2-step": "2-step backward: from T by one frame drawn between to 0; the others are skipped",
    }
    for row, (name, masks) in enumerate(walks.items()):
        y = -row * ROW
        axes.text(0, y + SIDE + 0.12, words[name], color=GREY, fontsize=8.5)
        for column, frame in enumerate(frames):
            extent = (x[column], x[column] + SIDE, y, y + SIDE)
            if column in masks:
                axes.imshow(tile(frame, masks[column], 110), extent=extent, zorder=2)
            given = column == 0 and name == "forward"
            colour = LABEL if given else GREY
            box = {"fill": False, "ec": colour, "lw": 2.2 if given else 0.8, "ls": "-" if column in masks else ":"}
            axes.add_patch(mpl.patches.Rectangle((x[column], y), SIDE, SIDE, zorder=3, **box))
        order = sorted(masks, reverse=name != "forward")
        for one, next_one in itertools.pairwise(order):
            right = next_one > one
            start, end = x[one] + (SIDE if right else 0), x[next_one] + (0 if right else SIDE)
            arrow(axes, (start, y + SIDE / 2), (end, y + SIDE / 2), GREY, zorder=4)
        if name != "forward":
            side = number * (SIDE + GAP) - GAP
            arrow(axes, (side, SIDE / 2), (side, y + SIDE / 2), GREY, connectionstyle=f"arc3,rad=-{0.3 / row}")
            arrow(axes, (-0.04, y + SIDE / 2), (-0.04, SIDE / 2), LOSS, connectionstyle=f"arc3,rad=-{0.5 / row}")
    axes.text(-1.1, -0.35, "loss", color=LOSS, fontsize=10)
    axes.text(-0.08, SIDE - 0.08, "label", color=LABEL, ha="right", fontsize=9)
    for column in range(number):
        name = "T" if column == number - 1 else str(column)
        axes.text(x[column] + SIDE / 2, -2 * ROW - 0.2, f"frame {name}", color=GREY, ha="center")
    axes.set_aspect("equal")
    written = io.StringIO()
    sheet.savefig(written, format="svg", transparent=True, metadata={"Date": None})
    return "\n".join(line.rstrip() for line in written.getvalue().splitlines()) + "\n"


if __name__ == "__main__":
    run, clip = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0
    target = Path(__file__).parent / "images" / "method.svg"
    target.write_text(draw(*compute(run, clip)), encoding="utf-8")
    print(target, f"{target.stat().st_size / 1024:.0f} KiB")
