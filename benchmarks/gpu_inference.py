"""Part (d) of `gpu_proof.py`: frames per second of inference, beside rf-cutie where it is installed."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import inference
from gpu_runs import make_data

from ovos_ray.data.folders.open import open_dataset

__all__ = ["measure_inference"]


def measure_inference(args: argparse.Namespace, save: Callable[[str, Any], None]) -> None:
    """Measures each network in a process of its own, with both implementations of Cutie in turns."""
    dataset, _ = make_data(args)
    name = open_dataset(dataset).video_names("val")[0]
    frames, mask = dataset / "JPEGImages/480p" / name, dataset / "Annotations/480p" / name / "00000.png"
    options = argparse.Namespace(
        frames=frames, mask=mask, device=args.device, threads=1, count=args.frames_timed,
        warm_up=2 if args.tiny else 20,
    )  # fmt: skip
    for name in args.inference:
        try:
            save(name, inference.alone(inference.measure_speed, name, options))
        except (Exception, SystemExit) as error:
            save(name, {"failed": f"{type(error).__name__}: {error}"})
