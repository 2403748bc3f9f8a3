"""Whether decoding feeds a worker: by hand-made arithmetic, at an injected pace, and said in a line of the dry run."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import pytest
from tiny_study import make_dataset, tiny_config
from typer.testing import CliRunner

from ovos_ray.cli.app import app
from ovos_ray.cli.decoding import describe, describe_gpus, print_decoding
from ovos_ray.config import ExperimentConfig, override
from ovos_ray.config.recipes import make
from ovos_ray.data.clips.decode import ClipDecoder
from ovos_ray.errors import DataError
from ovos_ray.run import feeding
from ovos_ray.run.estimate import Cost
from ovos_ray.run.feeding import Feeding, clip_seconds
from ovos_ray.study.price import Group
from ovos_ray.study.space import Trial

H100 = Cost(1.0, 100.0, "cuda, a stored H100", 1)
"""100 steps in 100 s."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("feeding"))


@pytest.fixture
def pace(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock that stands still but where a clip is decoded: `seconds` each, of the first one a hundred."""
    state = SimpleNamespace(now=0.0, seconds=0.5, positions=[])
    real = ClipDecoder.__call__

    def slowly(self: ClipDecoder, clip: object, out: None = None) -> object:
        state.now += state.seconds if state.positions else 100.0
        state.positions.append(clip.position)  # type: ignore[attr-defined]
        state.further_labels = self.further_labels
        return real(self, clip, out)  # type: ignore[arg-type]

    def now() -> float:
        return float(state.now)

    monkeypatch.setattr(ClipDecoder, "__call__", slowly)
    monkeypatch.setattr(feeding, "time", SimpleNamespace(process_time=now, perf_counter=lambda: 0.0))
    return state


def gpu_run(root: Path, **changes: object) -> ExperimentConfig:
    given = {"train.gpus_per_worker": 1.0, "train.cpus_per_worker": 1.0, "data.batch_size": 4}
    return override(tiny_config(root, steps=100), {**given, **{k.replace("__", "."): v for k, v in changes.items()}})


def test_a_clip_costs_what_it_takes_once_files_are_open_all_over_the_run(root: Path, pace: SimpleNamespace) -> None:
    assert clip_seconds(gpu_run(root)) == pytest.approx(0.5)
    assert pace.positions == [0, 49, 99, 149, 199, 249, 299, 349, 399]


def test_the_labels_that_a_method_compares_are_decoded_too(root: Path, pace: SimpleNamespace) -> None:
    for choice in ("compare", "ignore"):
        clip_seconds(gpu_run(root, method__further_labels=choice))
        assert pace.further_labels == (choice == "compare")


def test_measuring_ends_in_time(root: Path, pace: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeding.time, "perf_counter", lambda: pace.now)
    assert clip_seconds(gpu_run(root)) == pytest.approx(0.5)
    assert len(pace.positions) == 2, "the first clip took long enough, and says nothing"


@pytest.mark.parametrize(
    ("decoders", "clip_s", "step_s", "per_s", "shortest", "needed"),
    [
        # k decoders and the worker's thread share k CPUs: each of k + 1 threads has k / (k + 1) of one.
        (1, 0.5, 8.0, 1.0, 4.0, 1),  # half a CPU: 1 clip/s, so 4 clips take 4 s; half the step
        (1, 0.5, 4.0, 1.0, 4.0, 1),  # just so
        (1, 0.5, 3.0, 1.0, 4.0, 2),  # 2/3 of a CPU: 1² / 2 is too little, 2² / 3 enough
        (4, 0.2, 0.25, 16.0, 0.25, 4),  # 3.2 of 4 CPUs
        (4, 0.2, 0.2, 16.0, 0.25, 5),  # 4 CPUs' work needs 25 / 6
        (15, 0.0234375, 0.01, 600.0, 4 / 600, 11),  # 225 / 16 CPUs; 9.375 are needed, 11² / 12 = 10.1, 10² / 11 = 9.1
    ],
)
def test_what_decoders_give_and_how_many_a_step_needs(
    decoders: int, clip_s: float, step_s: float, per_s: float, shortest: float, needed: int
) -> None:
    found = Feeding(clip_s, 4, decoders, False, step_s)
    assert found.decoded_per_s == pytest.approx(per_s)
    assert found.shortest_step_s == pytest.approx(shortest)
    assert found.decoders_needed == needed


def test_a_step_counts_where_it_was_measured_on_what_the_run_trains_on(root: Path) -> None:
    config, node = gpu_run(root), {"CPU": 16.0, "GPU": 2.0}
    assert Feeding.of(config, 0.5, H100, [node]) == Feeding(0.5, 4, 8, False, 1.0)
    assert Feeding.of(config, 0.5, dataclasses.replace(H100, device="cpu"), [node]).step_s is None
    assert Feeding.of(config, 0.5, None, [node, {"CPU": 4.0, "GPU": 1.0}, {"CPU": 1.0}]).decoders == 4, "the poorest"
    held = Feeding.of(override(config, {"train.cpus_per_worker": 3.5}), 0.5, H100, [{"CPU": 64.0}])
    assert (held.decoders, held.at_least) == (3, True), "no node is known that has a GPU"
    chosen = override(config, {"data.decode_cpus": 5})
    for nodes in ([node], []):
        assert Feeding.of(chosen, 0.5, H100, nodes) == Feeding(0.5, 4, 5, False, 1.0, chosen=True)


def test_the_line_says_what_to_change_where_a_worker_starves() -> None:
    fed = Feeding(0.024, 4, 7, False, 0.1)
    big, small = [{"CPU": 64.0}], [{"CPU": 7.0}]
    line = describe(fed, small)
    # 49 / 8 CPUs at 24 ms.
    assert line.startswith(
        "a clip takes 24 ms of one CPU here; 7 decoders beside a worker: 255 clips/s; a step of 4 clips"
    )
    assert line.endswith(" in 0.1 s takes 40: fed")
    slow = dataclasses.replace(fed, clip_s=0.24)  # 9.6 CPUs of work: 11² / 12
    assert describe(slow, big).endswith("starves, 11 would do (train.cpus_per_worker=11; fewer workers may fit then)")
    assert "nodes with so many CPUs" in describe(slow, small)
    assert "leave out --no-ray" in describe(slow, big, no_ray=True)
    few = dataclasses.replace(slow, decoders=2, chosen=True)
    assert describe(few, big).endswith("starves, 11 would do (data.decode_cpus=11, or leave that to the node)")
    assert "starves unless a worker's part of its node is 11 CPUs" in describe(
        dataclasses.replace(slow, at_least=True), []
    )
    assert describe(dataclasses.replace(fed, step_s=None), small).endswith(
        "a worker waits for data where a step of 4 clips takes less than 0.016 s"
    )


@pytest.mark.parametrize(("seconds", "verdict"), [(0.1, "fed"), (0.5, "starves, 3 would do")])
def test_of_configurations_with_the_same_clips_the_hungriest_is_named(
    root: Path, pace: SimpleNamespace, capsys: pytest.CaptureFixture[str], seconds: float, verdict: str
) -> None:
    """Four clips a second of 0.1 s take 0.4 CPUs, and one decoder has half a one; of 0.5 s they take two: 3² / 4."""
    pace.seconds = seconds
    groups = [
        Group(name, (Trial(name, {}, gpu_run(root, method__backward=name)),)) for name in ("1-step", "2-step", "T-step")
    ]
    costs = {"1-step": H100, "2-step": dataclasses.replace(H100, seconds=120.0), "T-step": None}
    print_decoding(groups, costs, [{"CPU": 1.0, "GPU": 1.0}])
    printed = capsys.readouterr().out
    assert printed.startswith("decoding for 1-step, which needs most of 3: ")
    assert f" in 1 s takes 4: {verdict}" in printed
    assert len(pace.positions) == 9, "measured once"


def test_the_doctor_says_how_many_cpus_feed_a_gpu_with_stored_steps(root: Path, pace: SimpleNamespace) -> None:
    pace.seconds = 0.005
    xmem = make("trainables.one_shot.xmem", ExperimentConfig)
    small = {"method.backward": "2-step", "data.batch_size": 16, "data.clip_length": 4, "data.crop_size": 192}
    said = list(describe_gpus(override(xmem, {**small, "train.num_workers": 2}), str(root / "shards")))
    # 8 clips, half the frames, a quarter of the pixels: 0.025 s; 320 clips/s at 5 ms take 1.6 CPUs; 3² / 4 do.
    assert said[0] == "a clip of 4 frames at 192 pixels: 5 ms of one CPU here"
    assert said[1:] == [f"{xmem.name} on one H100: 320 clips/s (benchmarks/README.md), fed by 3 such CPUs a worker"]
    assert len(list(describe_gpus(gpu_run(root), str(root / "shards")))) == 1, "no step of a tiny network is stored"


def test_the_dry_run_of_a_run_and_of_a_study_says_it_and_a_bad_row_fails_neither(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2]))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    given = ["data.shards=shards", "data.clip_length=3", "evaluation.root=dataset", "network.name=stcn-tiny"]
    verbs = (["train", "trainables.one_shot"], ["sweep", "search_spaces.smoke", "seeds=0"])
    for verb in verbs:
        result = CliRunner().invoke(app, [*verb, *given, "--dry-run"])
        assert result.exit_code == 0, result.output
        assert "beside a worker: " in result.output
        assert result.output.rstrip().endswith("fed"), "a step on a CPU takes far longer than its clips"

    def unreadable(*_: object) -> None:
        raise DataError("frame 3 is damaged")

    monkeypatch.setattr(ClipDecoder, "__call__", unreadable)
    for verb in verbs:
        result = CliRunner().invoke(app, [*verb, *given, "--dry-run"])
        assert result.exit_code == 0
        assert "not measured: frame 3 is damaged" in result.output
