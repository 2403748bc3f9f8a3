"""One optimiser step: deterministic, guarded, published optimisers, and the same inside DDP."""

from __future__ import annotations

import copy
import functools
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed
from batches import make_batch
from torch import Tensor, nn

from ovos_ray.config import ExperimentConfig, OptimizerConfig, TrainConfig, override
from ovos_ray.errors import TrainingError
from ovos_ray.networks import build
from ovos_ray.networks.cutie import Cutie
from ovos_ray.run.progress import IntervalMeter
from ovos_ray.train.optimizer import build_optimizer, set_learning_rate, update
from ovos_ray.train.step import TrainingModule, distributed, numerics_of, train_step

CPU = torch.device("cpu")


def configure(**changes: Any) -> ExperimentConfig:
    settings = {
        "data.clip_length": 5,
        "data.max_objects": 2,
        "method.backward": "2-step",
        "method.loss.cross_entropy": "plain",
        "optimizer.learning_rate": 1e-3,
        "optimizer.warm_up_steps": 0,
    }
    return override(ExperimentConfig(), settings | {key.replace("__", "."): v for key, v in changes.items()})


def train(
    config: ExperimentConfig, num_steps: int = 3, name: str = "xmem-tiny"
) -> tuple[TrainingModule, list[dict[str, Any]]]:
    network = build(name)
    module = TrainingModule(network, config)
    optimizer = build_optimizer(network, config.optimizer, CPU)
    return module, [train_step(module, make_batch(2, seed=s), optimizer, config, s) for s in range(num_steps)]


def weights(module: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in module.parameters()])


def test_two_runs_are_equal_bit_for_bit_and_another_seed_is_not() -> None:
    first, second, other = (train(configure(seed=seed))[0] for seed in (0, 0, 1))
    assert torch.equal(weights(first), weights(second))
    assert not torch.equal(weights(first), weights(other))


def test_draws_belong_to_the_step_and_not_to_the_run_before_it() -> None:
    config, batch = configure(), make_batch(2)
    module = TrainingModule(build("xmem-tiny"), config)
    third = module(batch, 2)[0]
    module(batch, 0)
    assert torch.equal(module(batch, 2)[0], third)
    assert len({module(batch, step)[0].item() for step in range(8)}) > 1


@pytest.mark.parametrize("method", ["one_shot", "supervised"])
def test_training_lowers_the_loss_and_logs_scalars(method: str) -> None:
    config = configure(method__name=method)
    network = build("stcn-tiny")
    module = TrainingModule(network, config)
    optimizer = build_optimizer(network, config.optimizer, CPU)
    batch = make_batch(2)
    records = [train_step(module, batch, optimizer, config, step) for step in range(12)]
    assert float(records[-1]["loss"]) < 0.9 * float(records[0]["loss"])
    assert {"loss", "iou", "gradient_norm", "learning_rate", "skipped_steps"} <= set(records[0])
    assert records[0]["learning_rate"] == 1e-3
    assert records[0]["skipped_steps"] == 0


def test_samples_without_an_object_are_counted_and_change_nothing() -> None:
    config, meter = configure(), IntervalMeter(batch_size=2, steps=2)
    network = build("stcn-tiny")
    module, optimizer = TrainingModule(network, config), build_optimizer(network, config.optimizer, CPU)
    empty = make_batch(2)
    empty["weight"], empty["num_objects"] = torch.tensor([1.0, 0.0]), torch.tensor([1, 0])
    empty["labels"][1], empty["label"][1] = 0, 0
    loss = module(empty, 0)[0]
    other = {**empty, "frames": empty["frames"].clone()}
    other["frames"][1] = 255 - other["frames"][1]
    assert torch.equal(module(other, 0)[0], loss), "what an empty sample shows does not matter"
    for step, batch in enumerate((empty, make_batch(2))):
        meter.add(train_step(module, batch, optimizer, config, step), 0.0)
    assert meter.flush(2)["train/empty_samples"] == 0.25  # of four samples one


@pytest.mark.parametrize("change", ["train__channels_last", "method__share_features"])
def test_speed_settings_do_not_change_results(change: str) -> None:
    left, right = (train(configure(**{change: value}), 1)[1][0] for value in (True, False))
    for key in ("loss", "gradient_norm"):
        assert float(left[key]) == pytest.approx(float(right[key]), rel=1e-4)


def test_learning_rate_follows_the_schedule_and_the_groups() -> None:
    config = configure(optimizer__decay_steps=(1,), optimizer__backbone_multiplier=0.1, optimizer__learning_rate=1e-2)
    network = build("xmem-tiny")
    module, optimizer = TrainingModule(network, config), build_optimizer(network, config.optimizer, CPU)
    rates = []
    for step in range(2):
        train_step(module, make_batch(2), optimizer, config, step)
        rates.append(sorted(group["lr"] for group in optimizer.param_groups))
    assert rates[0] == pytest.approx([1e-3, 1e-2])
    assert rates[1] == pytest.approx([1e-4, 1e-3])
    backbone = next(group for group in optimizer.param_groups if group["multiplier"] == 0.1)
    assert len(backbone["params"]) == sum(
        1 for name, _ in network.named_parameters() if name.startswith("key_encoder.")
    )


class Named(nn.Module):
    """Parameters with the names that decide Cutie's groups."""

    backbone_prefixes, embedding_suffixes = Cutie.backbone_prefixes, Cutie.embedding_suffixes

    def __init__(self) -> None:
        super().__init__()
        self.pixel_encoder = nn.Linear(2, 2)
        self.mask_encoder = nn.Linear(2, 2)
        self.query_init = nn.Embedding(2, 2)
        self.summary_to_query_emb = nn.Linear(2, 2)
        self.frozen = nn.Linear(2, 2).requires_grad_(False)


def test_cutie_has_three_groups() -> None:
    config = OptimizerConfig(weight_decay=0.001, backbone_multiplier=0.1, decay_embeddings=False, learning_rate=1e-4)
    network: Any = Named()
    optimizer = build_optimizer(network, config, CPU)
    groups = {(g["multiplier"], g["weight_decay"]): {id(p) for p in g["params"]} for g in optimizer.param_groups}
    assert groups == {
        (0.1, 0.001): {id(p) for p in network.pixel_encoder.parameters()},
        (1.0, 0.0): {id(network.query_init.weight), id(network.summary_to_query_emb.weight)},
        (1.0, 0.001): {id(p) for p in network.mask_encoder.parameters()} | {id(network.summary_to_query_emb.bias)},
    }


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_optimisers_are_the_published_ones(name: str) -> None:
    mine, reference = nn.Linear(3, 3), nn.Linear(3, 3)
    network: Any = mine
    network.backbone_prefixes, network.embedding_suffixes = (), ()
    reference.load_state_dict(mine.state_dict())
    config = OptimizerConfig(name=name, learning_rate=1e-2, weight_decay=0.1, epsilon=1e-6)  # type: ignore[arg-type]
    optimizer = build_optimizer(network, config, CPU)
    kind: Any = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[name]
    plain = kind(reference.parameters(), lr=1e-2, weight_decay=0.1, eps=1e-6, fused=False, foreach=False)
    for _ in range(3):
        for layer, chosen in ((mine, optimizer), (reference, plain)):
            chosen.zero_grad()
            layer(torch.ones(2, 3)).square().sum().backward()
            set_learning_rate(optimizer, 1e-2)
            chosen.step()
    assert torch.allclose(weights(mine), weights(reference), rtol=1e-6, atol=1e-7)


def test_gradients_are_clipped_to_the_norm() -> None:
    module, records = train(configure(optimizer__clip_norm=0.5), 1)
    gradients = torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])
    assert float(records[0]["gradient_norm"]) > 0.5
    assert gradients.norm().item() == pytest.approx(0.5, rel=1e-4)
    module, records = train(configure(), 1)
    gradients = torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])
    assert gradients.norm().item() == pytest.approx(float(records[0]["gradient_norm"]), rel=1e-4)


def test_a_step_that_is_not_finite_changes_nothing_and_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    config = configure(train__max_nonfinite_steps=2)
    network = build("xmem-tiny")
    module, optimizer = TrainingModule(network, config), build_optimizer(network, config.optimizer, CPU)
    batch = make_batch(2)
    train_step(module, batch, optimizer, config, 0)
    good, state = copy.deepcopy(network.state_dict()), copy.deepcopy(optimizer.state_dict()["state"])
    poisoned = batch | {"weight": torch.tensor([1.0, float("inf")])}
    with caplog.at_level(logging.WARNING):
        record = train_step(module, poisoned, optimizer, config, 1)
    assert record["skipped_steps"] == 1
    assert "[100, 101]" in caplog.text
    assert all(torch.equal(value, good[key]) for key, value in network.state_dict().items())
    after = optimizer.state_dict()["state"]
    assert all(torch.equal(after[i][key], state[i][key]) for i in state for key in state[i])
    assert train_step(module, batch, optimizer, config, 2)["skipped_steps"] == 0
    train_step(module, poisoned, optimizer, config, 3)
    with pytest.raises(TrainingError, match=r"2 steps in a row.*\[100, 101\]"):
        train_step(module, poisoned, optimizer, config, 4)


@pytest.mark.parametrize(
    ("name", "changes", "expected"),
    [
        ("xmem-tiny", {}, False),
        ("stcn-tiny", {"method__backward": "1-step"}, False),
        ("xmem-tiny", {"method__backward": "1-step", "method__allow_untrained_sensory": True}, True),
        ("xmem-tiny", {"method__name": "supervised"}, False),
        ("cutie-tiny", {"method__loss__cross_entropy": "points", "method__loss__num_points": 50}, False),
        ("cutie-tiny", {}, True),
        ("xmem-tiny", {"method__reference": "empty"}, False),
    ],
)
def test_unused_parameters_are_known_before_training(name: str, changes: dict[str, Any], expected: bool) -> None:
    module = TrainingModule(build(name), configure(**changes))
    assert module.has_unused is expected
    assert all(p.grad is None for p in module.parameters())


@pytest.fixture
def one_process(tmp_path: Path) -> Any:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("one_process")
@pytest.mark.parametrize("backward", ["1-step", "2-step"])
def test_what_is_distributed_gives_the_same_steps(backward: str) -> None:
    config = configure(method__backward=backward, method__allow_untrained_sensory=True)
    results = []
    for wrap in (False, True):
        network = build("xmem-tiny")
        training = TrainingModule(network, config)
        assert training.has_unused is (backward == "1-step")
        module = distributed(training) if wrap else training
        optimizer = build_optimizer(network, config.optimizer, CPU)
        empty = make_batch(2) | {"weight": torch.zeros(2)}
        for step, batch in enumerate((make_batch(2), empty, make_batch(2))):
            train_step(module, batch, optimizer, config, step)
        results.append(weights(network))
    assert torch.equal(*results)


def test_precision_settings() -> None:
    assert numerics_of(TrainConfig(), CPU).autocast is None
    assert numerics_of(TrainConfig(precision="bfloat16"), CPU).rollout is torch.bfloat16
    only_rollout = numerics_of(TrainConfig(rollout_precision="bfloat16", gradient_checkpointing=True), CPU)
    assert (only_rollout.autocast, only_rollout.rollout, only_rollout.recompute) == (None, torch.bfloat16, True)


@pytest.mark.slow
def test_compiled_parts_are_whole_graphs_and_soon_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._dynamo.utils import counters

    # The same capture as for code that runs fast, without the minutes of a C++ compiler.
    monkeypatch.setattr(nn.Module, "compile", functools.partialmethod(nn.Module.compile, backend="eager"))
    torch.compiler.reset()
    counters.clear()
    settings = {"method__loss__cross_entropy": "points", "method__loss__num_points": 100}
    first, _ = train(configure(train__compile=True, **settings), 2, "cutie-tiny")
    captured = counters["stats"]["unique_graphs"]
    again, _ = train(configure(**settings), 2, "cutie-tiny")
    assert torch.equal(weights(first), weights(again))
    assert not counters["graph_break"]
    assert 0 < captured < 40
    train_step(
        first, make_batch(2, seed=9), build_optimizer(first.network, first.config.optimizer, CPU), first.config, 9
    )
    assert counters["stats"]["unique_graphs"] == captured


@pytest.mark.slow
def test_compiled_parts_inside_a_graph_give_the_steps_of_eager_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nn.Module, "compile", functools.partialmethod(nn.Module.compile, backend="eager"))
    torch.compiler.reset()
    both, _ = train(configure(train__compile=True, train__rollout="graph"), 3, "stcn-tiny")
    plain, _ = train(configure(train__rollout="eager"), 3, "stcn-tiny")
    other, _ = train(configure(train__rollout="eager"), 2, "stcn-tiny")
    assert len(both.graphs) == 1
    assert torch.equal(weights(both), weights(plain))
    assert not torch.equal(weights(other), weights(plain))


def test_a_batch_without_any_object_moves_nothing() -> None:
    config = configure(optimizer__weight_decay=0.1)
    network = build("xmem-tiny")
    module, optimizer = TrainingModule(network, config), build_optimizer(network, config.optimizer, CPU)
    train_step(module, make_batch(2), optimizer, config, 0)
    before, moments = weights(module).clone(), copy.deepcopy(optimizer.state_dict()["state"])
    empty = make_batch(2) | {"weight": torch.zeros(2), "num_objects": torch.zeros(2, dtype=torch.long)}
    record = train_step(module, empty, optimizer, config, 1)
    assert torch.equal(weights(module), before), "neither momentum nor decay"
    after = optimizer.state_dict()["state"]
    assert all(torch.equal(after[i][key], moments[i][key]) for i in moments for key in moments[i])
    assert (record["empty_samples"], record["skipped_steps"]) == (1, 0)
    train_step(module, make_batch(2), optimizer, config, 2)
    assert not torch.equal(weights(module), before)


def test_skipped_steps_are_counted_when_they_are_read(caplog: pytest.LogCaptureFixture) -> None:
    config = configure(train__max_nonfinite_steps=3)
    network = build("stcn-tiny")
    module, optimizer = TrainingModule(network, config), build_optimizer(network, config.optimizer, CPU)
    batch = make_batch(2)
    poisoned = batch | {"weight": torch.tensor([1.0, float("inf")])}
    for step, given in enumerate((poisoned, poisoned, batch, poisoned)):
        train_step(module, given, optimizer, config, step, wait=False)
    assert not caplog.text
    module.skipped.read()
    assert [record.args[0] for record in caplog.records if record.args] == [0, 1, 3]  # type: ignore[index]
    assert module.skipped.in_a_row == 1
    for step in (4, 5, 6):
        train_step(module, poisoned, optimizer, config, step, wait=False)
    with pytest.raises(TrainingError, match=r"3 steps in a row, the last one step 5 "):
        module.skipped.read()


def test_the_step_of_an_optimiser_that_is_not_fused_can_be_left_out_too() -> None:
    layer = nn.Linear(2, 2)
    plain = torch.optim.AdamW(layer.parameters(), fused=False)
    layer(torch.ones(1, 2)).sum().backward()
    before = weights(layer).clone()
    update(plain, torch.tensor(False))
    assert torch.equal(weights(layer), before)
    update(plain, torch.tensor(True))
    assert not torch.equal(weights(layer), before)
