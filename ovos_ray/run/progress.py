"""What a run says about itself while it goes on: one record per logging interval."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the board's process has no use for torch
    import torch
    from rich.console import Console

__all__ = ["IntervalMeter", "ProgressBoard", "format_progress", "print_record"]

Record = dict[str, Any]


@dataclass
class IntervalMeter:
    """Averages the scalars of a logging interval without waiting for the device at every step.

    `batch_size` is the global one, `steps` are those of the whole run.
    """

    batch_size: int
    steps: int
    _sums: dict[str, Any] = field(default_factory=lambda: defaultdict(float))
    _counts: Counter[str] = field(default_factory=Counter)
    _count: int = 0
    _waited_s: float = 0.0
    _since: float = field(default_factory=time.perf_counter)

    def add(self, scalars: Mapping[str, float | torch.Tensor], waited_s: float) -> None:
        """Adds one step's scalars (device tensors stay there) and the seconds it waited for data."""
        for name, value in scalars.items():
            self._sums[name] += value if isinstance(value, (int, float)) else value.detach()
            self._counts[name] += 1
        self._count += 1
        self._waited_s += waited_s

    def flush(self, step: int) -> Record:
        """Returns the interval's means as `train/…` metrics, and starts the next interval.

        Each is the mean over the steps that have it: steps of another kind call theirs otherwise.
        `train/data_wait` is the share of wall time spent waiting for data, in [0, 1]; `eta_s` is in seconds.
        """
        means = {f"train/{name}": float(total) / self._counts[name] for name, total in self._sums.items()}
        # Reading the sums waits for the device, so that the time below is that of finished work.
        elapsed = time.perf_counter() - self._since
        record = {
            **means,
            "train/clips_per_s": self._count * self.batch_size / elapsed,
            "train/data_wait": self._waited_s / elapsed,
        }
        record["eta_s"] = elapsed / self._count * (self.steps - step)
        self._sums.clear()
        self._counts.clear()
        self._count, self._waited_s, self._since = 0, 0.0, time.perf_counter()
        return record

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leaves what is done meanwhile (a validation, a picture, no checkpoint) out of the speed."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self._since += time.perf_counter() - began


class ProgressBoard:
    """Collects the records of all runs of a driver; one small actor, so that it works on any cluster."""

    def __init__(self) -> None:
        self._records: list[Record] = []
        self._first = 0  # number of the first record kept

    def post(self, record: Record) -> None:
        """Adds a record: `run`, `step`, `steps` and either metrics or an `event`."""
        self._records.append(record)

    def since(self, start: int) -> list[Record]:
        """Returns the records from number `start` on, and forgets those before: a study of weeks posts millions."""
        del self._records[: max(0, start - self._first)]
        self._first = max(self._first, start)
        return self._records[:]


def format_progress(record: Mapping[str, Any]) -> str:
    """Returns one line for a terminal or a log."""
    head = f"step {record['step']:>6}/{record['steps']}"
    if "event" in record:
        return f"{head}  {record['event']}"
    parts = [
        *(
            f"{kind}{name} {record[key]:{digits}}"
            for kind in ("", "static ")
            for name, digits in (("loss", ".4f"), ("IoU", ".3f"))
            if (key := f"train/{kind.replace(' ', '_')}{name.lower()}") in record
        ),
        f"{record['train/clips_per_s']:.1f} clips/s",
        f"data wait {100 * record['train/data_wait']:.0f} %",
        f"ETA {_duration(record['eta_s'])}",
        f"{record['train/gpu_memory_gib']:.1f} GiB" if "train/gpu_memory_gib" in record else "",
    ]
    return "  ".join([head, *(part for part in parts if part)])


def print_record(console: Console, record: Mapping[str, Any], *, show_run: bool) -> None:
    """Prints one line of progress, begun by the name of the run where there are several."""
    prefix = f"{record['run']:<28} " if show_run else ""
    console.print(prefix + format_progress(record), markup=False, highlight=False, soft_wrap=True)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
