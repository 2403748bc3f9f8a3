"""Speed of the evaluation against a straightforward one, in one run, on the same files, with the same numbers.

    python benchmarks/scoring.py --masks ../shared/osvos-masks --truth ../shared/davis-mini

Two evaluations over all of `osvos-masks`: davis2016 of its single-object sequences against `davis-mini`, and, for its
multi-object sequences, every frame's mask scored against that of the frame before. The straightforward side is what the
formulas say, frame after frame and object after object on full frames: masks of a sequence in one array, boundary maps
by array comparisons, dilation by a disk with OpenCV.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import math
import os
import platform
import resource
import sys
import tempfile
import threading
import time
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from ovos_ray.evaluate.score.scoring import evaluate_folders


def straightforward(pairs: dict[str, list[tuple[Path, Path]]], merged: bool) -> dict[str, tuple[float, float]]:
    """Returns mean J and F by object, in percent."""
    results = {}
    for sequence, files in pairs.items():
        pred, gt = (np.stack([np.array(Image.open(pair[side])) for pair in files]) for side in (0, 1))
        ids = (1,) if merged else range(1, int(np.array(Image.open(first_of(files))).max()) + 1)
        for index in ids:
            p = (pred > 0) if merged else (pred == index)
            g = (gt > 0) if merged else (gt == index)
            union = (p | g).sum(axis=(1, 2))
            j = np.where(union == 0, 1.0, (p & g).sum(axis=(1, 2)) / np.maximum(union, 1))
            f = np.array([f_measure(p[t], g[t]) for t in range(len(p))])
            results[f"{sequence}_{index}"] = (100 * j.mean(), 100 * f.mean())
    return results


def first_of(files: list[tuple[Path, Path]]) -> Path:
    return min(path for path in files[0][1].parent.iterdir() if path.suffix == ".png")


def boundary(mask: np.ndarray) -> np.ndarray:
    right, below, diagonal = np.zeros_like(mask), np.zeros_like(mask), np.zeros_like(mask)
    right[:, :-1] = mask[:, 1:]
    below[:-1, :] = mask[1:, :]
    diagonal[:-1, :-1] = mask[1:, 1:]
    edges: np.ndarray = (mask ^ right) | (mask ^ below) | (mask ^ diagonal)
    edges[-1, :] = mask[-1, :] ^ right[-1, :]
    edges[:, -1] = mask[:, -1] ^ below[:, -1]
    edges[-1, -1] = False
    return edges


def f_measure(pred: np.ndarray, gt: np.ndarray) -> float:
    radius = math.ceil(0.008 * math.hypot(*gt.shape))
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    disk = (x**2 + y**2 <= radius**2).astype(np.uint8)
    p, g = boundary(pred), boundary(gt)
    near_p, near_g = (cv2.dilate(b.astype(np.uint8), disk).astype(bool) for b in (p, g))
    num_p, num_g = p.sum(), g.sum()
    if num_p == 0 or num_g == 0:
        return float(num_p == num_g)
    precision, recall = (p & near_g).sum() / num_p, (g & near_p).sum() / num_g
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


class PeakMemory:
    """Samples the resident memory of this process and all that it started."""

    def __init__(self) -> None:
        self.peak_mib = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._stop.wait(0.02):
            self.peak_mib = max(self.peak_mib, sum(map(rss_mib, family(os.getpid()))))


def processor_seconds() -> float:
    """Of this process and of its helpers, which have ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def family(root: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            children.setdefault(int(path.read_text().rsplit(")", 1)[1].split()[1]), []).append(int(path.parent.name))
    found = [root]
    for process in found:
        found += children.get(process, [])
    return found


def rss_mib(process: int) -> float:
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    return 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--masks", type=Path, default=Path("../shared/osvos-masks"))
    parser.add_argument("--truth", type=Path, default=Path("../shared/davis-mini"))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    annotations = args.truth / "Annotations/480p"
    names = sorted(path.name for path in args.masks.iterdir() if path.is_dir())
    single = [name for name in names if (annotations / name).is_dir()]
    several = [name for name in names if name not in single]
    with tempfile.TemporaryDirectory() as folder:
        shifted = Path(folder)
        for name in several:
            (shifted / name).mkdir()
            files = sorted((args.masks / name).resolve().glob("*.png"))
            for here, later in itertools.pairwise(files):
                (shifted / name / here.name).symlink_to(later)

        def ours() -> dict[str, tuple[float, float]]:
            tables = [
                evaluate_folders(args.masks, annotations, "davis2016", sequences=single),
                evaluate_folders(shifted, args.masks, "davis2017", sequences=several),
            ]
            return {f"{r.sequence}_{r.object_id}": (r.j.mean, r.f.mean) for table in tables for r in table.rows}

        def theirs() -> dict[str, tuple[float, float]]:
            def pairs(names: list[str], pred: Path, gt: Path) -> dict[str, list[tuple[Path, Path]]]:
                return {n: [(pred / n / p.name, p) for p in sorted((gt / n).glob("*.png"))[1:-1]] for n in names}

            return straightforward(pairs(single, args.masks, annotations), True) | straightforward(
                pairs(several, shifted, args.masks), False
            )

        with PeakMemory() as memory:  # not timed, because sampling costs time
            ours()
        seconds: dict[str, list[float]] = {"ovos-ray": [], "straightforward": []}
        processor: dict[str, list[float]] = {"ovos-ray": [], "straightforward": []}
        results = {}
        for _ in range(args.repeats):
            for name, evaluate in (("ovos-ray", ours), ("straightforward", theirs)):
                start, busy = time.perf_counter(), processor_seconds()
                results[name] = evaluate()
                seconds[name].append(time.perf_counter() - start)
                processor[name].append(processor_seconds() - busy)
    found, expected = results["ovos-ray"], results["straightforward"]
    assert found.keys() == expected.keys()
    difference = max(abs(a - b) for key in found for a, b in zip(found[key], expected[key], strict=True))
    ratios = {
        what: [round(b / a, 1) for a, b in zip(times["ovos-ray"], times["straightforward"], strict=True)]
        for what, times in (("wall", seconds), ("processor", processor))
    }
    report = {
        "objects": len(found),
        "largest_difference_percent": difference,
        "wall_s": {name: [round(v, 2) for v in values] for name, values in seconds.items()},
        "processor_s": {name: [round(v, 2) for v in values] for name, values in processor.items()},
        "ratios": ratios,
        "ratio_of_medians": {
            "wall": round(float(np.median(seconds["straightforward"]) / np.median(seconds["ovos-ray"])), 1),
            "processor": round(float(np.median(processor["straightforward"]) / np.median(processor["ovos-ray"])), 1),
        },
        "load_average": os.getloadavg()[0],
        "peak_rss_mib_all_processes": round(memory.peak_mib),
        "cpus": os.cpu_count(),
        "machine": platform.machine(),
        "python": sys.version.split()[0],
        "opencv": cv2.__version__,
        "numpy": np.__version__,
    }
    print(json.dumps(report, indent=2))
    if args.out:
        args.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
