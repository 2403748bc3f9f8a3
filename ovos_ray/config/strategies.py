"""What can be said of networks and backward strategies without building any: for `ovos-ray show`, in no time."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ovos_ray.config.method_settings import MethodConfig
from ovos_ray.errors import ConfigError

__all__ = ["NETWORKS", "NetworkFacts", "canonical_strategy", "check_strategy"]


@dataclass(frozen=True)
class NetworkFacts:
    """What a configuration is checked against.

    Attributes:
        family: The class of the network.
        recurrent: Whether it has a sensory memory, which one step back leaves without gradient.
        imagenet: Whether there are ImageNet weights for its encoders.
    """

    family: str
    recurrent: bool
    imagenet: bool


NETWORKS = {
    "stcn": NetworkFacts("STCN", recurrent=False, imagenet=True),
    "stcn-tiny": NetworkFacts("STCN", recurrent=False, imagenet=False),
    "xmem": NetworkFacts("XMem", recurrent=True, imagenet=True),
    "xmem-tiny": NetworkFacts("XMem", recurrent=True, imagenet=False),
    "cutie-base": NetworkFacts("Cutie", recurrent=True, imagenet=True),
    "cutie-small": NetworkFacts("Cutie", recurrent=True, imagenet=True),
    "cutie-tiny": NetworkFacts("Cutie", recurrent=True, imagenet=False),
}
"""Of the networks that come along; others are asked themselves. A test holds it to them."""


def canonical_strategy(strategy: str, clip_length: int) -> str:
    """Returns the strategy's one name for clips of n frames: a k-step that visits every frame is the T-step.

    At n = 3 this makes `2-step` and `T-step` the same, so that a study need not run it twice.

    Raises:
        ConfigError: It is no strategy, or takes more steps than such a clip has.
    """
    match = re.fullmatch(r"(T|[1-9]\d*)-step", strategy)
    if match is None:
        raise ConfigError(
            f"method.backward = {strategy!r} is not a strategy", "choose T-step, 2-step, 1-step or k-step"
        )
    last = clip_length - 1
    num_steps = last if match[1] == "T" else int(match[1])
    if num_steps > last or last < 1:
        raise ConfigError(
            f"method.backward = {strategy!r} needs clips of {max(1, num_steps) + 1} frames, they have {clip_length}",
            "raise data.clip_length or take fewer steps",
        )
    return "T-step" if num_steps == last else strategy


def check_strategy(family: str, recurrent: bool, config: MethodConfig, clip_length: int) -> None:
    """Checks that a backward strategy can train a network on clips of n frames.

    Raises:
        ConfigError: It cannot: the order has two frames and the network is recurrent, so that the update of its
            sensory memory is never followed by a prediction and gets no gradient (section 3.4).
    """
    strategy = canonical_strategy(config.backward, clip_length)
    if recurrent and not config.allow_untrained_sensory and (strategy == "1-step" or clip_length == 2):
        raise ConfigError(
            f"method.backward = {config.backward!r} with clips of {clip_length} frames leaves the sensory update of "
            f"{family} without gradient: recurrent networks need at least 2 steps back (section 3.4)",
            "choose 2-step or T-step, or set method.allow_untrained_sensory=true to do it all the same",
        )
