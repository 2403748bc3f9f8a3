"""A trained network as an MLflow model: frames and the first mask in, all masks out.

`mlflow.pyfunc.load_model("runs:/RUN_ID/model")` needs nothing but ovos_ray. The model holds safetensors and JSON, no
pickles.
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["Predictor", "save_model"]


def save_model(path: Path, weights: Path, *, network: str, **settings: Any) -> None:
    """Writes an MLflow model folder.

    Args:
        path: Folder to write, absent so far.
        weights: Safetensors file (or anything `ovos_ray.networks.load_weights` reads).
        network: Name known to `ovos_ray.networks.build`.
        settings: Fields of `ovos_ray.evaluate.infer.inference.InferenceSettings` that differ from the published ones.
    """
    import mlflow.pyfunc
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    frames = TensorSpec(np.dtype(np.uint8), (-1, -1, -1, 3), "frames")
    mask = TensorSpec(np.dtype(np.uint8), (-1, -1), "mask")
    masks = TensorSpec(np.dtype(np.uint8), (-1, -1, -1), "masks")
    data = path.with_name(path.name + "-data")
    data.mkdir(parents=True)
    try:
        shutil.copy2(weights, data / ("weights" + weights.suffix))
        (data / "network.json").write_text(json.dumps({"network": network, "settings": settings}, indent=2))
        with warnings.catch_warnings():
            # An example video would be larger than the network; the signature says all there is to say.
            warnings.filterwarnings("ignore", message=".*input example.*")
            mlflow.pyfunc.save_model(
                path=str(path),
                loader_module="ovos_ray.track.model",
                data_path=str(data),
                signature=ModelSignature(inputs=Schema([frames, mask]), outputs=Schema([masks])),
                pip_requirements=["ovos-ray"],
            )
    finally:
        shutil.rmtree(data)


class Predictor:
    """What `mlflow.pyfunc` calls; `folder` holds `network.json` and the weights."""

    def __init__(self, folder: Path) -> None:
        from ovos_ray.networks import build, load_weights

        description = json.loads((folder / "network.json").read_text())
        self._settings = description["settings"]
        self.network = build(description["network"])
        load_weights(self.network, next(folder.glob("weights*")))
        self.network.eval()

    def predict(self, model_input: Mapping[str, np.ndarray], params: Any = None) -> dict[str, np.ndarray]:
        """Segments one video.

        Args:
            model_input: `frames` (T, H, W, 3) uint8 RGB and `mask` (H, W) uint8, the object indices of frame 0.
            params: Unused; part of MLflow's protocol.

        Returns:
            `masks` (T, H, W) uint8 object indices; the first is the given mask.
        """
        from ovos_ray.evaluate.infer.inference import predict_video

        masks = predict_video(
            self.network, iter(model_input["frames"]), {0: np.asarray(model_input["mask"])}, **self._settings
        )
        return {"masks": np.stack(list(masks))}


def _load_pyfunc(data_path: str) -> Predictor:
    """MLflow's entry point, named by `loader_module`."""
    return Predictor(Path(data_path))
