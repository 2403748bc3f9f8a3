"""Networks with reproducible weights on a reproducible clip, and what they compute there."""

from __future__ import annotations

import zlib

import numpy as np
import torch
import torch.nn.functional as F

from ovos_ray.methods.propagation import propagate
from ovos_ray.networks import VOSNetwork, build

HEIGHT, WIDTH, FRAMES, OBJECTS = 64, 80, 4, 2
ORDERS = {"forward": (0, 1, 2, 3), "1-step": (3, 0), "2-step": (3, 1, 0), "T-step": (3, 2, 1, 0)}


def seeded_network(name: str) -> VOSNetwork:
    """Builds a network whose every tensor depends on its key and shape alone."""
    network = build(name)
    state = {}
    for key, tensor in network.state_dict().items():
        rng = np.random.default_rng(zlib.crc32(key.encode()))
        if key.endswith(("num_batches_tracked", "inv_freq")):
            values = tensor.numpy()
        elif key.endswith("running_var"):
            values = rng.uniform(0.9, 1.1, tensor.shape)
        elif tensor.dim() == 1 and key.endswith("weight"):
            values = rng.uniform(0.5, 0.7, tensor.shape)
        elif tensor.dim() == 1:
            values = 0.02 * rng.standard_normal(tensor.shape, dtype=np.float32)
        else:
            values = rng.standard_normal(tensor.shape, dtype=np.float32) / np.sqrt(tensor[0].numel())
        state[key] = torch.from_numpy(np.asarray(values)).to(tensor.dtype)
    network.load_state_dict(state)
    return network.train()


def seeded_clip() -> tuple[torch.Tensor, torch.Tensor]:
    """Returns smooth noise as frames (1, T, 3, H, W) and two discs that move, as labels (1, T, H, W)."""
    rng = np.random.default_rng(7)
    coarse = torch.from_numpy(rng.random((FRAMES, 3, 8, 10), dtype=np.float32))
    frames = F.interpolate(coarse, size=(HEIGHT, WIDTH), mode="bilinear")[None]
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    labels = np.zeros((1, FRAMES, HEIGHT, WIDTH), dtype=np.int64)
    for t in range(FRAMES):
        labels[0, t][(y - 30) ** 2 + (x - 20 - 3 * t) ** 2 < 150] = 1
        labels[0, t][(y - 40) ** 2 + (x - 60 + 4 * t) ** 2 < 200] = 2
    return frames, torch.from_numpy(labels)


def one_hot(label: torch.Tensor, objects: int = OBJECTS) -> torch.Tensor:
    """Labels (B, H, W) to masks (B, N, H, W)."""
    return F.one_hot(label.long(), objects + 1)[..., 1:].permute(0, 3, 1, 2).float()


def measure(name: str) -> dict[str, dict[str, float]]:
    """Returns, for every order, the cross-entropy at its last frame and the gradient norms of a few parameters.

    Backward orders start from the labels of the last frame. Only the first frame makes a deep update.
    """
    network = seeded_network(name)
    frames, labels = seeded_clip()
    chosen = [key for key, _ in network.named_parameters() if key.endswith(_PARAMETERS)]
    result = {}
    for strategy, order in ORDERS.items():
        network.zero_grad(set_to_none=True)
        masks = one_hot(labels[:, order[0]])
        logits = propagate(network, frames, masks, order, deep_update=lambda position: position == 0)[-1]
        loss = F.cross_entropy(logits, labels[:, order[-1]])
        loss.backward()
        parameters = dict(network.named_parameters())
        norms = {key: 0.0 if (grad := parameters[key].grad) is None else float(grad.norm()) for key in chosen}
        result[strategy] = {"cross_entropy": float(loss.detach()), **norms}
    return result


_PARAMETERS = (
    "_encoder.conv1.weight",
    "key_proj.key_proj.weight",
    "hidden_update.transform.weight",
    "sensory_update.transform.weight",
    "hidden_reinforce.transform.weight",
    "summary_to_query_init.weight",
    "decoder.pred.weight",
)
