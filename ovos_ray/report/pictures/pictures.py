"""Pictures of masks for the page: strips of tiles and galleries of strips, encoded."""

from __future__ import annotations

import base64
import io
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from PIL import Image

from ovos_ray.errors import OvosError, first_line
from ovos_ray.evaluate.infer.overlay import grid

__all__ = ["Gallery", "Strip", "animated", "data_uri", "decode", "or_nothing", "or_why", "still"]

_log = logging.getLogger(__name__)
_Made = TypeVar("_Made")


@dataclass(frozen=True)
class Strip:
    """Some frames of one video under one mask source.

    Attributes:
        label: Whose masks.
        score: What they score, in words, or empty.
        image: WebP, frames side by side, as data URI; empty where it could not be made, and `score` says why.
        film: Animated WebP as data URI, or empty.
        run_id: The MLflow run that predicted the masks, empty for the truth.
    """

    label: str
    score: str
    image: str
    film: str = ""
    run_id: str = ""


@dataclass(frozen=True)
class Gallery:
    """One sequence under several mask sources.

    Attributes:
        sequence: Its name.
        why: Why it was chosen, such as `worst for …`.
        strips: What is compared, the truth first where it is shown; none where no picture could be made.
        words: How to read it, or why there are no pictures, or empty.
    """

    sequence: str
    why: str
    strips: tuple[Strip, ...]
    words: str = ""


def or_why(make: Callable[[], _Made], what: str, otherwise: Callable[[str], _Made]) -> _Made:
    """Returns what `make` makes; where files are gone or damaged, what `otherwise` makes of the reason.

    Such a file costs a picture, not the report.
    """
    try:
        return make()
    except Exception as error:  # of whatever reads such a file, each has its own
        why = error.message if isinstance(error, OvosError) else first_line(error)
        _log.warning("no %s: %s", what, why)
        return otherwise(why)


def or_nothing(make: Callable[[], _Made], what: str) -> _Made | None:
    """Returns what `make` makes, or None where files are gone or damaged."""
    return or_why(make, what, lambda _: None)


def still(tiles: Sequence[Image.Image]) -> str:
    """Returns tiles in a row as a data URI."""
    return data_uri(grid([tiles], "WEBP"))


def animated(images: Sequence[Image.Image], frame_ms: int) -> str:
    """Returns images one after the other, over and over, as a data URI."""
    buffer = io.BytesIO()
    options = {"save_all": True, "append_images": images[1:], "duration": frame_ms, "loop": 0}
    images[0].save(buffer, "WEBP", quality=50, method=2, **options)
    return data_uri(buffer.getvalue())


def data_uri(content: bytes) -> str:
    """Returns an encoded picture as a page holds it."""
    return "data:image/webp;base64," + base64.b64encode(content).decode()


def decode(data_uri: str) -> Image.Image:
    """Returns the picture in a data URI."""
    return Image.open(io.BytesIO(base64.b64decode(data_uri.partition(",")[2]))).convert("RGB")
