"""One-shot training of video object segmentation networks, orchestrated on Ray.

The names below are the program as Python functions (`api.py`); they are imported when they are first used, so that
`import ovos_ray` is light.
"""

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if sys.platform == "win32":
    raise ImportError(
        "ovos_ray needs Linux or macOS: it locks and syncs files as POSIX does, and this is Windows. "
        "What to do: install it in WSL 2 (wsl --install)."
    )

from ovos_ray import train as _train_room

if TYPE_CHECKING:
    from ovos_ray.api import Run, Study, load, pack, recipe, sweep
    from ovos_ray.evaluate.infer.tracker import Tracker
    from ovos_ray.label.prompts import mask_from_box

__all__ = ["Run", "Study", "Tracker", "load", "mask_from_box", "pack", "recipe", "sweep", "train"]

_PLACES = dict.fromkeys(__all__, "ovos_ray.api") | {
    "Tracker": "ovos_ray.evaluate.infer.tracker",
    "mask_from_box": "ovos_ray.label.prompts",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _TrainRoom(ModuleType):
    """`ovos_ray.train` is a room of the package, and called it is `api.train`."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return importlib.import_module("ovos_ray.api").train(*arguments, **options)


_train_room.__class__ = _TrainRoom
