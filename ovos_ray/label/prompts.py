"""A mask from a box and clicks, for whoever has not drawn one.

What turns them into a mask is a prompter: any function of an image, a box and clicks. `grabcut` needs no weights, `sam`
is a network.

    mask = mask_from_box(frame, (10, 20, 200, 180), [Click(40, 60), Click(150, 90, positive=False)])
    tracker.add(mask)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from ovos_ray.arrays import UInt8Array
from ovos_ray.errors import ConfigError, DataError
from ovos_ray.label.grabcut import grabcut

__all__ = ["MOST_CLICKS", "PROMPTERS", "Box", "Click", "Prompter", "grabcut", "mask_from_box", "prompter_of"]

Box: TypeAlias = tuple[int, int, int, int]
"""x0, y0, x1, y1 in pixels: columns [x0, x1), rows [y0, y1)."""
PROMPTERS = ("grabcut", "sam")
MOST_CLICKS = 1000
"""More are refused: each is drawn, and nobody clicks so often."""


class Click(NamedTuple):
    """A pixel that belongs to the object (positive), or does not.

    Attributes:
        x: Its column.
        y: Its row.
        positive: Whether it belongs to the object.
    """

    x: int
    y: int
    positive: bool = True


class Prompter(Protocol):
    """Makes a mask of a box and clicks; the same of the same."""

    def __call__(self, image: UInt8Array, box: Box, clicks: Sequence[Click]) -> npt.NDArray[np.bool_]:
        """Returns where the object is, (H, W) bool.

        Args:
            image: (H, W, 3) uint8 RGB.
            box: Around the object; it lies in the image.
            clicks: They lie in the image, too.
        """
        ...


def prompter_of(name: str, weights: str | None = None) -> Prompter:
    """Returns the prompter of a name, on the best device there is.

    Args:
        name: `grabcut` or `sam`.
        weights: Those of `sam`: a name of the hub, or a folder; None: the published ones.

    Raises:
        ConfigError: There is none of this name, or it takes no weights.
        MissingExtraError: It needs a package that is not installed.
        WeightsError: Its weights cannot be had.
    """
    if name not in PROMPTERS:
        raise ConfigError(f"no prompter {name!r}", f"there are {', '.join(PROMPTERS)}")
    if name == "grabcut":
        if weights is not None:
            raise ConfigError(f"--prompter-weights {weights}: grabcut has none", "add --prompter sam")
        return grabcut
    from ovos_ray.evaluate.infer.tracker import best_device
    from ovos_ray.label.sam import DEFAULT_WEIGHTS, Sam

    return Sam(weights or DEFAULT_WEIGHTS, best_device())


def mask_from_box(
    image: UInt8Array,
    box: Sequence[int],
    clicks: Sequence[Click | tuple[int, int, bool]] = (),
    prompter: Prompter = grabcut,
) -> npt.NDArray[np.bool_]:
    """Returns the mask of the object in a box, (H, W) bool, as `Tracker.add` takes it.

    Args:
        image: (H, W, 3) uint8 RGB.
        box: x0, y0, x1, y1 in pixels, x1 and y1 not included, close around the object; what lies outside of the image
            is cut off.
        clicks: Pixels that belong to the object, or do not: corrections of the mask that the box alone gives.
        prompter: What makes the mask.

    Raises:
        DataError: The box holds no pixel, a click lies outside of the image, or no object was found.
    """
    height, width = image.shape[:2]
    x0, y0, x1, y1 = (int(value) for value in box)
    inside = max(0, x0), max(0, y0), min(width, x1), min(height, y1)
    if inside[0] >= inside[2] or inside[1] >= inside[3]:
        raise DataError(
            f"box {x0},{y0},{x1},{y1}: no pixel of a frame of {width} x {height} lies in it",
            "give x0,y0,x1,y1: the left upper corner, then the right lower one",
        )
    given = [Click(*click) for click in clicks[: MOST_CLICKS + 1]]
    if len(given) > MOST_CLICKS:
        raise DataError(f"{len(clicks)} clicks, at most {MOST_CLICKS} are taken", "draw the mask instead")
    for click in given:
        if not (0 <= click.x < width and 0 <= click.y < height):
            raise DataError(
                f"click {click.x},{click.y}: outside of a frame of {width} x {height}", "click in the frame"
            )
    mask = prompter(image, inside, given)
    if not mask.any():
        raise DataError(
            f"box {x0},{y0},{x1},{y1}: no object was told from its background",
            "draw the box close around it, click on the object, or draw its mask (`ovos-ray label`)",
        )
    return mask
