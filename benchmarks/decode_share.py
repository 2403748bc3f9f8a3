"""What part of a sweep's processor time goes to decoding clips that several of its trials ask for alike.

    python benchmarks/decode_share.py

A tiny STCN on synthetic videos under four backward strategies, which read the same clips, in one process without Ray:
processor time of one thread for the clips of a step and for the step itself. What is saved if one decodes for all four
is three quarters of the one, if handing clips over costs nothing.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

import cv2
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ovos_ray.config import override
from ovos_ray.data.clips.batches import batch_of, decode_batch
from ovos_ray.data.clips.decode import ClipDecoder
from ovos_ray.data.clips.plan import Plan
from ovos_ray.data.folders import synthetic
from ovos_ray.data.folders.open import open_dataset
from ovos_ray.packing.pack import pack
from ovos_ray.run.initial import initial_network
from ovos_ray.train.optimizer import build_optimizer
from ovos_ray.train.step import TrainingModule, train_step
from trainables import synthetic as recipe

STRATEGIES = ("1-step", "2-step", "3-step", "T-step")
WARM_UP, STEPS = 3, 25
CPU = torch.device("cpu")


def main() -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as name:
        synthetic.generate(Path(name, "dataset"), seed=0, num_videos={"train": 6})
        pack(open_dataset(Path(name, "dataset")), Path(name, "shards"))
        shared = {"network.name": "stcn-tiny", "data.shards": (f"{name}/shards",)}
        decoding, training = [], []
        for strategy in STRATEGIES:
            config = override(recipe.synthetic(), {**shared, "method.backward": strategy})
            plan, decoder = Plan.load(config.data, seed=0, steps=400), ClipDecoder(config.data, all_labels=False)
            network = initial_network(config)
            module, optimizer = TrainingModule(network, config), build_optimizer(network, config.optimizer, CPU)
            decoded, trained = [], []
            for step in range(WARM_UP + STEPS):
                times = [time.process_time()]
                batch = batch_of(decode_batch(decoder, plan.clips(step)))
                times.append(time.process_time())
                train_step(module, batch, optimizer, config, step)
                decoded.append(times[1] - times[0])
                trained.append(time.process_time() - times[1])
            decoding.append(statistics.median(decoded[WARM_UP:]))
            training.append(statistics.median(trained[WARM_UP:]))
            print(
                f"{strategy}: {1e3 * decoding[-1]:.1f} ms to decode a step's clips, {1e3 * training[-1]:.1f} to train"
            )
        share = sum(decoding) / (sum(decoding) + sum(training))
        print(f"decoding is {100 * share:.1f} % of the four; decoded once, {75 * share:.1f} % would be saved at most")


if __name__ == "__main__":
    main()
