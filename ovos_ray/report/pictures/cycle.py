"""One training clip there and back, as a film strip: the label, what the network carries forward, what comes back.

Needs what a run leaves beside its predictions (its weights) and the shards it was trained on; where either is on
another machine there is no strip.
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ovos_ray.config import ExperimentConfig, override
from ovos_ray.errors import OvosError
from ovos_ray.report.numbers.comparison import Row
from ovos_ray.report.pictures.pictures import Gallery, Strip, still, tile
from ovos_ray.report.read import Run
from ovos_ray.seeding import generator

__all__ = ["cycle_gallery"]

_log = logging.getLogger(__name__)
_PARTS = ("data.", "method.", "network.", "train.steps", "seed")
_TILE_WIDTH = 180
_WORDS = (
    "What training sees: the label is carried forward without gradient; from the last mask alone the network walks "
    "back, and the reconstructed first mask is compared with the label. Grey frames are skipped on the way back."
)
_EMPTY_WORDS = (
    "What training sees: from an empty mask at the last frame the network walks back, and what it finds in the first "
    "frame is compared with the label. Grey frames are skipped."
)


def cycle_gallery(row: Row) -> Gallery | None:
    """Propagates the last clip of a row's training once more with its final weights, forward and backward.

    Args:
        row: A configuration trained with the one-shot method.

    Returns:
        Two strips, the forward one and, beneath it, the backward one with gaps at the frames it skips; with an empty
        reference nothing is carried forward, and the first has the label alone. None where weights or shards are not
        at hand.
    """
    for run in row.finished:
        folder = Path(run.tags.get("ovos.predictions", "")).parent
        if run.param("method.name") == "one_shot" and (folder / "network.safetensors").is_file():
            try:
                return _cycle(run, folder)
            except (OvosError, OSError) as error:
                _log.warning("no forward-backward strip of %s: %s", row.label, error)
    return None


def _cycle(run: Run, folder: Path) -> Gallery:
    import torch

    from ovos_ray.data.clips.decode import ClipDecoder, stack
    from ovos_ray.data.clips.plan import Plan
    from ovos_ray.data.shards.index import ShardIndex
    from ovos_ray.methods.batch import ClipBatch
    from ovos_ray.methods.one_shot import backward_order
    from ovos_ray.methods.propagation import propagate
    from ovos_ray.train.load_network import load_network

    params = {key: run.param(key) or "null" for key in run.params if key.startswith(_PARTS)}
    config = override(ExperimentConfig(), {key: text for key, text in params.items() if not key[-1].isdigit()})
    indices = [ShardIndex.load(shards) for shards in config.data.shards]
    position = config.train.steps * config.data.batch_size - 1
    planned = Plan(indices, config.data, seed=config.seed, steps=config.train.steps).clip(position)
    sample = ClipDecoder(config.data, all_labels=False)(planned)
    columns = stack([sample])
    batch = {key: torch.as_tensor(columns[key]) for key in ("frames", "num_objects", "weight", "position")}
    batch["label"] = torch.as_tensor(columns["labels"])[:, 0]
    network = load_network(folder, config.network.name)
    clip = ClipBatch.of(batch, network, None, None)
    empty = config.method.reference == "empty"
    if empty:
        clip = clip.with_one_object(config.method.empty_objects)
    last = clip.num_frames - 1
    order = backward_order(config.method.backward, last + 1, generator(config.seed, position, "cycle"))
    label = clip.label[0].numpy()
    there = [label, *(np.zeros_like(label) for _ in range(last))]
    reference = torch.zeros_like(clip.masks)
    with torch.no_grad():
        if not empty:
            forward = propagate(network, clip.frames, clip.masks, range(last + 1), selector=clip.selector)
            there[1:] = [_ids(logits) for logits in forward]
            reference = forward[-1].softmax(1)[:, 1:]
        backward = propagate(network, clip.frames, reference, order, selector=clip.selector)

    frames = list(sample.frames.transpose(0, 2, 3, 1))
    back = {t: _ids(logits) for t, logits in zip(order[1:], backward, strict=True)}
    back[last] = there[-1]
    union = int(np.count_nonzero((back[0] > 0) | (there[0] > 0)))
    iou = 100 * int(np.count_nonzero((back[0] == there[0]) & (there[0] > 0))) / max(1, union)
    forward_strip = [tile(frame, mask, _TILE_WIDTH) for frame, mask in zip(frames, there, strict=True)]
    blank = np.full_like(frames[0], 128)
    backward_strip = [
        tile(frames[t] if t in back else blank, back.get(t, np.zeros_like(there[0])), _TILE_WIDTH)
        for t in range(last + 1)
    ]
    words = f"backward, right to left ({config.method.backward}); reconstructed label: IoU {iou:.0f} %"
    first = "the label of the first frame" if empty else "forward, left to right, from the label in the first frame"
    strips = (Strip(first, "", still(forward_strip)), Strip(words, "", still(backward_strip)))
    return Gallery(planned.video, f"with the weights of {run.name}", strips, _EMPTY_WORDS if empty else _WORDS)


def _ids(logits: object) -> npt.NDArray[np.uint8]:
    """(1, 1+N, H, W) logits to (H, W) object ids."""
    import torch

    assert isinstance(logits, torch.Tensor)
    ids: npt.NDArray[np.uint8] = logits[0].argmax(0).to(torch.uint8).numpy()
    return ids
