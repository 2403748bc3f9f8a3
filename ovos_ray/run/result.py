"""The end of a run: the resulting weights are scored, and what came out is written down."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field

import safetensors.torch

from ovos_ray.config.digest import digest
from ovos_ray.errors import EvaluationError
from ovos_ray.evaluate.evaluation import benchmarks, evaluate_network
from ovos_ray.networks.base import VOSNetwork
from ovos_ray.networks.weight_files import DIGEST_KEY
from ovos_ray.run.labels import labels_of_run
from ovos_ray.run.request import RunRequest
from ovos_ray.run.run_log import RunLog
from ovos_ray.run.state import RunState
from ovos_ray.track.bucket import finish_and_keep
from ovos_ray.train.run_folder import RunFolder

__all__ = ["NOTES_TAG", "finish_run", "notes_text"]

NOTES_TAG = "ovos.score_notes"


@dataclass
class _Scores:
    values: dict[str, float] = field(default_factory=dict)
    tables: dict[str, str] = field(default_factory=dict)
    """By name, the CSV of each benchmark."""
    missing: dict[str, str] = field(default_factory=dict)
    """By dataset, why it could not be scored."""
    notes: dict[str, list[str]] = field(default_factory=dict)
    """By dataset, what a reader of its scores should know."""


def finish_run(
    request: RunRequest, state: RunState, log: RunLog, rank: int, world_size: int, scorers: Executor | None = None
) -> dict[str, float]:
    """Scores the last weights, or the best where those are chosen, and marks the run as finished.

    Averaged weights are scored beside them, under names that begin with `ema/`.

    Args:
        request: The run.
        state: After its last step; its network is the result afterwards.
        log: Told of it.
        rank: Which of the ranks this is; they call this together.
        world_size: How many ranks there are.
        scorers: Score videos beside the prediction; see `evaluate_network`.

    Returns:
        The final scores by name, in percent.
    """
    log.require_held(look=True)
    state.load_best()
    scores = _Scores()
    _score(state, state.network, "", scores, log, rank, world_size, scorers)
    if (averaged := state.averaged_network) is not None:
        _score(state, averaged, "ema", scores, log, rank, world_size, scorers)
    if rank == 0:
        _write(request, state, log, scores)
    return scores.values


def _score(
    state: RunState,
    network: VOSNetwork,
    name: str,
    scores: _Scores,
    log: RunLog,
    rank: int,
    world_size: int,
    scorers: Executor | None,
) -> None:
    """Scores weights on every benchmark; `name` tells them from the run's result, whose name is empty."""
    config, stop = state.config, state.config.stop_step
    prefix, begin = (f"-{name}", f"{name}/") if name else ("", "")
    for benchmark in benchmarks(config.evaluation) if stop == config.train.steps else ():
        log.say(stop, f"scoring {benchmark.split} of {benchmark.root}")
        out = RunFolder.of(config).storage / f"predictions{prefix}{benchmark.suffix}"
        try:
            table = evaluate_network(
                network,
                root=benchmark.root,
                layout=benchmark.layout,
                split=benchmark.split,
                protocol=benchmark.protocol,
                shortest_side=config.evaluation.shortest_side,
                out=out,
                rank=rank,
                world_size=world_size,
                scorers=scorers,
            )
        except EvaluationError as error:
            # What was trained is not lost for a score: YouTube-VOS keeps its annotations on a server.
            why = f"{error.message}; {error.remedy}" if error.remedy else error.message
            scores.missing[benchmark.root] = why
            log.say(stop, f"not scored, masks kept in {out.folder}: {why}")
            continue
        scores.values |= {f"{begin}{benchmark.metric(key)}": value for key, value in table.headline().items()}
        scores.tables[f"scores{prefix}{benchmark.suffix}.csv"] = table.to_csv()
        if table.notes and benchmark.root not in scores.notes:
            scores.notes[benchmark.root] = list(table.notes)
            log.say(stop, f"{benchmark.root}: {'; '.join(table.notes)}")


def _write(request: RunRequest, state: RunState, log: RunLog, scores: _Scores) -> None:
    log.require_held(look=True)
    config, folder, sink = state.config, RunFolder.of(state.config), log.sink
    weights = _content_of(state.network, config.network.name)
    files = {"network.safetensors": weights}
    if (averaged := state.averaged_network) is not None:
        files["network_ema.safetensors"] = _content_of(averaged, config.network.name)
    for name, file in files.items():
        folder.storage.write(file, name)
    for name, content in scores.tables.items():
        folder.storage.write(content.encode(), name)
        sink.log_artifact(content.encode(), name)
    if "scores.csv" in scores.tables:
        sink.set_tags({"ovos.predictions": (folder.storage / "predictions").folder})
    if scores.missing:
        sink.set_tags({"ovos.not_scored": "; ".join(scores.missing.values())[:400]})
    if scores.notes:
        sink.set_tags({NOTES_TAG: notes_text(scores.notes)})
    sink.set_tags({"ovos.rollout": state.module.rollout[:400]})
    choice = {"rule": "last", "step": config.stop_step} if state.best is None else {"rule": "best", **state.best}
    sink.set_tags({"ovos.checkpoint": f"{choice['rule']}, step {choice['step']}"})
    # A run has one final score, whatever its length; at step 0 MLflow draws it as a bar, not as a curve.
    sink.log_metrics({f"final/{name}": value for name, value in scores.values.items()}, 0)
    if request.parent_key is None:  # of a study's runs only the best is kept as a model, by the sweep
        sink.log_model(weights, network=config.network.name)
    finish_and_keep(sink, folder.storage)
    labels = labels_of_run(config)
    folder.finish(
        {
            "name": config.name,
            "digest": digest(config),
            "steps": config.stop_step,
            "checkpoint": choice,
            "seconds": state.seconds,
            "rollout": state.module.rollout,
            "scores": scores.values,
            "validation": state.validation,
            "not_scored": scores.missing,
            "score_notes": scores.notes,
            "label_percent": labels.percent,
            "labels": labels.as_dict(),
            DIGEST_KEY: {name: hashlib.sha256(file).hexdigest() for name, file in files.items()},
            "bad_samples": state.bad_samples.as_list(),
            "tracking_run": sink.run_id,
        }
    )
    if not config.train.keep_finished and config.segment is None:  # a segment's is where the next one starts
        folder.checkpoints().remove_all()
    summary = "  ".join(f"{name} {value:.1f}" for name, value in scores.values.items())
    log.say(config.stop_step, f"finished  {summary}")


def notes_text(notes: Mapping[str, Sequence[str]]) -> str:
    """Returns the notes of all datasets as a tag holds them, each of them once."""
    return "; ".join(dict.fromkeys(note for own in notes.values() for note in own))[:400]


def _content_of(network: VOSNetwork, name: str) -> bytes:
    # Safetensors holds plain layouts only; training may have laid tensors out channels last.
    tensors = {key: tensor.contiguous() for key, tensor in network.state_dict().items()}
    content: bytes = safetensors.torch.save(tensors, metadata={"network": name})
    return content
