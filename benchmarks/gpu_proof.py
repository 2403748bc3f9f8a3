"""What this project does on one GPU, with and without Ray, in one script for a machine that has nothing but a GPU.

    python benchmarks/gpu_proof.py --out proof                              # all of it, on a GPU; at most 10 minutes
    python benchmarks/gpu_proof.py --out proof --parts a,d                  # some of it
    python benchmarks/gpu_proof.py --out proof --device cpu --tiny          # does the script work? no figure is of use

(a) seconds of a training step of the three networks: two plain passes, kernel by kernel, with the roll-out as a graph,
    and compiled; memory, and the share of time in which the GPU computes
(b) whole runs under Ray, against the bare step: one worker; then two that share the GPU, of which one is killed
(c) a sweep of four trials, a quarter of the GPU each
(d) inference beside rf-cutie

Videos are made here, networks start from random weights, nothing is fetched. Each part runs in a process of its own
with a limit of time (together the 10 minutes), and writes what it has measured as soon as it has it, of a run what it
has said so far; `gpu_proof.json` and `gpu_proof.md` hold all parts that lie in the folder, also those of earlier calls.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

# On a bare machine everything is slow once: until XMem's first ten steps were made under Ray took 52 s on an H100, the
# same outside of Ray 64 s. So part (b), with two runs and one that begins again, needs most of five minutes.
LIMITS = {"a": 135, "b": 285, "c": 90, "d": 80}
TINY = {
    "networks": ["stcn-tiny", "xmem-tiny", "cutie-tiny"], "side": 32, "clip_length": 5, "batch_size": 2, "repeats": 2,
    "back_to_back": 2, "rounds": 1, "warm_up": 1, "steps": 12, "steps_of_two": 12, "frame": (96, 160), "num_frames": 8,
    "inference": ["cutie-small"], "frames_timed": 2,
    "network": "xmem-tiny", "crop": 32, "run_batch": 2, "share": 0.0, "trial_steps": 4, "run_clip": 4,
}  # fmt: skip
FULL = {
    "networks": ["xmem", "stcn", "cutie-base"], "side": 384, "clip_length": 8, "batch_size": 4, "repeats": 5,
    "back_to_back": 8, "rounds": 3, "warm_up": 2, "steps": 90, "steps_of_two": 60,
    "frame": (480, 854), "num_frames": 12,
    "inference": ["cutie-base", "cutie-small", "xmem", "stcn"], "frames_timed": 60,
    "network": "xmem", "crop": 384, "run_batch": 4, "share": 1.0, "trial_steps": 40, "run_clip": 8,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--scratch", type=Path, help="folder for videos, shards and runs; default: OUT/scratch")
    parser.add_argument("--parts", default="a,b,c,d")
    parser.add_argument("--limits", default="", help="seconds of some parts, such as a=120,b=200")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--compile", action="store_true", help="part a: the compiled variants too, if there is time")
    parser.add_argument("--compile-needs", type=int, default=100, help="seconds that must be left to compile a network")
    parser.add_argument("--networks", nargs="+", help="of part a")
    parser.add_argument("--part", choices=sorted(LIMITS), help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.out, args.scratch = args.out.resolve(), (args.scratch or args.out / "scratch").resolve()
    args.limits = LIMITS | {k: int(v) for k, v in (x.split("=") for x in args.limits.split(",") if x)}
    if args.part:
        run_part(args)
        return
    for part in args.parts.split(","):
        began = time.monotonic()
        code = run_apart(part, args)
        write_tables(args.out)
        print(
            f"part {part}: {'done' if code == 0 else f'ended with {code}'}, {time.monotonic() - began:.0f} s",
            flush=True,
        )
    print((args.out / "gpu_proof.md").read_text(encoding="utf-8"))


def run_apart(part: str, args: argparse.Namespace) -> int | str:
    """Runs a part in a process group of its own, and ends it when its time is over."""
    command = [sys.executable, __file__, *sys.argv[1:], "--part", part]
    args.out.mkdir(parents=True, exist_ok=True)
    with (args.out / f"{part}.log").open("w") as log:
        process = subprocess.Popen(command, start_new_session=True, stdout=log, stderr=subprocess.STDOUT)
        try:
            return process.wait(args.limits[part])
        except subprocess.TimeoutExpired:
            return f"a limit of {args.limits[part]} s"
        finally:
            for number in (signal.SIGTERM, signal.SIGKILL):
                try:
                    os.killpg(process.pid, number)
                    time.sleep(1)
                except ProcessLookupError:
                    break


def run_part(args: argparse.Namespace) -> None:
    """Measures one part in this process."""
    found: dict[str, Any] = {"machine": machine(args)}

    def save(key: str, value: Any) -> None:
        found[key] = value
        text, path = json.dumps(found, indent=1, default=str), args.out / f"{args.part}.json"
        path.with_suffix(".new").write_text(text + "\n", encoding="utf-8")
        path.with_suffix(".new").replace(path)  # whole, whenever this process is ended
        print(f"{time.monotonic() - began:6.1f} s  {key}: {str(value)[:500]}", flush=True)

    began = time.monotonic()
    sizes = TINY if args.tiny else FULL
    given = {"networks": args.networks} if args.networks else {}
    options = argparse.Namespace(**{**sizes, **given, "objects": 2, "strategy": "2-step", "began": began})
    options.device, options.scratch, options.limit = args.device, args.scratch, args.limits[args.part]
    options.compile, options.compile_needs, options.tiny = args.compile, args.compile_needs, args.tiny
    if args.part == "a":
        from gpu_steps import measure_steps

        measure_steps(options, save)
    elif args.part == "d":
        from gpu_inference import measure_inference

        measure_inference(options, save)
    else:
        from gpu_runs import measure_runs, measure_sweep

        (measure_runs if args.part == "b" else measure_sweep)(options, save)
    save("seconds", round(time.monotonic() - began, 1))


def machine(args: argparse.Namespace) -> dict[str, Any]:
    """Returns what a figure stands beside."""
    import torch
    from common import name_of

    return {
        "device": name_of(torch.device(args.device)), "torch": torch.__version__, "cuda": torch.version.cuda,
        "python": platform.python_version(), "cpus": os.cpu_count(), "tiny": args.tiny,
    }  # fmt: skip


def write_tables(out: Path) -> None:
    """Writes all parts into one file, and as Markdown."""
    from gpu_tables import markdown

    parts = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(out.glob("[a-d].json"))}
    (out / "gpu_proof.json").write_text(json.dumps(parts, indent=1) + "\n", encoding="utf-8")
    (out / "gpu_proof.md").write_text(markdown(parts), encoding="utf-8")


if __name__ == "__main__":
    main()
