"""What a command takes: its time, its processors' seconds, and the most memory that it and all it started hold at once.

    python benchmarks/watched.py make test

Memory is the proportional set size: a page that several processes share, such as PyTorch's code, is counted once. Of
processes that go on by themselves when their parent has ended, as Ray's do, nothing is lost as long as they were seen
once. Linux only.
"""

from __future__ import annotations

import subprocess
import sys
import time

import psutil

_EVERY_S = 2.0


class Family:
    """A process and everything that came of it."""

    def __init__(self, process: psutil.Process) -> None:
        self._known = {process.pid: process}
        self._seconds: dict[tuple[int, float], float] = {}
        self.peak, self.peak_processes = 0, 0

    def look(self) -> None:
        """Finds new members, and adds up what all of them take."""
        for process in list(self._known.values()):
            try:
                self._known.update({child.pid: child for child in process.children(recursive=True)})
            except psutil.Error:
                continue
        held = 0
        for process in list(self._known.values()):
            try:
                held += process.memory_full_info().pss
                times = process.cpu_times()
                self._seconds[process.pid, process.create_time()] = times.user + times.system
            except psutil.Error:
                del self._known[process.pid]
        if held > self.peak:
            self.peak, self.peak_processes = held, len(self._known)

    @property
    def seconds(self) -> float:
        """Of processors, as far as it was seen: the last second of each process is not."""
        return sum(self._seconds.values())


def main(command: list[str]) -> int:
    """Runs a command and prints what it took; returns its exit status."""
    began = time.monotonic()
    process = subprocess.Popen(command)
    family = Family(psutil.Process(process.pid))
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
