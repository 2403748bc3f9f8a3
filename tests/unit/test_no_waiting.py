"""A step hands its work to the device and goes on: it reads nothing back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from batches import make_batch
from torch.utils._python_dispatch import TorchDispatchMode

from ovos_ray.config import ExperimentConfig, override
from ovos_ray.networks import build
from ovos_ray.train.optimizer import build_optimizer
from ovos_ray.train.step import TrainingModule, train_step

CPU = torch.device("cpu")
_READS = ("item", "tolist", "numpy", "cpu", "nonzero", "__bool__", "__int__", "__float__", "__index__", "__len__")
_OPERATORS = {"_local_scalar_dense", "nonzero", "equal", "is_nonzero", "masked_select", "_unique2", "unique_dim"}


class WaitedError(AssertionError):
    pass


class _NoReadingOperators(TorchDispatchMode):
    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.overloadpacket.__name__
        masks = name in ("index", "index_put", "index_put_") and any(
            x is not None and x.dtype in (torch.bool, torch.uint8) for x in args[1]
        )
        if name in _OPERATORS or masks:
            raise WaitedError(name)
        return function(*args, **(kwargs or {}))


@contextmanager
def no_reading(monkeypatch: pytest.MonkeyPatch, allowed: list[torch.Tensor]) -> Iterator[None]:
    """Raises where a tensor is read, as a GPU would have to be waited for; allowed are what lies on the host anyway."""

    def guarded(name: str) -> Any:
        real = getattr(torch.Tensor, name)

        def method(self: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            if not any(self is tensor for tensor in allowed):
                raise WaitedError(name)
            return real(self, *args, **kwargs)

        return method

    take = torch.Tensor.__getitem__

    def taken(self: torch.Tensor, index: Any) -> Any:
        # Lists become tensors of the host, which are copied to the device with a wait.
        if any(isinstance(part, (list, np.ndarray)) for part in (index if isinstance(index, tuple) else (index,))):
            raise WaitedError("__getitem__")
        return take(self, index)

    with monkeypatch.context() as patch, _NoReadingOperators():
        patch.setattr(torch.Tensor, "__getitem__", taken)
        for name in _READS:
            if name != "__len__":
                patch.setattr(torch.Tensor, name, guarded(name))
        yield


@pytest.mark.parametrize("name", ["stcn-tiny", "xmem-tiny", "cutie-tiny"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"method.backward": "T-step", "optimizer.clip_norm": 1.0, "method.reference_mask": "hard"},
        {"method.name": "supervised"},
        {"method.reference": "empty"},
        {"method.vanished": "leave_out", "method.shared_intermediate": False, "method.rollout_memory": "all"},
        {"method.loss.cross_entropy": "points", "method.loss.num_points": 50},
        {"method.further_labels": "compare", "method.backward": "3-step", "method.shared_intermediate": False},
        {"method.loss.cross_entropy": "bootstrapped", "method.loss.warm_up_start": 0, "train.rollout": "graph"},
    ],
    ids=["default", "T-step", "supervised", "empty", "switches", "points", "further labels", "graph"],
)
def test_a_step_reads_nothing(name: str, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    plain = {"data.clip_length": 6, "data.max_objects": 3, "method.loss.cross_entropy": "plain"}
    config = override(ExperimentConfig(), plain | changes)
    network = build(name)
    module, optimizer = TrainingModule(network, config), build_optimizer(network, config.optimizer, CPU)
    for step, side in enumerate((32, 40)):  # the second is padded
        batch = make_batch(2, clip_length=6, side=side)
        host = [batch[key] for key in ("num_objects", "position", "weight")]
        with no_reading(monkeypatch, host):
            scalars = train_step(module, batch, optimizer, config, step, wait=False)
            with pytest.raises(WaitedError):
                float(scalars["loss"])
    module.skipped.read()
    assert module.skipped.in_a_row == 0


def test_the_guard_itself_sees_what_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.arange(4)
    with no_reading(monkeypatch, []):
        for read in (
            lambda: bool(x[0]),
            lambda: x.max().item(),
            lambda: x.tolist(),
            lambda: x[x > 1],
            lambda: x[[0, 2]],
            lambda: torch.nonzero(x),
            lambda: torch.equal(x, x),
            lambda: x.cpu(),
        ):
            with pytest.raises(WaitedError):
                read()
