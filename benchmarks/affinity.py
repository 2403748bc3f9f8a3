"""Time and peak memory of the affinity read at 480p: exact (the whole matrix) against lean (never all of it).

    python benchmarks/affinity.py                       # CPU
    python benchmarks/affinity.py --device cuda
    python benchmarks/affinity.py --frames 2 --repeats 1   # a quick look

Every measurement runs in a process of its own, so that peaks do not mix.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import time
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import torch
from common import name_of

from ovos_ray.networks.memory import ReadPath, read

HEIGHT, WIDTH = 480 // 16, 864 // 16  # 480 x 854 padded to multiples of 16
KEY_DIM, VALUE_DIM, OBJECTS = 64, 512, 2


def measure(options: dict[str, Any]) -> tuple[float, float, float]:
    """Returns the best wall and processor seconds of one read, and its peak memory in MiB above the inputs."""
    torch.set_num_threads(options["threads"])
    device = torch.device(options["device"])
    positions, queries = options["frames"] * HEIGHT * WIDTH, HEIGHT * WIDTH
    rng = torch.Generator(device).manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=rng, device=device)

    data = {
        "key": random(1, KEY_DIM, positions),
        "shrinkage": 1 + random(1, 1, positions).square(),
        "value": random(1, OBJECTS, VALUE_DIM, positions),
        "query": random(1, KEY_DIM, queries),
        "selection": random(1, KEY_DIM, queries).sigmoid(),
    }
    path: ReadPath = options["path"]
    with torch.no_grad():
        read(**{**data, **{name: data[name][..., :64] for name in ("key", "shrinkage", "value")}}, path=path)
        before = _peak_mib(device)
        wall, processor = [], []
        for _ in range(options["repeats"]):
            started = time.perf_counter(), time.process_time()
            read(**data, path=path)
            if device.type == "cuda":
                torch.cuda.synchronize()
            wall.append(time.perf_counter() - started[0])
            processor.append(time.process_time() - started[1])
    return min(wall), min(processor), _peak_mib(device) - before


def _peak_mib(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, nargs="+", default=[10, 50], help="memory frames")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=3, help="the best of these is shown")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()

    name = name_of(torch.device(arguments.device))
    print(f"{name}, {arguments.threads} threads, torch {torch.__version__}, {OBJECTS} objects, 480 x 854, float32")
    print("\n| memory frames | path | wall s | processor s | peak MiB above the inputs |\n|---|---|---|---|---|")
    context = multiprocessing.get_context("spawn")
    for frames in arguments.frames:
        for path in ("exact", "lean"):
            options = {**vars(arguments), "frames": frames, "path": path}
            with ProcessPoolExecutor(1, mp_context=context) as pool:
                wall, processor, mib = pool.submit(measure, options).result()
            print(f"| {frames} | {path} | {wall:.2f} | {processor:.2f} | {mib:.0f} |", flush=True)


if __name__ == "__main__":
    main()
