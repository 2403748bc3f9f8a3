"""What a command takes: its time, its processors' seconds, and the most memory that it and all it started hold at once.

    python benchmarks/watched.py make test

Memory is the proportional set size: a page that several processes share, such as PyTorch's code, is counted once. To
tell it Linux walks all of a process's memory; asked every two seconds, that took 7 % of two processors. So it is asked
where the resident sizes, which count shared pages again and again but cost nothing, say that there may be more than
ever. Of processes that go on by themselves when their parent has ended, as Ray's do, nothing is lost as long as they
were seen once. Linux only.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil

_EVERY_S = 1.0
_AT_LEAST_EVERY = 20
"""Looks between two of the exact sizes."""
_TICKS, _PAGE = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")


class Family:
    """A process and everything that came of it."""

    def __init__(self, pid: int) -> None:
        self._members = {pid}
        self._seconds: dict[tuple[int, str], float] = {}
        self._counted_again, self._looks = 0, 0
        self.peak, self.peak_processes = 0, 0

    def look(self) -> None:
        """Finds new members, and adds up what all of them take."""
        found = {int(path.name): told for path in Path("/proc").glob("[0-9]*") if (told := _stat(path))}
        self._members &= found.keys()
        while new := {pid for pid, told in found.items() if int(told[1]) in self._members} - self._members:
            self._members |= new
        for pid in self._members:
            told = found[pid]
            self._seconds[pid, told[19]] = (int(told[11]) + int(told[12])) / _TICKS
        resident = sum(int(found[pid][21]) for pid in self._members) * _PAGE
        self._looks += 1
        if resident - self._counted_again > self.peak or self._looks % _AT_LEAST_EVERY == 1:
            held = sum(map(_proportional, self._members))
            self._counted_again = resident - held
            if held > self.peak:
                self.peak, self.peak_processes = held, len(self._members)

    @property
    def seconds(self) -> float:
        """Of processors, as far as it was seen: the last second of each process is not."""
        return sum(self._seconds.values())


def _stat(path: Path) -> list[str]:
    """Returns what /proc/PID/stat says from the third field on (proc(5)), nothing where the process is gone."""
    try:
        return (path / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _proportional(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)


def main(command: list[str]) -> int:
    """Runs a command and prints what it took; returns its exit status."""
    began = time.monotonic()
    process = subprocess.Popen(command)
    family = Family(process.pid)
    while process.poll() is None:
        family.look()
        time.sleep(_EVERY_S)
    wall = time.monotonic() - began
    machine = f"{psutil.cpu_count()} processors, load {psutil.getloadavg()[1]:.1f}"
    print(f"{' '.join(command)}: {wall:.0f} s, {family.seconds:.0f} s of processors ({machine})")
    print(f"at most {family.peak / 2**30:.1f} GiB at once, in {family.peak_processes} processes")
    return process.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]) if len(sys.argv) > 1 else __doc__)
