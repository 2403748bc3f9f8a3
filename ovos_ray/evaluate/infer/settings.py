"""How a network is run over a video."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

from ovos_ray.errors import ConfigError
from ovos_ray.networks.base import InferenceDefaults, VOSNetwork

__all__ = ["InferenceSettings", "Precision", "Reference"]

Precision: TypeAlias = Literal["float32", "float16", "bfloat16"]
Reference: TypeAlias = Literal["given", "empty"]

_UNBOUNDED_FRAMES = 100


@dataclass(frozen=True, kw_only=True)
class InferenceSettings(InferenceDefaults):
    """Test-time settings; `InferenceSettings.of(network)` gives the published ones.

    Attributes:
        shortest_side: Larger frames are scaled down to it (bilinear with antialiasing), and masks back up; 0: never.
        scales: Factors on the size frames would be predicted at; the probabilities of several are averaged.
        flip: Also run the mirrored video, and average.
        precision: Autocast of everything but keys, affinities and the sensory memory.
        reference: `given`, or `empty`: start from a mask without objects (paper section 4.4); one object, id 1.

    The rest, which is about memory, is described with `InferenceDefaults`.
    """

    shortest_side: int = 480
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    precision: Precision = "float32"
    reference: Reference = "given"

    def __post_init__(self) -> None:
        """Refuses settings that cannot work.

        Raises:
            ConfigError: A value is out of range.
        """
        least = {"memory_interval": 1, "top_k": 1, "max_frames": 2 + self.long_term, "min_frames": 1}
        least |= {"num_prototypes": 1, "shortest_side": 0}
        for name, bound in least.items():
            value = getattr(self, name)
            if value is not None and value < bound:
                raise ConfigError(f"{name}={value}: must be at least {bound}")
        if self.long_term and (self.max_frames is None or self.min_frames >= self.max_frames):
            raise ConfigError(
                f"long_term with min_frames={self.min_frames} and max_frames={self.max_frames}",
                "long-term memory takes the frames between min_frames and max_frames: make min_frames the smaller",
            )
        if self.long_term and self.max_tokens <= self.num_prototypes + self.buffer_tokens:
            raise ConfigError(
                f"max_tokens={self.max_tokens} leaves nothing beside num_prototypes={self.num_prototypes} and "
                f"buffer_tokens={self.buffer_tokens}"
            )
        if not self.scales or min(self.scales) <= 0:
            raise ConfigError(f"scales={self.scales}: at least one, all positive")
        for name, choices in (("precision", get_args(Precision)), ("reference", get_args(Reference))):
            if getattr(self, name) not in choices:
                raise ConfigError(f"{name}={getattr(self, name)}", f"choose one of {', '.join(choices)}")

    @classmethod
    def of(cls, network: VOSNetwork, **overrides: Any) -> InferenceSettings:
        """Returns the published settings of the network's family, some of them overridden.

        Where the published memory has no bound (STCN), it gets one of 100 frames, which no benchmark video reaches.

        Raises:
            ConfigError: An override is unknown or out of range.
        """
        values = dataclasses.asdict(network.inference)
        if values["max_frames"] is None:
            values["max_frames"] = _UNBOUNDED_FRAMES
        known = [field.name for field in dataclasses.fields(cls)]
        for name in overrides:
            if name not in known:
                raise ConfigError(f"no inference setting {name!r}", f"there are {', '.join(known)}")
        return cls(**values | overrides)

    def updates_sensory(self, elapsed: int, memory_frame: bool) -> bool:
        """Whether the decoder updates the sensory memory, `elapsed` frames after the last memory frame."""
        if self.exclusive_update and memory_frame:
            return False
        count = self.stagger_updates
        if count is None or count >= self.memory_interval:
            return True
        step = (self.memory_interval - 1) / (count - 1) if count > 1 else 0
        return elapsed in {round(1 + i * step) for i in range(count)}
