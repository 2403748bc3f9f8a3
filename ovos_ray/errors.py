"""The errors a user can meet. Each says what was found, and what to do about it."""

from __future__ import annotations

__all__ = [
    "CheckpointError",
    "ClusterError",
    "ConfigError",
    "DataError",
    "DivergedError",
    "EvaluationError",
    "HeldError",
    "MissingExtraError",
    "OvosError",
    "ResourceError",
    "StorageError",
    "TrackingError",
    "TrainingError",
    "WeightsError",
    "first_line",
]


def first_line(error: BaseException) -> str:
    """Returns what an error of others says in a line, or its kind where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


class OvosError(Exception):
    """Base of every error raised on purpose.

    Args:
        message: What was found and, where it helps, what was expected. Names the file or key.
        remedy: What the user can do next; printed on a line of its own.
    """

    def __init__(self, message: str, remedy: str | None = None) -> None:
        super().__init__(message, remedy)
        self.message = message
        self.remedy = remedy

    @property
    def listed(self) -> str:
        """Message and remedy as one entry of a list of problems."""
        return self.message if self.remedy is None else f"{self.message} ({self.remedy})"

    def __str__(self) -> str:
        return self.message if self.remedy is None else f"{self.message}\n  What to do: {self.remedy}"


class ClusterError(OvosError):
    """A Ray cluster that cannot be reached, lets nobody in, or refuses a job."""


class ConfigError(OvosError):
    """A configuration key, value or combination that cannot be used."""


class DataError(OvosError):
    """A dataset folder, frame, mask, shard or index that cannot be used."""


class WeightsError(OvosError):
    """A weights file that is damaged, unsafe, or does not fit the network."""


class CheckpointError(OvosError):
    """A training checkpoint that is incomplete, damaged, or of another experiment."""


class EvaluationError(OvosError):
    """Predictions or annotations that cannot be scored."""


class ResourceError(OvosError):
    """More CPUs, GPUs, memory or disk were asked for than there are."""


class HeldError(ResourceError):
    """Another process makes the same run, study or shards."""


class StorageError(OvosError, OSError):
    """A store that cannot be reached, or lets nobody in: that says nothing of the data in it."""


class TrackingError(OvosError):
    """An experiment that the tracking store does not hold or cannot give."""


class TrainingError(OvosError):
    """Training that cannot go on."""


class DivergedError(TrainingError):
    """A loss or gradient that stays non-finite."""


class MissingExtraError(OvosError):
    """An optional dependency is needed and not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package {package!r}, which is not installed",
            f"pip install 'ovos-ray[{extra}]'",
        )
        self._arguments = (package, extra, purpose)

    def __reduce__(self) -> tuple[type, tuple[str, str, str]]:
        # Errors cross process borders; the default would call the constructor with (message, remedy).
        return type(self), self._arguments
