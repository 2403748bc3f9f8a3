"""Segment Anything as a prompter (Kirillov et al., ICCV 2023), through Hugging Face's `transformers`.

Weights are safetensors, by a name of the hub (fetched once into its cache) or in a folder, which needs no network; no
code comes with them. An image is encoded once, whatever the number of boxes and clicks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError

from ovos_ray.arrays import UInt8Array
from ovos_ray.errors import MissingExtraError, WeightsError, first_line

if TYPE_CHECKING:
    from ovos_ray.label.prompts import Box, Click

__all__ = ["DEFAULT_WEIGHTS", "Sam"]

DEFAULT_WEIGHTS = "facebook/sam-vit-base"


class Sam:
    """A prompter; see `Prompter`.

    Args:
        weights: A name of the hub, or a folder that holds `config.json`, `model.safetensors` and the processor's
            configuration, as `hf download facebook/sam-vit-base --local-dir FOLDER` makes it.
        device: Where to run.

    Raises:
        MissingExtraError: transformers is not installed.
        WeightsError: There are no such weights, they cannot be fetched, or are not those of a SAM.
    """

    def __init__(self, weights: str = DEFAULT_WEIGHTS, device: torch.device | str = "cpu") -> None:
        try:
            from transformers import SamConfig, SamModel, SamProcessor
        except ImportError as error:
            raise MissingExtraError("transformers", "prompt", "the prompter sam") from error
        offline = Path(weights).is_dir()
        try:
            kind = SamConfig.get_config_dict(weights, local_files_only=offline)[0].get("model_type")
            if kind != "sam":  # of any other network, nearly all weights would be left at random
                raise ValueError(f"config.json describes a network of type {kind!r}, not 'sam'")
            model, report = SamModel.from_pretrained(
                weights, use_safetensors=True, local_files_only=offline, output_loading_info=True
            )
            self._processor = SamProcessor.from_pretrained(weights, local_files_only=offline)
        except (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError) as error:
            raise WeightsError(
                f"{weights}: no weights of SAM could be loaded ({first_line(error)})",
                "give --prompter-weights a folder, made where there is a network: hf download "
                f"{DEFAULT_WEIGHTS} --local-dir FOLDER; or use --prompter grabcut, which needs none",
            ) from error
        if missing := sorted(report["missing_keys"]):
            raise WeightsError(
                f"{weights}: not the weights of a SAM, {len(missing)} of its tensors are missing, as {missing[0]}",
                f"give those of {DEFAULT_WEIGHTS}, -large or -huge",
            )
        self._model, self._device = model.eval().to(device), device
        self._encoded: tuple[bytes, torch.Tensor] | None = None

    def __call__(self, image: UInt8Array, box: Box, clicks: Sequence[Click]) -> npt.NDArray[np.bool_]:
        """Returns where the object is, (H, W) bool."""
        x0, y0, x1, y1 = box
        prompts: dict[str, Any] = {"input_boxes": [[[x0, y0, x1, y1]]]}
        if clicks:
            prompts["input_points"] = [[[[click.x, click.y] for click in clicks]]]
            prompts["input_labels"] = [[[int(click.positive) for click in clicks]]]
        inputs = self._processor(images=image, return_tensors="pt", **prompts)
        given = {key: inputs[key].to(self._device) for key in prompts if key == "input_labels"}
        given |= {key: inputs[key].float().to(self._device) for key in prompts if key != "input_labels"}
        with torch.inference_mode():
            encoded = self._encode(image, inputs["pixel_values"])
            masks = self._model(image_embeddings=encoded, multimask_output=False, **given).pred_masks
        (found,) = self._processor.post_process_masks(
            masks.cpu(), inputs["original_sizes"], inputs["reshaped_input_sizes"]
        )
        return np.asarray(found[0, 0].numpy(), bool)

    def _encode(self, image: UInt8Array, pixels: torch.Tensor) -> torch.Tensor:
        digest = hashlib.sha256(repr(image.shape).encode() + image.tobytes()).digest()
        if self._encoded is None or self._encoded[0] != digest:
            self._encoded = digest, self._model.get_image_embeddings(pixels.to(self._device))
        return self._encoded[1]
