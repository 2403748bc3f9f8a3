"""From an official weights file to a network that has seen one's own videos, in the documented commands."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from ovos_ray import networks
from ovos_ray.config import ExperimentConfig, override
from ovos_ray.config.recipes import make
from ovos_ray.data.shards.index import ShardIndex
from ovos_ray.errors import WeightsError
from ovos_ray.networks import export_weights
from ovos_ray.run.checks import check_config
from ovos_ray.run.initial import initial_network
from ovos_ray.run.pretraining import pin
from ovos_ray.seeding import generator

REPOSITORY = Path(__file__).resolve().parents[2]
HEIGHT, WIDTH, NUM_FRAMES = 48, 64, 7
LABELLED = {"kitten": 0, "street": 3, "pond": 6}
"""Videos and their one labelled frame: first, in the middle, last."""


@pytest.fixture
def videos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A plain folder of videos with one mask each, and the recipes at hand."""
    root = tmp_path / "my-videos"
    rng = generator(0, 0, "videos")
    for name, labelled in LABELLED.items():
        (root / name).mkdir(parents=True)
        (root / "masks" / name).mkdir(parents=True)
        background = rng.integers(0, 120, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        for t in range(NUM_FRAMES):
            frame, mask = background.copy(), np.zeros((HEIGHT, WIDTH), np.uint8)
            mask[10 + t : 30 + t, 8 + 3 * t : 26 + 3 * t] = 1
            frame[mask > 0] += 120
            Image.fromarray(frame).save(root / name / f"{t:05d}.jpg", quality=95)
            if t == labelled:
                Image.fromarray(mask).save(root / "masks" / name / f"{t:05d}.png")
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.syspath_prepend(str(REPOSITORY))
    return root


@pytest.mark.parametrize("name", ["stcn", "xmem", "cutie"])
def test_recipes_start_from_a_file_and_say_so_when_it_is_not_there(name: str, videos: Path) -> None:
    config = pin(make(f"trainables.fine_tuning.{name}", ExperimentConfig))
    assert config.pretrain is None
    assert config.network.init.endswith(".pth")
    assert (
        config.optimizer.learning_rate
        <= make(f"trainables.one_shot.{name}", ExperimentConfig).optimizer.learning_rate / 10
    )
    with pytest.raises(WeightsError, match=rf"there is no weights file {config.network.init}"):
        check_config(config)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("name", ["stcn-tiny", "xmem-tiny", "cutie-tiny"])
def test_any_recipe_starts_from_a_file_of_the_official_layout(name: str, suffix: str, tmp_path: Path) -> None:
    official = networks.build(name, seed=5)
    export_weights(official, tmp_path / f"official{suffix}")
    config = ExperimentConfig(pretrain=override(ExperimentConfig(), {"pretrain.recipe": "x"}).pretrain)
    config = override(config, {"network.name": name, "network.init": str(tmp_path / f"official{suffix}")})
    started = initial_network(pin(config)).state_dict()
    assert all(torch.equal(started[key], value) for key, value in official.state_dict().items())
    with pytest.raises(WeightsError, match="does not fit"):
        initial_network(pin(override(config, {"network.name": "xmem" if name != "xmem-tiny" else "stcn"})))


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_fine_tuning_on_ones_own_videos(videos: Path, tmp_path: Path) -> None:
    from ovos_ray.cli.pack import pack
    from ovos_ray.cli.predict import predict
    from ovos_ray.cli.train import train

    official = networks.build("cutie-tiny", seed=5)
    export_weights(official, tmp_path / "cutie-tiny.pth")
    shards = tmp_path / "shards"
    pack("my-videos", videos, shards, layout="folder")
    assert {v.name: v.label_frames for v in ShardIndex.load(shards).videos} == {n: (t,) for n, t in LABELLED.items()}

    # The documented command; the rest makes it small enough for a test.
    command = [f"network.init={tmp_path / 'cutie-tiny.pth'}", f"data.shards={shards}"]
    small = [
        "network.name=cutie-tiny", "data.clip_length=4", "data.crop_size=48", "data.batch_size=2",
        "method.loss.num_points=100", "train.steps=3", "train.gpus_per_worker=0", "train.cpus_per_worker=0.5",
        "train.num_threads=1", "optimizer.warm_up_steps=0", "optimizer.learning_rate=1e-3",
        f"storage={tmp_path / 'runs'}", "tracking_uri=",
    ]  # fmt: skip
    train("trainables.fine_tuning.cutie", command + small)
    folder = tmp_path / "runs" / "fine-tuned-cutie"
    tuned = safetensors.torch.load_file(folder / "network.safetensors")
    fresh = networks.build("cutie-tiny", seed=0).state_dict()

    def distance(other: dict[str, torch.Tensor]) -> float:
        return float(sum((tuned[name].double() - other[name].double()).square().sum() for name in tuned)) ** 0.5

    assert 0 < distance(official.state_dict()) < 0.1 * distance(fresh)

    predict(tmp_path / "predictions", checkpoint=folder, root=videos, split="train", layout="folder")
    predict(tmp_path / "by two", checkpoint=folder, root=videos, split="train", layout="folder", num_workers=2)
    for one in (tmp_path / "predictions").rglob("*.png"):
        assert (tmp_path / "by two" / one.relative_to(tmp_path / "predictions")).read_bytes() == one.read_bytes()
    saved = {p.parent.name: len(list(p.parent.iterdir())) for p in (tmp_path / "predictions").rglob("*.png")}
    assert saved["kitten"] == NUM_FRAMES
    assert set(saved) == set(LABELLED)
