"""Several videos predicted at a time, on Ray."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch

from ovos_ray.errors import ResourceError
from ovos_ray.evaluate.infer.inference import NetworkPredictor, Predictor
from ovos_ray.evaluate.infer.prediction import VideoReport, predict_one
from ovos_ray.evaluate.infer.video_jobs import VideoJob

__all__ = ["on_device", "predict_in_parallel"]


def on_device(predictor: Predictor) -> Predictor:
    """Moves a network to the GPU, if there is one here."""
    if isinstance(predictor, NetworkPredictor) and torch.cuda.is_available():
        return replace(predictor, network=predictor.network.cuda())
    return predictor


def predict_in_parallel(
    predictor: Predictor, jobs: Sequence[VideoJob], num_workers: int, *, verbose: bool
) -> Iterator[VideoReport]:
    """Predicts videos in worker processes, each with a CPU, and a GPU if the cluster has some.

    Args:
        predictor: On the CPU.
        jobs: The videos; their paths are absolute, and reach the same files from every worker.
        num_workers: Videos at a time.
        verbose: Whether to show Ray's log.

    Yields:
        A report for each video, in the order they are done.

    Raises:
        ResourceError: The cluster is too small for so many workers.
        DataError: A video cannot be predicted; those that are done stay.
    """
    import ray
    from ray.util import ActorPool

    from ovos_ray.on_ray.session import ray_session

    count = min(num_workers, len(jobs))
    with ray_session(verbose=verbose):
        resources = ray.cluster_resources()
        num_gpus = 1 if resources.get("GPU", 0) >= 1 else 0
        kind = "GPU" if num_gpus else "CPU"
        if resources.get(kind, 0) < count:
            raise ResourceError(
                f"--num-workers {num_workers}: needs {count} {kind}s, the cluster has {resources.get(kind, 0):g}",
                f"choose at most {int(resources.get(kind, 0))}, or a larger cluster",
            )
        stored = ray.put(predictor)
        actor = ray.remote(num_cpus=1, num_gpus=num_gpus)(_PredictionWorker)
        pool = ActorPool([actor.remote(stored) for _ in range(count)])
        yield from pool.map_unordered(lambda worker, job: worker.predict.remote(job), jobs)


class _PredictionWorker:
    """Predicts videos in a process of its own."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = on_device(predictor)

    def predict(self, job: VideoJob) -> VideoReport:
        return predict_one(self._predictor, job)
