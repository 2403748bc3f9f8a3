"""Weights files that are damaged, incomplete, hostile or of another kind are refused by name."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from ovos_ray.errors import WeightsError
from ovos_ray.networks import build, export_weights, load_weights
from ovos_ray.train.load_network import load_network


def state() -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in build("stcn-tiny", seed=1).state_dict().items()}


def saved(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def test_a_file_with_half_of_the_keys_is_refused(tmp_path: Path) -> None:
    keys = list(state())
    half = {key: value for key, value in state().items() if key in keys[: int(0.55 * len(keys))]}
    path = saved(tmp_path / "half.pth", half)
    with pytest.raises(WeightsError, match=r"half\.pth.*does not fit STCN: \d+ tensors loaded; \d+ missing"):
        load_network(path, "stcn-tiny")
    with pytest.raises(WeightsError, match="missing"):
        load_weights(build("stcn-tiny"), half)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_single_value_that_is_no_number_is_refused(value: float, tmp_path: Path) -> None:
    content = state()
    key = list(content)[-1]
    content[key].view(-1)[-1] = value
    with pytest.raises(WeightsError, match=rf"{key} holds NaN or infinity"):
        load_network(saved(tmp_path / "w.pth", content), "stcn-tiny")


def test_one_number_that_stands_for_ten_billion_is_refused(tmp_path: Path) -> None:
    content = state()
    key = next(iter(content))
    content[key] = torch.ones(1).expand(10**5, 10**5)
    with pytest.raises(WeightsError, match=f"{key} has more values than are stored"):
        load_network(saved(tmp_path / "w.pth", content), "stcn-tiny")


def finished_run(folder: Path) -> Path:
    """A run folder with its result, as a run leaves it."""
    folder.mkdir()
    content = safetensors.torch.save(state(), metadata={"network": "stcn-tiny"})
    (folder / "network.safetensors").write_bytes(content)
    digests = {"network.safetensors": hashlib.sha256(content).hexdigest()}
    (folder / "result.json").write_text(json.dumps({"weights_sha256": digests}))
    return folder


@pytest.mark.parametrize("where", ["folder", "file"])
def test_one_flipped_bit_in_a_run_s_weights_is_noticed(where: str, tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run")
    path = run / "network.safetensors"
    given = run if where == "folder" else path
    load_network(given)
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"network\.safetensors is not what its run wrote"):
        load_network(given)


@pytest.mark.parametrize(
    "note", ["{}", "[]", "null", "", "\xff", '{"weights_sha256": 3}', '{"weights_sha256": {"other": "x"}}']
)
def test_a_result_without_a_digest_is_one_of_an_older_run(note: str, tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run")
    (run / "result.json").write_text(note)
    assert load_network(run) is not None


def test_one_flipped_bit_in_an_official_file_is_noticed_by_its_own_checksum(tmp_path: Path) -> None:
    path = saved(tmp_path / "w.pth", state())
    with zipfile.ZipFile(path) as archive:
        largest = max(archive.infolist(), key=lambda entry: entry.file_size)
    content = bytearray(path.read_bytes())
    content[largest.header_offset + 200] ^= 1
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"truncated, damaged"):
        load_network(path, "stcn-tiny")


def test_a_file_that_unpacks_to_far_more_than_it_is_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    plain = saved(tmp_path / "plain.pth", {"weight": torch.zeros(4_000_000)})
    bomb = tmp_path / "bomb.pth"
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as target:
        for entry in source.infolist():
            target.writestr(entry.filename, source.read(entry))
    assert bomb.stat().st_size < 100_000
    assert torch.load(bomb, weights_only=True)["weight"].numel() == 4_000_000, "torch itself would unpack it"
    with pytest.raises(WeightsError, match=r"bomb\.pth: \d+ bytes that unpack to 16\d+"):
        load_network(bomb, "stcn-tiny")


@pytest.mark.parametrize(
    "content",
    [
        {1: torch.zeros(2)},
        {("a",): torch.zeros(2)},
        {},
        {"network": {}},
        {"network": {"a": 3}},
        {"network": 3},
        {"network_name": 3, "network": {"a": torch.zeros(2)}},
        {"network_name": ["stcn"], "network": {3: torch.zeros(2)}},
        [torch.zeros(2)],
        torch.zeros(2),
        None,
        {"a": torch.zeros(2, device="meta")},
        {"a": torch.zeros(2).to_sparse()},
    ],
    ids=lambda content: repr(content)[:40],
)
@pytest.mark.parametrize("name", [None, "stcn-tiny"])
def test_what_is_no_state_dict_is_named_whatever_it_is(content: Any, name: str | None, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"w\.pth"):
        load_network(saved(tmp_path / "w.pth", content), name)


def test_a_tensor_of_whole_numbers_is_no_weight(tmp_path: Path) -> None:
    content = state()
    key = next(iter(content))
    content[key] = content[key].long()
    with pytest.raises(WeightsError, match=rf"mismatched \({key}: .* torch\.int64"):
        load_network(saved(tmp_path / "w.pth", content), "stcn-tiny")


def test_exported_weights_still_load_strictly(tmp_path: Path) -> None:
    export_weights(build("xmem-tiny", seed=2), tmp_path / "w.pth")
    network = load_network(tmp_path / "w.pth", "xmem-tiny")
    expected = build("xmem-tiny", seed=2).state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in network.state_dict().items())
