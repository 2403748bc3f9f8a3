"""The prompter `sam`, by tiny networks with random weights: what goes in, what comes out, what fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from ovos_ray.errors import ConfigError, MissingExtraError, WeightsError
from ovos_ray.label.prompts import Click, mask_from_box, prompter_of
from ovos_ray.label.sam import Sam

pytestmark = pytest.mark.slow

SIZE, SIDE = (48, 80), 64


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of weights, as the hub gives them."""
    transformers = pytest.importorskip("transformers", reason="ovos-ray[prompt] is not installed")
    small: dict[str, Any] = {"hidden_size": 16, "image_size": SIDE, "patch_size": 8}
    one: dict[str, Any] = {"num_hidden_layers": 1, "num_attention_heads": 2, "mlp_dim": 16}
    vision = {**small, **one, "output_channels": 16, "window_size": 0, "global_attn_indexes": [0], "num_pos_feats": 8}
    decoder = {**one, "hidden_size": 16, "iou_head_depth": 2, "iou_head_hidden_dim": 16}
    torch.manual_seed(0)
    config = transformers.SamConfig(
        vision_config=vision, prompt_encoder_config={**small, "mask_input_channels": 4}, mask_decoder_config=decoder
    )
    model = transformers.SamModel(config)
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.add_(0.3 * torch.randn_like(tensor))
    path = tmp_path_factory.mktemp("sam")
    model.save_pretrained(path)
    images = transformers.SamImageProcessor(
        size={"longest_edge": SIDE}, pad_size={"height": SIDE, "width": SIDE}, mask_size={"longest_edge": 16},
        mask_pad_size={"height": 16, "width": 16},
    )  # fmt: skip
    transformers.SamProcessor(images).save_pretrained(path)
    return path


@pytest.fixture
def image() -> np.ndarray:
    coarse = np.random.default_rng(0).integers(0, 256, (6, 10, 3)).astype(np.uint8)
    return cv2.resize(coarse, SIZE[::-1], interpolation=cv2.INTER_LINEAR)


def by_hand(folder: Path, image: np.ndarray, box: tuple[int, ...], clicks: list[Click]) -> np.ndarray:
    """Logits at the frame's size: scaled, normalised, padded and scaled back as the paper's code does."""
    import transformers

    model = transformers.SamModel.from_pretrained(folder).eval()
    scale = SIDE / max(SIZE)
    height, width = (int(scale * side + 0.5) for side in SIZE)
    pixels = torch.nn.functional.interpolate(
        torch.from_numpy(image).permute(2, 0, 1)[None].float(), (height, width), mode="bilinear", antialias=True
    ).round()
    mean, std = torch.tensor([[123.675, 116.28, 103.53], [58.395, 57.12, 57.375]])[:, None, :, None, None]
    padded = torch.zeros(1, 3, SIDE, SIDE)
    padded[..., :height, :width] = (pixels - mean) / std
    across = torch.tensor([width / SIZE[1], height / SIZE[0]])
    with torch.inference_mode():
        low = model(
            pixel_values=padded,
            input_boxes=torch.tensor(box).float().view(1, 1, 4) * across.repeat(2),
            input_points=torch.tensor([[[[x, y] for x, y, _ in clicks]]]).float() * across if clicks else None,
            input_labels=torch.tensor([[[int(positive) for *_, positive in clicks]]]) if clicks else None,
            multimask_output=False,
        ).pred_masks[0]
    full = torch.nn.functional.interpolate(low, (SIDE, SIDE), mode="bilinear")[..., :height, :width]
    return torch.nn.functional.interpolate(full, SIZE, mode="bilinear")[0, 0].numpy()


def test_box_and_clicks_reach_the_network_and_its_mask_comes_back(folder: Path, image: np.ndarray) -> None:
    sam, box = Sam(str(folder)), (10, 5, 60, 40)
    found = {}
    for clicks in ([], [Click(20, 20)], [Click(20, 20, False)], [Click(20, 20), Click(50, 30, False)]):
        logits = by_hand(folder, image, box, clicks)
        mask = found[str(clicks)] = mask_from_box(image, box, clicks, sam)
        assert mask.shape == SIZE
        sure = np.abs(logits) > 0.02 * np.abs(logits).max()  # images are scaled by different libraries
        np.testing.assert_array_equal(mask[sure], logits[sure] > 0)
        assert sure.mean() > 0.8
    assert len({mask.tobytes() for mask in found.values()}) > 1, "clicks matter"


def test_an_image_is_encoded_once(folder: Path, image: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    sam = prompter_of("sam", str(folder))
    encoded: list[int] = []
    encode = sam._model.get_image_embeddings  # type: ignore[attr-defined]
    monkeypatch.setattr(sam._model, "get_image_embeddings", lambda pixels: encoded.append(1) or encode(pixels))  # type: ignore[attr-defined]
    first = sam(image, (10, 5, 60, 40), [])
    sam(image.copy(), (0, 5, 40, 40), [Click(3, 9)])
    assert len(encoded) == 1
    other = sam(image[::-1].copy(), (10, 5, 60, 40), [])
    assert len(encoded) == 2
    assert not np.array_equal(first, other)


def test_what_are_no_weights_is_refused_with_a_remedy(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "vit").mkdir()
    for path in folder.iterdir():
        (tmp_path / "vit" / path.name).write_bytes(path.read_bytes())
    (tmp_path / "vit/config.json").write_text('{"model_type": "vit"}')
    (tmp_path / "pickled").mkdir()
    (tmp_path / "pickled/config.json").write_bytes((folder / "config.json").read_bytes())
    torch.save({}, tmp_path / "pickled/pytorch_model.bin")
    (tmp_path / "cut").mkdir()
    for path in folder.iterdir():
        (tmp_path / "cut" / path.name).write_bytes(path.read_bytes()[: 4000 if path.suffix == ".safetensors" else None])
    for name in ("empty", "vit", "pickled", "cut"):
        with pytest.raises(WeightsError, match=name) as error:
            Sam(str(tmp_path / name))
        assert error.value.remedy, name


def test_choices_that_are_none_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="no prompter 'sam2'") as error:
        prompter_of("sam2")
    assert error.value.remedy == "there are grabcut, sam"
    with pytest.raises(ConfigError, match="grabcut has none"):
        prompter_of("grabcut", "weights")
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(MissingExtraError, match="transformers") as missing:
        prompter_of("sam")
    assert missing.value.remedy == "pip install 'ovos-ray[prompt]'"
