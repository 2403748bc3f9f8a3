"""The convolutions that a roll-out is made of, in each layout and precision: what is left to gain.

    python benchmarks/convolutions.py

Shapes are those of the published networks at 384 x 384 with 2 objects. Printed are the best times without gradient
and the floating-point operations per second they amount to. `by rows` is what `PointwiseConv2d` does on one thread.
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Callable

import torch
import torch.nn.functional as F
from common import clock_of, name_of
from torch import Tensor

from ovos_ray.networks.convolutions import PointwiseConv2d

# What, input, output channels, kernel.
SHAPES = [
    ("decoder, stride 4", (2, 256, 96, 96), 256, 3),
    ("decoder, stride 8", (2, 512, 48, 48), 256, 3),
    ("fusion, stride 16", (2, 512, 24, 24), 512, 3),
    ("image share of a fusion", (1, 1024, 24, 24), 512, 3),
    ("ResNet-50, stride 16", (5, 256, 24, 24), 1024, 1),
    ("ResNet-50, stride 4", (5, 256, 96, 96), 64, 1),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=8)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    print(f"{name_of(device)}, {arguments.threads} thread(s), ", end="")
    print(f"torch {torch.__version__}, Python {platform.python_version()}; ms (GFLOP/s)\n")
    columns = ["convolution", "input", "contiguous", "channels last", "by rows", "channels last, bfloat16"]
    print("| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|")
    for name, shape, out, kernel in SHAPES:
        cells = measure(shape, out, kernel, arguments, device)
        print(f"| {name}, {kernel}x{kernel} | {'x'.join(map(str, shape))} | {' | '.join(cells)} |", flush=True)


@torch.no_grad()
def measure(
    shape: tuple[int, ...], out: int, kernel: int, arguments: argparse.Namespace, device: torch.device
) -> list[str]:
    """Returns one table cell a variant; the repetitions of the variants are interleaved."""
    x = torch.randn(shape, device=device)
    conv = torch.nn.Conv2d(shape[1], out, kernel, padding=kernel // 2, device=device)
    last, lower = x.to(memory_format=torch.channels_last), x.to(torch.bfloat16, memory_format=torch.channels_last)
    weight, bias = conv.weight.to(memory_format=torch.channels_last), torch.zeros(out, device=device)
    variants: dict[str, Callable[[], Tensor]] = {
        "contiguous": lambda: conv(x),
        "last": lambda: F.conv2d(last, weight, bias, padding=kernel // 2),
        "lower": lambda: F.conv2d(lower, weight.bfloat16(), bias.bfloat16(), padding=kernel // 2),
    }
    if kernel == 1:
        pointwise = PointwiseConv2d(shape[1], out).to(device).to(memory_format=torch.channels_last)
        variants["rows"] = lambda: pointwise(last)
    clock, best = clock_of(device, arguments.threads), dict.fromkeys(variants, float("inf"))
    for _ in range(arguments.repeats):
        for name, run in variants.items():
            began = clock()
            run()
            best[name] = min(best[name], clock() - began)
    operations = 2 * x.numel() * out * kernel**2
    return [
        f"{1e3 * best[name]:.1f} ({operations / best[name] / 1e9:.0f})" if name in best else ""
        for name in ("contiguous", "last", "rows", "lower")
    ]


if __name__ == "__main__":
    main()
