"""Every setting says what it means, and the digests of what was run before stay what they were."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import typing
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any

import pytest

from ovos_ray.config import ExperimentConfig, flatten, from_dict, override, to_dict
from ovos_ray.config.digest import digest
from ovos_ray.config.recipes import make
from ovos_ray.config.roles import Added, Bookkeeping, Computes, Identifies, Live, settings_of
from ovos_ray.config.settings import keys_of

# Computed by version 0.1 (commit 5ce693b), before the roles of settings stood at the settings.
DIGESTS: list[tuple[dict[str, Any], str]] = [
    ({}, "e463fa43d02b"),
    (
        {
            "seed": 3,
            "name": "x",
            "note": "y",
            "storage": "z",
            "tracking_uri": "",
            "train.num_workers": 4,
            "train.num_threads": 2,
            "train.snapshot_every": 9,
        },
        "b40c12226736",
    ),
    (
        {
            "data.shards": ("/a/davis", "/b/youtube"),
            "data.multipliers": (5, 1),
            "data.frame_intervals": (1, 5),
            "data.max_skip": [[0, 5], [0.1, 10]],
            "data.augmentation": None,
        },
        "d16c84806ce4",
    ),
    (
        {
            "data.augmentation.spline": 0.8,
            "data.augmentation.clip_jitter": [0.1, 0.2, 0.3, 0.4],
            "data.source": "static",
            "data.clip_start": "any",
            "data.time_reversal": 0.5,
            "data.clip_merging": 0.5,
            "data.on_bad_row": "skip",
            "data.max_bad_fraction": 0.1,
            "data.crop_tries": 2,
        },
        "4f7181e3fb07",
    ),
    ({"network.name": "cutie-base", "network.init": "/w/runs/one-shot/network.safetensors"}, "b6af84295667"),
    (
        {"network.name": "xmem", "network.init": "/w/XMem-s012.pth", "data.clip_length": 8, "data.batch_size": 16},
        "3be83159d33f",
    ),
    (
        {
            "method.name": "supervised",
            "method.loss.cross_entropy": "points",
            "method.loss.dice": False,
            "method.loss.num_points": 100,
            "method.loss.auxiliary_weight": 0.1,
        },
        "090a441158f1",
    ),
    (
        {
            "method.backward": "T-step",
            "method.reference": "empty",
            "method.empty_objects": "merge",
            "method.reference_mask": "hard",
            "method.share_features": False,
            "method.allow_untrained_sensory": True,
        },
        "212d37db751d",
    ),
    (
        {
            "optimizer.name": "adam",
            "optimizer.decay_steps": (10, 20),
            "optimizer.clip_norm": 3.0,
            "optimizer.backbone_multiplier": 0.1,
            "optimizer.decay_embeddings": False,
            "optimizer.warm_up_steps": 5,
        },
        "a791992199a5",
    ),
    (
        {
            "train.precision": "bfloat16",
            "train.rollout_precision": "bfloat16",
            "train.channels_last": False,
            "train.compile": True,
            "train.gradient_checkpointing": True,
            "train.deterministic": False,
            "train.max_nonfinite_steps": 3,
        },
        "c6275c55dfd3",
    ),
    (
        {
            "evaluation.root": "/d/DAVIS/2017",
            "evaluation.also": ("davis2016=/d/DAVIS/2016", "yt=/d/YouTube2018:valid"),
            "evaluation.protocol": "youtube-vos",
            "evaluation.shortest_side": 256,
            "validation.root": "/d/hold-out",
            "validation.every": 100,
            "validation.num_videos": 3,
            "validation.select_best": True,
        },
        "512e8f12cf89",
    ),
    (
        {
            "pretrain.recipe": "trainables.static_pretraining",
            "pretrain.overrides": ("train.steps=10", "data.shards=/x/static"),
        },
        "67c09716389f",
    ),
    (
        {
            "pretrain.recipe": "trainables.static_pretraining",
            "pretrain.digest": "0123456789ab",
            "pretrain.storage": "/s",
        },
        "ebf5a134649e",
    ),
    (
        {
            "segment.start_step": 10,
            "segment.stop_step": 20,
            "segment.parent": "p",
            "segment.parent_digest": "0123456789ab",
            "segment.member": 2,
            "segment.generation": 1,
        },
        "67a7ba770e83",
    ),
]


@pytest.mark.parametrize(("changes", "expected"), DIGESTS, ids=[one for _, one in DIGESTS])
def test_the_digests_of_earlier_runs_stay_what_they_were(changes: dict[str, Any], expected: str) -> None:
    config = override(ExperimentConfig(), changes)
    assert digest(config) == expected
    assert digest(from_dict(ExperimentConfig, to_dict(config))) == expected


def test_the_digest_of_a_full_recipe_stays_what_it_was() -> None:
    assert digest(make("trainables.fully_supervised", ExperimentConfig)) == "07d9f227f0bc"


def groups(tree: type) -> Iterator[type]:
    """The classes of a configuration, the settings of which are listed in it."""
    yield tree
    for hint in typing.get_type_hints(tree).values():
        for kind in (hint, *typing.get_args(hint)):
            if dataclasses.is_dataclass(kind) and isinstance(kind, type):
                yield from groups(kind)


def undocumented(source: str) -> list[str]:
    """The fields of a class that no string literal follows."""
    body = ast.parse(source).body[0]
    assert isinstance(body, ast.ClassDef)
    lines = list(zip(body.body, [*body.body[1:], None], strict=True))
    return [
        ast.unparse(line.target)
        for line, after in lines
        if isinstance(line, ast.AnnAssign)
        and not (isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and after.value.value)
    ]


def test_every_setting_has_a_role_and_a_docstring() -> None:
    assert len(settings_of(ExperimentConfig)) >= 100
    leaves = {**flatten(override(ExperimentConfig(), {"pretrain": {}, "segment": {}})), **flatten(ExperimentConfig())}
    assert leaves.keys() <= settings_of(ExperimentConfig).keys()  # raises for a setting without a role
    for group in groups(ExperimentConfig):
        if dataclasses.fields(group)[0].kw_only:  # values such as `ScoredSplit` document theirs as attributes
            assert not undocumented(inspect.getsource(group)), group


def test_a_setting_without_role_or_docstring_is_found() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Bare:
        told: Annotated[int, Computes] = 1
        """Something."""
        untold: int = 2

    with pytest.raises(TypeError, match=r"Bare\.untold has 0 roles"):
        settings_of(Bare)
    assert undocumented("class Bare:\n    told: int = 1\n    'Something.'\n    untold: int = 2\n") == ["untold"]


def test_what_is_not_digested_is_what_a_run_may_be_resumed_with() -> None:
    config = override(ExperimentConfig(), {"pretrain": {}, "segment": {}})
    for key in keys_of(Bookkeeping):
        value = flatten(config)[key]
        other = not value if isinstance(value, bool) else value + 7 if isinstance(value, (int, float)) else f"{value}x"
        changed = override(config, {key: other})
        assert digest(changed) == digest(config), key
    assert digest(override(config, {"seed": 1})) != digest(config)
    assert "seed" in keys_of(Identifies)


def test_a_population_may_change_what_a_checkpoint_does_not_hold() -> None:
    live = keys_of(Live)
    assert {"data.max_skip", "data.augmentation", "method.backward", "optimizer.learning_rate"} <= live
    assert not live & {"method.name", "optimizer.name", "optimizer.backbone_multiplier", "optimizer.decay_embeddings"}


@dataclass(frozen=True, kw_only=True)
class Younger(ExperimentConfig):
    """A configuration with two settings that earlier ones lacked."""

    kept: Annotated[int, Computes, Added(before=1)] = 1
    changed: Annotated[int, Computes, Added(before=1)] = field(default=2)


def test_an_added_setting_leaves_the_digest_of_what_was_done_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ovos_ray.config.digest.ExperimentConfig", Younger)
    assert digest(Younger(changed=1)) == digest(ExperimentConfig())
    assert len({digest(Younger()), digest(Younger(kept=3, changed=1)), digest(ExperimentConfig())}) == 3
