"""What lies behind an error that Ray raised, and whether starting again can mend it."""

from __future__ import annotations

from collections.abc import Iterator

from ray.exceptions import NodeDiedError, OutOfMemoryError, RayActorError, RayError, WorkerCrashedError

from ovos_ray.errors import OvosError, StorageError
from ovos_ray.on_ray.private import inner_errors
from ovos_ray.run.request import RunRequest
from ovos_ray.run.resume import marked_step

__all__ = ["lasting_cause", "own_cause", "post_restart", "unwrapped", "was_killed"]

# Starting again mends lost processes, lost connections and a storage that was out of reach (torch.distributed raises
# RuntimeErrors); these it does not.
_LASTING = (TypeError, ValueError, LookupError, AttributeError, AssertionError, ImportError, NotImplementedError)


def own_cause(error: BaseException | None) -> OvosError | None:
    """Returns the project's own error at the root of what Ray raised, or None."""
    own = [inner for inner in _within(error) if isinstance(inner, OvosError)]
    # Ray's wrapper of one is one, too, by the name of `RayTaskError(DataError)`.
    return next((inner for inner in own if not isinstance(inner, RayError)), own[0] if own else None)


def lasting_cause(error: BaseException) -> BaseException | None:
    """Returns what stays wrong however often a run is started: a wrong configuration, a bad file, a defect; or None."""
    if (cause := own_cause(error)) is not None:
        return None if isinstance(cause, StorageError) else cause
    inner = unwrapped(error)
    return inner if isinstance(inner, _LASTING) else None


def unwrapped(error: BaseException) -> BaseException:
    """Returns what a process raised: Ray wraps it in an error of its own, or of the same kind."""
    return next(inner_errors(error), error)


def was_killed(error: BaseException) -> bool:
    """Whether a process was lost, and not ended by an error of its own."""
    kinds = RayActorError | WorkerCrashedError | OutOfMemoryError | NodeDiedError
    return any(isinstance(e, kinds) for e in _within(error))


def post_restart(request: RunRequest, rank: int, error: BaseException) -> None:
    """Tells the watcher of a run that one of its workers was lost, and from which step it goes on."""
    step = marked_step(request.config)
    what = str(error).strip().splitlines()[-1:] or [type(error).__name__]
    request.post(step, event=f"worker {rank} was lost ({what[0][:200]}); restarting from step {step}")


def _within(error: BaseException | None) -> Iterator[BaseException]:
    """Yields an error and every error that Ray or Python has wrapped in it."""
    seen: set[int] = set()
    todo = [error]
    while todo:
        current = todo.pop()
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        todo += [current.__cause__, current.__context__, *inner_errors(current)]
