"""One-shot training of video object segmentation networks, orchestrated on Ray."""

import sys

__version__ = "0.1.0"

if sys.platform == "win32":
    raise ImportError(
        "ovos_ray needs Linux or macOS: it locks and syncs files as POSIX does, and this is Windows. "
        "What to do: install it in WSL 2 (wsl --install)."
    )
