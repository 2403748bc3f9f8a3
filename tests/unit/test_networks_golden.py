"""The full-size networks are the published ones: same keys, same shapes, same numbers."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from seeded_network import measure

from ovos_ray.methods.propagation import encode_frames, propagate
from ovos_ray.networks import build

PUBLISHED = ("stcn", "xmem", "cutie-base", "cutie-small")
ORDERS = {"1-step": (3, 0), "2-step": (3, 2, 0), "T-step": (3, 2, 1, 0)}
OWN_VALUES = Path(__file__).parent / "golden" / "networks.json"


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "overrides", "listing"),
    [*((name, {}, name) for name in PUBLISHED), ("xmem", {"hidden_dim": 0}, "xmem-no-sensory")],
)
def test_state_dict_has_exactly_the_published_keys_and_shapes(
    name: str, overrides: dict[str, int], listing: str, shared_root: Path
) -> None:
    lines = (shared_root / "facts" / f"{listing}.keys.tsv").read_text().splitlines()[1:]
    published = {key: (shape, dtype) for key, shape, dtype in (line.split("\t") for line in lines)}
    own = {
        key: ("x".join(map(str, value.shape)) or "scalar", str(value.dtype).removeprefix("torch."))
        for key, value in build(name, **overrides).state_dict().items()
    }
    assert own == published


@pytest.mark.shared
@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_numbers_of_the_published_implementation(name: str, shared_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    golden = np.load(shared_root / "golden" / f"{name}.npz")
    network = build(name).train()
    network.load_state_dict(_published_rule(shared_root)(network.state_dict()))
    monkeypatch.setattr(network, "num_reference_frames", None)
    frames = torch.from_numpy(golden["frames"]).permute(0, 3, 1, 2)[None].float() / 255
    labels = torch.from_numpy(golden["labels"]).long()
    masks = torch.stack([labels[0] == 1, labels[0] == 2])[None].float()

    with torch.no_grad():
        features = encode_frames(network, frames, range(4))
        first = features[0]
        for key, value in (("key", first.key), ("shrinkage", first.shrinkage), ("selection", first.selection)):
            if f"enc/{key}_t0" in golden:
                _assert_close(value, golden[f"enc/{key}_t0"], 1e-4)
        memory, state = network.memorise(first, network.start(masks), deep_update=True)
        half = 2e-3  # these are stored in float16
        _assert_close(memory.value, golden["mem0/value"], half)
        if state.sensory is not None:
            _assert_close(state.sensory, golden["mem0/hidden"], half)
        if memory.summary is not None:
            _assert_close(memory.summary, golden["mem0/obj_summary"], half)
        forward = propagate(
            network, frames, masks, range(4), features=features, deep_update=lambda position: position <= 1
        )
    for t, logits in enumerate(forward, start=1):
        _assert_close(logits, golden[f"forward/logits_{t}"], 2e-4)

    start = torch.from_numpy(golden["forward/prob_T"]).float().reshape(masks.shape)
    # Their gradients are compared where a step computes them: test_one_shot_golden.py.
    for strategy, order in ORDERS.items():
        with torch.no_grad():
            logits = propagate(network, frames, start, order, deep_update=lambda position: position == 0)[-1]
        _assert_close(logits, golden[f"backward/{strategy}/logits_0"], 2e-4)
        loss = F.cross_entropy(logits, labels[:1])
        assert loss.item() == pytest.approx(float(golden[f"backward/{strategy}/ce"]), rel=1e-4)


@pytest.mark.parametrize(
    "name",
    [*(pytest.param(name, marks=pytest.mark.slow) for name in PUBLISHED), "stcn-tiny", "xmem-tiny", "cutie-tiny"],
)
def test_numbers_stored_with_the_project(name: str) -> None:
    stored = json.loads(OWN_VALUES.read_text())["values"][name]
    measured = measure(name)
    assert measured.keys() == stored.keys()
    for strategy, values in stored.items():
        assert measured[strategy].keys() == values.keys()
        for key, value in values.items():
            tolerance = 1e-4 if key == "cross_entropy" else 2e-3
            assert measured[strategy][key] == pytest.approx(value, rel=tolerance, abs=0.0), f"{strategy} {key}"


def test_stored_numbers_show_that_one_step_leaves_the_sensory_update_untrained() -> None:
    """Section 3.4 of the paper: recurrent networks need two steps back at least."""
    values = json.loads(OWN_VALUES.read_text())["values"]
    for name, key in (
        ("xmem", "decoder.hidden_update.transform.weight"),
        ("cutie-base", "mask_decoder.sensory_update.transform.weight"),
    ):
        assert values[name]["1-step"][key] == 0.0
        assert values[name]["2-step"][key] > 0.0


def _published_rule(shared_root: Path):
    spec = importlib.util.spec_from_file_location("published_rule", shared_root / "golden" / "seeded_weights.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.seeded_state_dict


def _assert_close(own: torch.Tensor, published: np.ndarray, relative: float) -> None:
    own = own.detach().numpy().reshape(published.shape)
    published = published.astype(np.float32)
    assert np.abs(own - published).max() <= relative * np.abs(published).max()
