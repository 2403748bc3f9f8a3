"""The best network as an MLflow model: frames and the first mask in, masks out, in any process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tracked import the_run

from ovos_ray.track.sink import Sink

pytestmark = pytest.mark.usefixtures("impatient")


def test_best_network_comes_back_as_an_mlflow_model(store: str, client: Any, tmp_path: Path) -> None:
    import mlflow.pyfunc
    import numpy as np
    from safetensors.torch import save_file

    from ovos_ray import networks
    from ovos_ray.evaluate.infer.inference import predict_video

    network = networks.build("stcn-tiny", seed=3)
    save_file(network.state_dict(), tmp_path / "network.safetensors")
    with Sink.open(store, "model", "one", name="x", spool=tmp_path / "spool") as sink:
        sink.log_model(tmp_path / "network.safetensors", network="stcn-tiny", memory_interval=2)
    (tmp_path / "network.safetensors").unlink()

    frames = np.random.default_rng(0).integers(0, 255, (5, 48, 64, 3), np.uint8)
    mask = np.zeros((48, 64), np.uint8)
    mask[10:30, 10:40], mask[20:40, 40:60] = 1, 2
    mlflow.set_tracking_uri(store)
    model = mlflow.pyfunc.load_model(f"runs:/{the_run(client, 'model', 'one').info.run_id}/model")
    assert model.metadata.signature.inputs.input_names() == ["frames", "mask"]
    masks = model.predict({"frames": frames, "mask": mask})["masks"]
    expected = np.stack(list(predict_video(network.eval(), frames, {0: mask}, memory_interval=2)))
    assert masks.dtype == np.uint8
    assert np.array_equal(masks, expected)
    other = np.stack(list(predict_video(networks.build("stcn-tiny", seed=4).eval(), frames, {0: mask})))
    assert not np.array_equal(masks, other)
    stored = Path(store.removeprefix("sqlite:///")).parent / "mlruns" / "model"
    assert [p.name for p in stored.rglob("*") if p.suffix in (".pkl", ".pth", ".pt")] == []


@pytest.mark.slow
def test_mlflow_s_own_command_predicts_from_a_json_file(tmp_path: Path) -> None:
    import json
    import os
    import subprocess
    import sys

    import numpy as np
    from conftest import REPOSITORY
    from safetensors.torch import save_file

    from ovos_ray import networks
    from ovos_ray.evaluate.infer.inference import predict_video
    from ovos_ray.track.model import save_model

    network = networks.build("stcn-tiny", seed=3)
    save_file(network.state_dict(), tmp_path / "network.safetensors")
    save_model(tmp_path / "model", tmp_path / "network.safetensors", network="stcn-tiny")
    frames = np.random.default_rng(0).integers(0, 255, (3, 32, 48, 3), np.uint8)
    mask = np.zeros((32, 48), np.uint8)
    mask[8:24, 8:30] = 1
    video = {"inputs": {"frames": frames.tolist(), "mask": mask.tolist()}}
    (tmp_path / "video.json").write_text(json.dumps(video))
    files = f"-m {tmp_path}/model -i {tmp_path}/video.json -o {tmp_path}/masks.json"
    subprocess.run(
        [sys.executable, "-m", "mlflow", "models", "predict", *files.split(), "--env-manager", "local"],
        env={
            **os.environ,
            "PYTHONPATH": str(REPOSITORY),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        },
        check=True,
        timeout=120,
    )
    masks = np.array(json.loads((tmp_path / "masks.json").read_text())["predictions"]["masks"], np.uint8)
    assert np.array_equal(masks, np.stack(list(predict_video(network.eval(), frames, {0: mask}))))
