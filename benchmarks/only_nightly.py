"""Lists the lines that only the nightly tests run: `only_nightly.py coverage.json coverage-nightly.json`."""

from __future__ import annotations

import json
import sys
from pathlib import Path


def executed(path: str) -> dict[str, set[int]]:
    """The lines that were run, by file."""
    files = json.loads(Path(path).read_text())["files"]
    return {name: set(found["executed_lines"]) for name, found in files.items()}


def main(every: str, nightly: str) -> None:
    """Prints a line a file, and how many lines there are in all."""
    known, total = executed(every), 0
    for name, lines in sorted(executed(nightly).items()):
        if alone := sorted(lines - known.get(name, set())):
            total += len(alone)
            print(f"{name}: {', '.join(map(str, alone))}")
    print(f"{total} lines are run by the nightly alone")


if __name__ == "__main__":
    main(*sys.argv[1:])
