"""One rank of one run: the loop around `train_step`, with checkpoints, validation and the final evaluation.

Nothing here knows Ray: where batches come from and whom to report to is handed in, so that the same loop runs in a
Ray Train worker (`loop.py`) and in a plain process (benchmarks, studies, debugging).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ovos_ray.config.digest import digest
from ovos_ray.config.overrides import to_dict
from ovos_ray.data.shards.index import ShardIndex
from ovos_ray.errors import EvaluationError
from ovos_ray.evaluate.evaluation import benchmarks, evaluate_network
from ovos_ray.run.initial import initial_network
from ovos_ray.run.labels import labels_of_run
from ovos_ray.run.out_of_memory import out_of_memory
from ovos_ray.run.pretraining import pretraining_tags
from ovos_ray.run.progress import IntervalMeter
from ovos_ray.run.request import RunRequest, spool_folder
from ovos_ray.run.resume import resume_state
from ovos_ray.run.snapshots import keep_snapshot
from ovos_ray.track.bucket import finish_and_keep
from ovos_ray.track.sink import Sink
from ovos_ray.track.system import SystemMeter
from ovos_ray.train.numerics import set_numerics
from ovos_ray.train.optimizer import build_optimizer, load_moments
from ovos_ray.train.run_folder import RunFolder
from ovos_ray.train.step import TrainingModule, train_step

__all__ = ["RunRequest", "Stream", "Worker", "spool_folder"]


class Stream(Protocol):
    """Where a rank's batches come from: `on_ray.stream.RankStream` on Ray, `data.clips.batches.LocalStream` without."""

    start_step: int
    problems: list[tuple[int, str]]

    def batches(self) -> Iterator[dict[str, Tensor]]:
        """Yields one micro-batch a step from `start_step` to the last step."""
        ...


class Worker:
    """One rank of one run."""

    def __init__(
        self,
        request: RunRequest,
        stream: Stream,
        *,
        rank: int = 0,
        world_size: int = 1,
        device: torch.device | None = None,
        report: Callable[[dict[str, float]], None] | None = None,
    ) -> None:
        self.request, self.config, self.stream = request, request.config, stream
        self.rank, self.world_size = rank, world_size
        self.device = device if device is not None else torch.device("cpu")
        self.report = report
        set_numerics(self.config.train, self.device)
        self.folder = RunFolder.of(self.config)
        self.store = self.folder.checkpoints(self.config.train.keep_checkpoints)
        self.network = initial_network(self.config).to(self.device)
        self.module = TrainingModule(self.network, self.config)
        self.optimizer = build_optimizer(self.network, self.config.optimizer, self.device)
        self.began = time.time()
        self.seconds_before = 0.0
        self.best: dict[str, float] | None = None
        self.validation: dict[str, float] = {}
        if stream.start_step:
            self._restore(stream.start_step)
        self.sink = self._open_sink()
        self.system = SystemMeter(self.device)

    def _restore(self, step: int) -> None:
        state = resume_state(self.config, step, map_location=self.device)
        self.network.load_state_dict(state["network"])
        load_moments(self.optimizer, state["optimizer"])
        self.seconds_before = state["seconds"]
        self.best = state.get("best")
        self.validation = state.get("validation", {})

    def _open_sink(self) -> Sink | None:
        if self.rank != 0:
            return None
        config, request = self.config, self.request
        sink = Sink.open(
            config.tracking_uri,
            request.experiment,
            request.run_key,
            name=config.name,
            parent_key=request.parent_key,
            tags={**request.tags, **pretraining_tags(config)},
            spool=spool_folder(config),
        )
        if self.stream.start_step == config.start_step:
            sink.log_config(config)
            indices = [ShardIndex.load(folder) for folder in config.data.shards]
            for folder, index in zip(config.data.shards, indices, strict=True):
                sink.log_dataset(index.dataset, index.digest, source=folder, profile=index.budget.as_dict())
            labels = labels_of_run(config)
            sink.set_tags(
                {
                    "ovos.dataset_digest": ",".join(index.digest for index in indices),
                    "ovos.label_percent": f"{labels.percent:.2f}",
                    **{f"ovos.labels.{name}": number for name, number in labels.as_dict().items()},
                    "ovos.checkpoints": (self.folder.storage / "checkpoints").folder,
                }
            )
        return sink

    def run(self) -> None:
        """Trains to the last step, evaluates (but a segment only where its run ends), and marks the run as finished.

        Raises:
            ResourceError: Memory ran out; names the settings to lower.
            OvosError: Data could not be read, or the loss stayed non-finite.
        """
        try:
            self._run()
        except torch.OutOfMemoryError as error:
            raise out_of_memory(self.config, str(error)) from error
        except RuntimeError as error:
            if "allocate memory" not in str(error) and "not enough memory" not in str(error):
                raise
            raise out_of_memory(self.config, str(error)) from error

    def _run(self) -> None:
        config = self.config
        meter = IntervalMeter(config.data.batch_size, config.stop_step)
        if self.rank == 0:
            self.request.post(self.stream.start_step, event=self._greeting())
        module: nn.Module = self.module
        if self.world_size > 1:
            ids = [self.device.index] if self.device.type == "cuda" else None
            module = DistributedDataParallel(self.module, device_ids=ids, find_unused_parameters=self.module.has_unused)
        if self.stream.start_step == 0:
            self._snapshot(0)
        for step, batch, waited_s in self._timed_batches():
            scalars = train_step(module, batch, self.optimizer, config, step)
            meter.add(scalars, waited_s)
            self._after_step(step + 1, meter)
        self._finish()

    def _timed_batches(self) -> Iterator[tuple[int, dict[str, Tensor], float]]:
        batches = self.stream.batches()
        for step in range(self.stream.start_step, self.config.stop_step):
            asked = time.perf_counter()
            batch = next(batches)
            waited_s = time.perf_counter() - asked
            yield step, {k: v.to(self.device, non_blocking=True) for k, v in batch.items()}, waited_s

    def _after_step(self, done: int, meter: IntervalMeter) -> None:
        config = self.config
        last = done == config.stop_step
        if done % config.train.log_every == 0 or last:
            record = meter.flush(done)
            if self.device.type == "cuda":
                record["train/gpu_memory_gib"] = torch.cuda.max_memory_allocated(self.device) / 2**30
            if self.stream.problems:
                record["train/bad_samples"] = float(len(self.stream.problems))
            if self.sink is not None:
                metrics = {k: v for k, v in record.items() if k.startswith("train/")}
                self.sink.log_metrics(metrics | self.system.read(), done)
                self.request.post(done, **record)
        self._snapshot(done)
        every = config.validation.every
        validates = config.validation.root is not None and ((every and done % every == 0) or last)
        scores = self._validate(done) if validates else {}
        # The checkpoint follows, so that it knows the best step so far: resumed from it, nothing is validated twice.
        chosen = self.best is not None and self.best["step"] == done
        if done % config.train.checkpoint_every == 0 or last or chosen:
            self._checkpoint(done, must_succeed=last or chosen)
        if scores:
            self._report(done, scores)
        meter.pause()

    def _checkpoint(self, done: int, *, must_succeed: bool) -> None:
        if self.rank != 0:
            return
        state = {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": done,
            "seed": self.config.seed,
            "seconds": self._seconds(),
            "best": self.best,
            "validation": self.validation,
            "network_name": self.config.network.name,
            "config": to_dict(self.config),
            "digest": digest(self.config),
        }
        try:
            self.store.save(done, state, keep_step=None if self.best is None else int(self.best["step"]))
        except OSError as error:
            if must_succeed:
                raise
            self.request.post(done, event=f"checkpoint not written ({error}); the next interval tries again")

    def _snapshot(self, done: int) -> None:
        every = self.config.train.snapshot_every
        if self.rank != 0 or not every or (done % every and done != self.config.stop_step):
            return
        folder = self.folder.storage / "snapshots"
        try:
            strips = keep_snapshot(self.network, self.config, done, folder)
        except OSError as error:
            self.request.post(done, event=f"snapshot not written ({error})")
            return
        if self.sink is not None:
            self.sink.set_tags({"ovos.snapshots": folder.folder})
            for video, strip in strips.items():
                self.sink.log_artifact(strip, f"figures/snapshots/{video}/step-{done:08d}.jpg")

    def _validate(self, done: int) -> dict[str, float]:
        """Scores the validation split; every rank gets the same scores, and keeps the same step as the best."""
        validation = self.config.validation
        table = evaluate_network(
            self.network,
            root=str(validation.root),
            layout=validation.layout,
            split=validation.split,
            num_videos=validation.num_videos,
            rank=self.rank,
            world_size=self.world_size,
        )
        self.validation = table.headline()
        scores = {f"val/{name}": value for name, value in self.validation.items()}
        if validation.select_best and (self.best is None or scores["val/jf"] > self.best["val/jf"]):
            self.best = {"step": done, "val/jf": scores["val/jf"]}
        if self.sink is not None:
            self.sink.log_metrics(scores, done)
            self.request.post(done, event="  ".join(f"{k} {v:.1f}" for k, v in scores.items()))
        return scores

    def _report(self, done: int, scores: Mapping[str, float]) -> None:
        if self.report is not None:
            self.report({"step": float(done), **scores})

    def _finish(self) -> None:
        config = self.config
        scores: dict[str, float] = {}
        csv: dict[str, str] = {}
        not_scored: dict[str, str] = {}
        stop = config.stop_step
        if self.best is not None and self.best["step"] != stop:
            state = self.store.load(int(self.best["step"]), map_location=self.device)
            self.network.load_state_dict(state["network"])
        for benchmark in benchmarks(config.evaluation) if stop == config.train.steps else ():
            if self.rank == 0:
                self.request.post(stop, event=f"scoring {benchmark.split} of {benchmark.root}")
            out = self.folder.storage / f"predictions{benchmark.suffix}"
            try:
                table = evaluate_network(
                    self.network,
                    root=benchmark.root,
                    layout=benchmark.layout,
                    split=benchmark.split,
                    protocol=benchmark.protocol,
                    shortest_side=config.evaluation.shortest_side,
                    out=out,
                    rank=self.rank,
                    world_size=self.world_size,
                )
            except EvaluationError as error:
                # What was trained is not lost for a score: YouTube-VOS keeps its annotations on a server.
                not_scored[benchmark.root] = error.message
                self.request.post(stop, event=f"not scored, masks kept in {out.folder}: {error.message}")
                continue
            scores |= {benchmark.metric(name): value for name, value in table.headline().items()}
            csv[f"scores{benchmark.suffix}.csv"] = table.to_csv()
        if self.rank == 0:
            self._write_result(scores, csv, not_scored)
        self._report(stop, {f"final/{name}": value for name, value in scores.items()})

    def _write_result(self, scores: dict[str, float], csv: dict[str, str], not_scored: dict[str, str]) -> None:
        config, folder = self.config, self.folder.storage
        # Safetensors holds plain layouts only; training may have laid tensors out channels last.
        state = {name: tensor.contiguous() for name, tensor in self.network.state_dict().items()}
        weights = safetensors.torch.save(state, metadata={"network": config.network.name})
        folder.write(weights, "network.safetensors")
        labels = labels_of_run(config)
        choice = {"rule": "last", "step": config.stop_step} if self.best is None else {"rule": "best", **self.best}
        values = {
            "name": config.name,
            "digest": digest(config),
            "steps": config.stop_step,
            "checkpoint": choice,
            "seconds": self._seconds(),
            "scores": scores,
            "validation": self.validation,
            "not_scored": not_scored,
            "label_percent": labels.percent,
            "labels": labels.as_dict(),
            "bad_samples": [list(problem) for problem in self.stream.problems],
        }
        for name, content in csv.items():
            folder.write(content.encode(), name)
        if self.sink is not None:
            for name, content in csv.items():
                self.sink.log_artifact(content.encode(), name)
            if "scores.csv" in csv:
                self.sink.set_tags({"ovos.predictions": (folder / "predictions").folder})
            if not_scored:
                self.sink.set_tags({"ovos.not_scored": "; ".join(not_scored.values())[:400]})
            self.sink.set_tags({"ovos.checkpoint": f"{choice['rule']}, step {choice['step']}"})
            # A run has one final score, whatever its length; at step 0 MLflow draws it as a bar, not as a curve.
            self.sink.log_metrics({f"final/{name}": value for name, value in scores.items()}, 0)
            if self.request.parent_key is None:  # of a study's runs only the best is kept as a model, by the sweep
                self.sink.log_model(weights, network=config.network.name)
            finish_and_keep(self.sink, folder)
            values["tracking_run"] = self.sink.run_id
        self.folder.finish(values)
        summary = "  ".join(f"{name} {value:.1f}" for name, value in scores.items())
        self.request.post(config.stop_step, event=f"finished  {summary}")

    def _seconds(self) -> float:
        return self.seconds_before + time.time() - self.began

    def _greeting(self) -> str:
        number = sum(p.numel() for p in self.network.parameters() if p.requires_grad)
        start = f"resuming at step {self.stream.start_step}" if self.stream.start_step else "starting"
        return (
            f"{start}: {self.config.network.name}, {number:,} parameters, {self.world_size} worker(s) on {self.device}"
        )
