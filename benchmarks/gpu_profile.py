"""What the device does in a step: its kernels by time, and how often the step waits for it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

__all__ = ["count_waits", "profile_of", "synchronisations"]

Step = Callable[[dict[str, torch.Tensor]], object]

_MOST = 20
"""Kernels that are kept, by time."""


def profile_of(step: Step, batch: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Returns the seconds that a step's kernels take one after another, and the longest: calls, seconds, and share.

    On a CPU, where it only shows that this works, operators stand for kernels.
    """
    on_gpu = batch["frames"].is_cuda
    with profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]) as profiler:
        step(batch)
        if on_gpu:
            torch.cuda.synchronize()
    attribute = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    averages = [event for event in profiler.key_averages() if not event.is_user_annotation]  # which span others
    events = [(getattr(event, attribute) / 1e6, event.count, event.key) for event in averages]
    total = sum(seconds for seconds, _, _ in events)
    longest = sorted(events, reverse=True)[:_MOST]
    kernels = [
        {"kernel": name[:200], "calls": calls, "seconds": seconds, "share": seconds / total if total else 0.0}
        for seconds, calls, name in longest
    ]
    return {"kernels s": total, "kernels": kernels}


def synchronisations(step: Step, batch: dict[str, torch.Tensor]) -> dict[str, int]:
    """Returns how often a step waits for a GPU; nothing on a CPU."""
    if not batch["frames"].is_cuda:
        return {}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            step(batch)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return {"synchronisations": count_waits(str(warning.message) for warning in caught)}


def count_waits(messages: Iterable[str]) -> int:
    """Counts the warnings of PyTorch's that say so.

    The first time in a process, one more says that the mode is a prototype that does not detect all synchronizing
    operations.
    """
    return sum("called a synchronizing" in message for message in messages)
