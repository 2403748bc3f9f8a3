"""The sweep's own run carries the best network, and only that one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow.pyfunc
import pytest
import torch
from safetensors.torch import save
from tracked import the_run

from ovos_ray import networks
from ovos_ray.config import ExperimentConfig, override
from ovos_ray.study.best import log_best_network
from ovos_ray.study.expand import expand
from ovos_ray.study.space import SearchSpace, Trial
from ovos_ray.track.sink import Sink
from ovos_ray.train.run_folder import RunFolder

pytestmark = pytest.mark.usefixtures("impatient")


def finish(trial: Trial, seed: int, jf: float) -> dict[str, Any]:
    network = networks.build("stcn-tiny", seed=seed)
    RunFolder.of(trial.config).storage.write(save(dict(network.state_dict())), "network.safetensors")
    return {"scores": {"jf": jf}}


def test_best_network_is_logged_once_and_again_when_another_is_better(store: str, client: Any, tmp_path: Path) -> None:
    base = override(ExperimentConfig(), {"network.name": "stcn-tiny", "storage": str(tmp_path / "runs")})
    trials, _ = expand(SearchSpace(name="best", trainable="none", seeds=(0, 1, 2)), base)
    results: dict[str, Any] = {}

    def finish_sweep() -> str | None:
        with Sink.open(store, "best", "sweep", name="sweep", spool=tmp_path / "spool") as parent:
            return log_best_network(parent, trials, results)

    assert finish_sweep() is None, "nothing was scored"
    results[trials[0].name] = finish(trials[0], seed=5, jf=50.0)
    results[trials[1].name] = finish(trials[1], seed=6, jf=40.0)
    assert finish_sweep() == trials[0].name
    sent = next(tmp_path.glob("spool/*/records.jsonl"))
    before = sent.read_text().count('"kind": "model"')
    assert before == 1
    assert finish_sweep() == trials[0].name
    assert sent.read_text().count('"kind": "model"') == before, "the same network is not sent again"

    results[trials[2].name] = finish(trials[2], seed=7, jf=60.0)
    assert finish_sweep() == trials[2].name
    run = the_run(client, "best", "sweep")
    assert run.data.tags["ovos.best_trial"] == trials[2].name
    mlflow.set_tracking_uri(store)
    kept = mlflow.pyfunc.load_model(f"runs:/{run.info.run_id}/model")._model_impl.network.state_dict()
    for seed, same in ((7, True), (5, False)):
        wanted = networks.build("stcn-tiny", seed=seed).state_dict()
        assert all(torch.equal(kept[name], tensor) for name, tensor in wanted.items()) is same


def test_a_study_that_selects_on_a_split_of_its_own_never_chooses_by_what_it_reports(
    store: str, tmp_path: Path
) -> None:
    base = override(ExperimentConfig(), {"network.name": "stcn-tiny", "storage": str(tmp_path / "runs")})
    trials, _ = expand(SearchSpace(name="best", trainable="none", seeds=(0, 1, 2)), base)
    selected = (60.0, 70.0, 80.0)
    results: dict[str, Any] = {
        trial.name: {**finish(trial, seed, jf=90.0 - 10 * seed), "validation": {"jf": selected[seed]}}
        for seed, trial in enumerate(trials)
    }
    results[trials[2].name]["stopped"] = True
    with Sink.open(store, "best", "sweep", name="sweep", spool=tmp_path / "spool") as parent:
        assert log_best_network(parent, trials, results, "val/jf") == trials[1].name
        assert log_best_network(parent, trials, results, "final/jf") == trials[0].name
