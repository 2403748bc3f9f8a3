"""Weights in and out: layouts, padding, refusals, ImageNet."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torchvision.models import ResNet18_Weights, ResNet50_Weights, resnet18, resnet50

from ovos_ray.config import ExperimentConfig, override
from ovos_ray.errors import WeightsError
from ovos_ray.networks import build, export_weights, load_imagenet, load_weights, recognise, weights
from ovos_ray.run.initial import initial_network, provide_initial

_FILES = tuple(weights._IMAGENET.values())  # as they are before the fixture puts others in their place


def _state(name: str, **options) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in build(name, **options).state_dict().items()}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("name", ["stcn-tiny", "xmem-tiny", "cutie-tiny"])
def test_export_and_load_give_the_same_network(name: str, suffix: str, tmp_path: Path) -> None:
    source, target = build(name, seed=1).to(memory_format=torch.channels_last), build(name, seed=2)
    export_weights(source, tmp_path / f"weights{suffix}")
    report = load_weights(target, tmp_path / f"weights{suffix}", strict=True)
    assert report.complete
    assert report.loaded == len(source.state_dict())
    assert all(torch.equal(value, target.state_dict()[key]) for key, value in source.state_dict().items())


def test_exported_pth_is_a_bare_state_dict(tmp_path: Path) -> None:
    network = build("xmem-tiny")
    export_weights(network, tmp_path / "w.pth")
    content = torch.load(tmp_path / "w.pth", weights_only=True)
    assert list(content) == list(network.state_dict())


def test_export_refuses_other_suffixes(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"weights\.bin"):
        export_weights(build("stcn-tiny"), tmp_path / "weights.bin")


def test_same_seed_same_weights_other_seed_other_weights_and_the_global_generator_is_left_alone() -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first, again, other = (_state("xmem-tiny", seed=seed) for seed in (3, 3, 4))
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["key_encoder.conv1.weight"], other["key_encoder.conv1.weight"])


@pytest.mark.parametrize(
    ("name", "key"), [("stcn-tiny", "network"), ("xmem-tiny", "network"), ("cutie-tiny", "weights")]
)
def test_published_training_checkpoints_are_understood(name: str, key: str, tmp_path: Path) -> None:
    source, target = build(name, seed=1), build(name, seed=2)
    optimizer = torch.optim.AdamW(source.parameters())
    for parameter in source.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [100, 115])
    states = {key: source.state_dict(), "optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict()}
    torch.save({"it": 7, **states}, tmp_path / "run_checkpoint.pth")
    assert load_weights(target, tmp_path / "run_checkpoint.pth", strict=True).complete
    assert all(torch.equal(value, target.state_dict()[k]) for k, value in source.state_dict().items())


def test_prefixes_of_parallel_training_are_taken_off() -> None:
    state, network = _state("cutie-tiny", seed=1), build("cutie-tiny")
    assert load_weights(network, {f"module.{k}": v for k, v in state.items()}).complete
    assert torch.equal(network.state_dict()["pix_feat_proj.weight"], state["pix_feat_proj.weight"])


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("stcn-tiny", ["value_encoder.conv1.weight"]),
        ("xmem-tiny", ["value_encoder.conv1.weight"]),
        ("cutie-tiny", ["mask_encoder.conv1.weight", "pixel_fuser.sensory_compress.weight"]),
    ],
)
def test_single_object_weights_are_padded(name: str, keys: list[str]) -> None:
    state = _state(name, seed=1)
    for key in keys:
        state[key] = state[key][:, :-1]

    evaluated = build(name).eval()
    report = load_weights(evaluated, state)
    assert sorted(report.padded) == sorted(keys)
    assert report.complete
    trained = build(name).train()
    load_weights(trained, state)
    for key in keys:
        zeros, orthogonal = evaluated.state_dict()[key], trained.state_dict()[key]
        assert torch.equal(zeros[:, :-1], state[key])
        assert torch.equal(orthogonal[:, :-1], state[key])
        assert not zeros[:, -1].any()
        flat = orthogonal[:, -1].flatten(1).double()
        gram = flat @ flat.T if flat.shape[0] <= flat.shape[1] else flat.T @ flat
        assert torch.allclose(gram, torch.eye(len(gram), dtype=torch.float64), atol=1e-5)


def test_what_does_not_fit_is_named(caplog: pytest.LogCaptureFixture) -> None:
    state = _state("xmem-tiny", seed=1)
    del state["decoder.pred.bias"]
    state["decoder.pred.weight"] = state["decoder.pred.weight"][:, :5]
    state["head.weight"] = torch.zeros(2)
    report = load_weights(build("xmem-tiny"), state, strict=False)
    assert report.missing == ("decoder.pred.bias",)
    assert report.unexpected == ("head.weight",)
    assert report.mismatched == ("decoder.pred.weight: 1x5x3x3, 1x32x3x3",)
    assert not report.complete
    for name in ("decoder.pred.bias", "head.weight", "decoder.pred.weight"):
        assert name in str(report)
        assert name in caplog.text
    with pytest.raises(WeightsError, match=r"decoder\.pred\.bias"):
        load_weights(build("xmem-tiny"), state)


def test_weights_of_something_else_are_refused() -> None:
    with pytest.raises(WeightsError, match="does not fit STCN"):
        load_weights(build("stcn-tiny"), {"fc.weight": torch.zeros(2, 2)})
    with pytest.raises(WeightsError, match="is not a state dict"):
        load_weights(build("stcn-tiny"), {"step": 3})


class _Payload:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def test_malicious_pickle_is_refused(tmp_path: Path) -> None:
    torch.save({"network": _Payload(tmp_path / "ran")}, tmp_path / "evil.pth")
    with pytest.raises(WeightsError, match=r"evil\.pth was refused"):
        load_weights(build("stcn-tiny"), tmp_path / "evil.pth")
    assert not (tmp_path / "ran").exists()
    torch.load(tmp_path / "evil.pth", weights_only=False)  # the payload is live: the refusal above is what stopped it
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("fraction", [0.5, 0.0])
def test_truncated_files_are_named(suffix: str, fraction: float, tmp_path: Path) -> None:
    path = tmp_path / f"cut{suffix}"
    export_weights(build("stcn-tiny"), path)
    content = path.read_bytes()
    path.write_bytes(content[: int(fraction * len(content))])
    with pytest.raises(WeightsError, match=rf"cut\{suffix} \(\d+ bytes\) is truncated, damaged"):
        load_weights(build("stcn-tiny"), path)


def test_files_of_another_kind_are_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.pth").write_text("no weights")
    with pytest.raises(WeightsError, match=r"notes\.pth was refused: it is not a weights file"):
        load_weights(build("stcn-tiny"), tmp_path / "notes.pth")


def test_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"no weights file .*nowhere\.pth"):
        load_weights(build("stcn-tiny"), tmp_path / "nowhere.pth")


@pytest.fixture(scope="module")
def imagenet_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Files with torchvision's keys and shapes, named as it names files, and random values; they stand for its own."""
    folder = tmp_path_factory.mktemp("imagenet")
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        for depths, network in (((3, 4, 6), resnet50()), ((2, 2, 2), resnet18())):
            torch.save(network.state_dict(), folder / "new.pth")
            digest = hashlib.sha256((folder / "new.pth").read_bytes()).hexdigest()
            name = f"resnet{50 if depths == (3, 4, 6) else 18}-{digest[:8]}.pth"
            (folder / "new.pth").rename(folder / name)
            patch.setitem(weights._IMAGENET, depths, f"https://torchvision/{name}")
        yield folder


def test_another_file_under_the_name_of_torchvisions_is_refused(imagenet_folder: Path, tmp_path: Path) -> None:
    network = build("cutie-small")
    original = next(imagenet_folder.glob("resnet18-*.pth"))
    path = tmp_path / original.name
    state = torch.load(original, weights_only=True)
    torch.save({**state, "conv1.weight": 2 * state["conv1.weight"]}, path)  # every key and shape is right
    found = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    wrong = (
        rf"(?s)begins with {found}, not with {original.stem[-8:]}.*download https://torchvision/{original.name} again"
    )
    with pytest.raises(WeightsError, match=wrong):
        load_imagenet(network, tmp_path)
    path.rename(tmp_path / "resnet18.pth")
    with pytest.raises(WeightsError, match=f"holds no {original.name}"):
        load_imagenet(network, tmp_path)


def test_the_files_of_imagenet_are_those_that_torchvision_names() -> None:
    urls = {ResNet50_Weights.IMAGENET1K_V1.url, ResNet18_Weights.IMAGENET1K_V1.url}
    assert set(_FILES) == urls


def _biased(key: str, module: torch.nn.Module) -> bool:
    return isinstance(module, torch.nn.Conv2d) and module.bias is not None and "fuser" not in key and "sens" not in key


@pytest.mark.parametrize("name", ["stcn", "cutie-small"])
def test_imagenet_weights_from_a_folder(name: str, imagenet_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = build(name)
    monkeypatch.setenv("OVOS_IMAGENET", str(imagenet_folder))
    before = {key: value.clone() for key, value in network.state_dict().items()}
    report = load_imagenet(network)
    after = network.state_dict()
    image, mask = ("key_encoder", "value_encoder") if name == "stcn" else ("pixel_encoder", "mask_encoder")
    files = {kind: torch.load(next(imagenet_folder.glob(f"{kind}*"))) for kind in ("resnet18", "resnet50")}
    large = files["resnet50" if name == "stcn" else "resnet18"]
    assert torch.equal(after[f"{image}.res2.1.conv2.weight"], large["layer1.1.conv2.weight"])
    assert torch.equal(after[f"{image}.layer3.0.downsample.1.running_var"], large["layer3.0.downsample.1.running_var"])
    assert torch.equal(after[f"{mask}.layer3.1.bn2.weight"], files["resnet18"]["layer3.1.bn2.weight"])
    assert torch.equal(after[f"{mask}.conv1.weight"][:, :3], files["resnet18"]["conv1.weight"])
    assert torch.equal(after[f"{mask}.conv1.weight"][:, 3:], before[f"{mask}.conv1.weight"][:, 3:])
    biases = [f"{mask}.{key}" for key, module in network.get_submodule(mask).named_modules() if _biased(key, module)]
    assert sorted(report.missing) == sorted(f"{key}.bias" for key in biases if name == "stcn")


def test_imagenet_weights_for_tiny_networks_do_not_exist(imagenet_folder: Path) -> None:
    with pytest.raises(WeightsError, match=r"(?s)key_encoder of this STCN.*network\.init=random"):
        load_imagenet(build("stcn-tiny"), imagenet_folder)


def test_imagenet_weights_out_of_reach_say_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = build("cutie-small")
    with pytest.raises(WeightsError, match=r"(?s)holds no resnet18-\w{8}\.pth.*https://"):
        load_imagenet(network, tmp_path)

    def offline(*args: object, **kwargs: object) -> None:
        raise OSError("no route")

    monkeypatch.delenv("OVOS_IMAGENET", raising=False)
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", offline)
    with pytest.raises(WeightsError, match=r"(?s)cannot be fetched: no route.*OVOS_IMAGENET.*network\.init=random"):
        load_imagenet(network)


def test_published_networks_start_from_random_weights_only_when_asked(
    tmp_path: Path, imagenet_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = override(ExperimentConfig(), {"network.name": "cutie-small"})
    monkeypatch.setenv("OVOS_IMAGENET", str(tmp_path))
    with pytest.raises(WeightsError, match=r"holds no resnet18-\w{8}\.pth"):
        initial_network(config)
    random = initial_network(override(config, {"network.init": "random"})).state_dict()
    assert all(torch.equal(value, random[key]) for key, value in _state("cutie-small").items())
    tiny = initial_network(override(config, {"network.name": "cutie-tiny"})).state_dict()
    assert all(torch.equal(value, tiny[key]) for key, value in _state("cutie-tiny").items())
    monkeypatch.setenv("OVOS_IMAGENET", str(imagenet_folder))
    key, own = "pixel_encoder.res2.1.conv2.weight", "layer1.1.conv2.weight"
    given = torch.load(next(imagenet_folder.glob("resnet18-*.pth")), weights_only=True)[own]
    assert torch.equal(initial_network(config).state_dict()[key], given)
    assert not torch.equal(random[key], given)


@pytest.mark.parametrize("name", ["stcn", "xmem", "cutie-base", "cutie-small"])
def test_a_published_network_is_recognised_by_its_parameters_and_no_other(name: str) -> None:
    with torch.device("meta"):
        keys = set(build(name).state_dict())
    assert recognise(keys) == name
    assert recognise({"weight", "bias"}) is None


def test_the_driver_puts_imagenet_files_where_workers_without_internet_find_them(
    tmp_path: Path, imagenet_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = override(ExperimentConfig(), {"network.name": "cutie-small", "storage": str(tmp_path / "runs")})
    monkeypatch.setenv("OVOS_IMAGENET", str(imagenet_folder))
    provide_initial(config)
    expected = initial_network(config).state_dict()
    monkeypatch.setenv("OVOS_IMAGENET", str(tmp_path))  # a worker that has no files of its own
    names = [path.name for path in imagenet_folder.glob("resnet18-*.pth")]
    assert [path.name for path in (tmp_path / "runs" / "imagenet").iterdir()] == names
    found = initial_network(config).state_dict()
    assert all(torch.equal(value, found[key]) for key, value in expected.items())
    provide_initial(config)
    with pytest.raises(WeightsError, match="holds no resnet18"):
        provide_initial(override(config, {"storage": str(tmp_path / "other")}))
    for change in ({"network.name": "xmem-tiny"}, {"network.init": "random"}):
        provide_initial(override(config, {**change, "storage": str(tmp_path / "none")}))
    assert not (tmp_path / "none").exists()
