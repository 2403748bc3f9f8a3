"""The published Cutie (rf-cutie) with reproducible weights, as an independent implementation to compare with."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ovos_ray import networks
from ovos_ray.evaluate.infer.memory_bank import MemoryBank
from ovos_ray.evaluate.infer.propagator import Propagator
from ovos_ray.evaluate.infer.settings import InferenceSettings
from ovos_ray.networks.base import State


def seeded_state(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights that depend on key and shape alone."""
    filled = {}
    for key, tensor in state.items():
        rng = np.random.default_rng(zlib.crc32(key.encode()))
        if key.endswith(("num_batches_tracked", "inv_freq")):
            values = tensor.numpy()
        elif key.endswith("running_var"):
            values = rng.uniform(0.9, 1.1, tensor.shape)
        elif tensor.dim() == 1:
            values = (
                rng.uniform(0.5, 0.7, tensor.shape) if key.endswith("weight") else rng.normal(0, 0.02, tensor.shape)
            )
        else:
            values = rng.standard_normal(tensor.shape, dtype=np.float32) / np.sqrt(tensor[0].numel())
        filled[key] = torch.from_numpy(np.asarray(values)).to(tensor.dtype)
    return filled


def pair(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> tuple[Any, Propagator]:
    """Returns the published `InferenceCore` and our `Propagator`, both of cutie-small with the same weights.

    Args:
        monkeypatch: Keeps the published constructors from downloading ImageNet weights.
        **changes: Fields of `InferenceSettings`.
    """
    pytest.importorskip("cutie", reason="needs rf-cutie[inference]")
    import cutie.model.utils.resnet as resnet
    from cutie.inference.inference_core import InferenceCore
    from cutie.model.cutie import CUTIE
    from omegaconf import OmegaConf

    monkeypatch.setattr(resnet.model_zoo, "load_url", lambda *_, **__: {})
    monkeypatch.setattr(resnet, "load_weights_add_extra_dim", lambda *_, **__: None)
    network = networks.build("cutie-small").eval()
    settings = InferenceSettings.of(network, **changes)
    folder = Path(resnet.__file__).parents[2] / "config"
    small = OmegaConf.load(folder / "model/small.yaml")
    small.pop("defaults")
    evaluation = OmegaConf.to_container(OmegaConf.load(folder / "eval_config.yaml"))
    config = OmegaConf.create({k: v for k, v in evaluation.items() if k not in ("hydra", "defaults")})
    config.update(
        model=OmegaConf.merge(OmegaConf.load(folder / "model/base.yaml"), small),
        mem_every=settings.memory_interval,
        use_long_term=settings.long_term,
        top_k=settings.top_k,
        stagger_updates=settings.stagger_updates,
        max_mem_frames=settings.max_frames,
        long_term={
            "count_usage": True,
            "max_mem_frames": settings.max_frames,
            "min_mem_frames": settings.min_frames,
            "num_prototypes": settings.num_prototypes,
            "max_num_tokens": settings.max_tokens,
            "buffer_tokens": settings.buffer_tokens,
        },
    )
    published = CUTIE(config).eval()
    state = seeded_state(published.state_dict())
    published.load_state_dict(state)
    network.load_state_dict(state)
    return InferenceCore(published, config), Propagator(network, settings)


def step(core: Any, image: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """One step of the published implementation."""
    ids = None if mask is None else [i for i in mask.unique().tolist() if i]
    with torch.inference_mode():
        return core.step(image, mask, ids)  # type: ignore[no-any-return]


def adopt(propagator: Propagator, core: Any) -> None:
    """Puts our propagation into the very state the published one is in."""
    memory, work = core.memory, core.memory.work_mem
    propagator.ids = list(core.object_manager.all_obj_ids)
    propagator.state = State(masks=core.last_mask.clone(), sensory=memory.get_sensory(propagator.ids).clone())
    propagator._elapsed = core.curr_ti - core.last_mem_ti
    propagator.banks = []
    for bucket, objects in work.buckets.items():
        bank = MemoryBank(propagator.settings, len(objects))
        first = work.perm_end_pt[bucket]
        long = memory.long_mem if memory.use_long_term and bucket in memory.long_mem.buckets else None
        bank.num_prototypes = 0 if long is None else long.k[bucket].shape[-1]
        bank._frame_size = first

        def join(mine: torch.Tensor, theirs: torch.Tensor | None, first: int = first) -> torch.Tensor:
            parts = [mine[0, :, :first], *([] if theirs is None else [theirs[0]]), mine[0, :, first:]]
            return torch.cat(parts, dim=1).T.clone()

        columns = {
            "key": join(work.k[bucket], None if long is None else long.k[bucket]),
            "shrinkage": join(work.s[bucket], None if long is None else long.s[bucket]),
            "value": join(
                torch.cat([work.v[o] for o in objects], 1),
                None if long is None else torch.cat([long.v[o] for o in objects], 1),
            ),
        }
        if memory.use_long_term:
            ck = work.k[bucket].shape[1]
            empty = torch.zeros(1, ck, first)
            columns["selection"] = join(
                torch.cat([empty, work.e.get(bucket, empty[..., :0])], -1),
                None if long is None else torch.zeros(1, ck, bank.num_prototypes),
            )
            for name, counts, start in (("use", "use_cnt", 0.0), ("life", "life_cnt", 1e-7)):
                of_first = torch.full((1, first), start)
                mine = torch.cat([of_first, getattr(work, counts).get(bucket, of_first[:, :0])], -1)
                theirs = None if long is None else getattr(long, counts)[bucket][:, None]
                columns[name] = join(mine[:, None], theirs)[:, 0]
        else:
            columns["use"] = torch.zeros(len(columns["key"]))
            columns["life"] = torch.full_like(columns["use"], 1e-7)
        bank._set(columns)
        bank._summary = torch.stack([memory.obj_v[o] for o in objects], dim=1).clone()
        propagator.banks.append(bank)
