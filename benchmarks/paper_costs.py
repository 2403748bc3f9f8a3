"""What the rows of the paper would cost, computed from measured steps: the table in docs/reproducing.md.

`python benchmarks/paper_costs.py` prints it; a test fails while the page shows another. Nothing here was run.

A step was measured once for each network (benchmarks/README.md, "The proof on a GPU"). Its time is taken to be in
proportion to clips, pixels and frames segmented, where a frame with gradient counts three times, as its backward pass
costs about twice its forward pass. Decoding, validation, checkpoints and scoring are left out.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ovos_ray.config import ExperimentConfig, override
from ovos_ray.config.recipes import make

# Seconds of a step of 4 clips of 8 frames at 384 x 384, 2-step, bfloat16, with the roll-out as a graph, on one H100.
STEP_SECONDS = {"stcn": 0.109, "xmem": 0.100}
MEASURED = override(
    ExperimentConfig(),
    {"data.batch_size": 4, "data.clip_length": 8, "data.crop_size": 384, "method.backward": "2-step"},
)
SEEDS = 3

_SCRATCH = {"method.backward": "2-step", "pretrain": None}
_ROWS = {
    "stage 0": ("static_pretraining", {}),
    "one-shot, T-step (Tables 1 and 2)": ("one_shot", {}),
    "one-shot, 2-step, no stage 0 (Tables 3 and 4)": ("one_shot", _SCRATCH),
    "fully supervised (Tables 1 and 2)": ("fully_supervised", {}),
}


def frames_segmented(config: ExperimentConfig) -> tuple[int, int]:
    """Returns how many frames of a clip are segmented without and with gradient."""
    last = config.data.clip_length - 1
    if config.method.name == "supervised":
        return 0, last
    return last, last if config.method.backward == "T-step" else int(config.method.backward.removesuffix("-step"))


def gpu_hours(network: str, config: ExperimentConfig) -> float:
    """Returns the H100-hours of all steps of a run, see the top of the file."""
    return config.train.steps * STEP_SECONDS[network] * _work(config) / _work(MEASURED) / 3600


def render() -> str:
    """Returns the table, and a line with the sum for Tables 1 and 2."""
    lines = ["| network | row | steps x clips | frames without, with gradient | GPU-hours |", "|---|---|---|---|---|"]
    total = 0.0
    for network in STEP_SECONDS:
        for row, (recipe, changes) in _ROWS.items():
            config = override(make(f"trainables.{recipe}.{network}", ExperimentConfig), changes)
            hours = gpu_hours(network, config)
            if "Tables 3" not in row:
                total += hours * (1 if row == "stage 0" else SEEDS)
            without, with_gradient = frames_segmented(config)
            size = f"{config.train.steps:,} x {config.data.batch_size}"
            name = {"stcn": "STCN", "xmem": "XMem"}[network]
            lines.append(f"| {name} | {row} | {size} | {without}, {with_gradient} | {hours:.1f} |")
    lines.append("")
    lines.append(f"Tables 1 and 2 without Cutie, {SEEDS} seeds and stage 0 once a network: {total:.0f} GPU-hours.")
    return "\n".join(lines) + "\n"


def _work(config: ExperimentConfig) -> int:
    """Work of a step, in pixels segmented."""
    without, with_gradient = frames_segmented(config)
    return config.data.batch_size * config.data.crop_size**2 * (without + 3 * with_gradient)


if __name__ == "__main__":
    sys.stdout.write(render())
