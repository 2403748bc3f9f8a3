"""`ovos-ray status`: what a folder says of a study, against numbers by hand, and against a study that was made."""

from __future__ import annotations

import errno
import functools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny_study import make_dataset, tiny_config
from typer.testing import CliRunner

from ovos_ray.cli.app import app
from ovos_ray.cli.status import sparkline
from ovos_ray.errors import ConfigError, DataError
from ovos_ray.io import exclusive
from ovos_ray.run.here import fit_here
from ovos_ray.storage import Storage
from ovos_ray.study import status
from ovos_ray.study.expand import expand
from ovos_ray.study.run_study import run_study
from ovos_ray.study.space import SearchSpace
from ovos_ray.study.status import read_study, write_plan


def put(
    folder: Path, *, steps: int = 100, gpus: float = 0.0, times: dict[int, int] | None = None, **files: object
) -> None:
    """Writes a run's folder as a run writes it: 2 workers; `times` are seconds by step, with a loss of 1 / step."""
    train = {"steps": steps, "num_workers": 2, "gpus_per_worker": gpus, "cpus_per_worker": 3.0}
    (folder / "tracking" / "s" / "files").mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"config": {"train": train}}))
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    identity = {"tracking_uri": "sqlite:///m.db", "experiment": "e", "run_key": "k", "name": "n"}
    (folder / "tracking" / "s" / "run.json").write_text(json.dumps(identity))
    lines = [{"kind": "status", "time_ms": 1_000_000, "data": {"status": "RUNNING"}}]
    for step, after_s in (times or {}).items():
        data = {"step": step, "values": {"train/loss": 1 / step, "val/jf": 10.0 + step}}
        lines.append({"kind": "metrics", "time_ms": 1_000_000 + 1000 * after_s, "data": data})
    records = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "tracking" / "s" / "records.jsonl").write_text(records)


def make_study(root: Path) -> Path:
    """One trial of each state; 10 s for 10 steps in what runs, after 20 s of starting up."""
    study = root / "runs" / "mine"
    places = {f"T {state}": state for state in ("done", "dropped", "broken", "going", "cut", "later")}
    study.mkdir(parents=True)
    write_plan(Storage(str(study)), "mine", "val/jf", places)
    done = {"steps": 100, "seconds": 1800.0, "scores": {"jf": 71.25}}
    put(study / "done", gpus=1.0, times={50: 60, 100: 110}, result=done)
    put(study / "dropped", gpus=1.0, result={"steps": 40, "seconds": 900.0, "scores": {}, "stopped": True})
    put(study / "broken", gpus=1.0, failure={"error": "DataError", "reason": "a frame is \x1b[31m gone"})
    put(study / "going", gpus=1.0, times={10: 20, 20: 30})
    put(study / "cut", gpus=1.0, times={10: 20, 30: 40})
    return study


def test_every_state_and_sum_is_what_the_files_say(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    with exclusive(study / "going" / "lock"):
        status = read_study(str(study))
    runs = {run.name.removeprefix("T "): run for run in status.runs}
    assert {name: run.state for name, run in runs.items()} == {
        "done": "finished",
        "dropped": "stopped",
        "broken": "failed",
        "going": "running",
        "cut": "interrupted",
        "later": "waiting",
    }
    assert (runs["going"].step, runs["going"].steps, runs["cut"].step) == (20, 100, 30)
    assert runs["going"].left_s == pytest.approx(80.0)  # 1 s a step
    assert runs["cut"].left_s == pytest.approx(70.0)
    assert runs["going"].progress.curves["train/loss"] == [(10, 0.1), (20, 0.05)]
    assert runs["going"].score == 30.0  # of its last validation
    assert status.best is not None
    assert status.best.name == "T done"
    assert "gone" in runs["broken"].reason
    # 2 GPUs: 1800 s, 900 s, 30 s, 40 s
    assert status.hours == {"GPU": pytest.approx(2 * 2770 / 3600), "CPU": 0.0}
    # One at a time: 80 s, 70 s, and 100 steps of one that has not begun, at the mean of 1 s a step
    assert status.left_s == pytest.approx(80 + 70 + 100)


def test_the_best_is_compared_by_the_studys_metric_alone(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    put(
        study / "better",
        times={80: 1, 90: 2},
        result={"steps": 100, "scores": {"jf": 80.0}, "validation": {"jf": 99.0}},
    )
    for metric, best, score in (("final/jf", "T better", 80.0), ("val/jf", "T done", 110.0)):
        write_plan(Storage(str(study)), "mine", metric, {"T done": "done", "T better": "better", "T going": "going"})
        found = read_study(str(study)).best
        assert found is not None
        assert (found.name, found.compared) == (best, score)
    for part, (score, end) in {"00-generation-00": (60.0, 5), "00-generation-01": (50.0, 9)}.items():
        result = {"steps": end, "scores": {}, "validation": {"jf": score}}
        put(tmp_path / "pbt" / f"member-{part}", steps=end, result=result)
    write_plan(Storage(str(tmp_path / "pbt")), "pbt", "val/jf", {"member 00 generation 01": "member-00-generation-01"})
    found = read_study(str(tmp_path / "pbt")).best
    assert found is not None
    assert found.compared == 50.0, "an earlier part is not what the study makes"


def test_a_bucket_that_fails_once_is_asked_again_and_one_that_is_away_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, asked = Storage(str(tmp_path)), list[str]()
    real = place.fs

    class Bucket:
        fails = 1

        def get_file_info(self, path: str) -> Any:
            asked.append(path)
            if len(asked) <= self.fails:
                raise OSError(errno.ECONNRESET, "Connection reset by peer")
            return real.get_file_info(path)

    place.put(b"somebody", "lease")
    place.local, place.fs = False, Bucket()
    monkeypatch.setattr("ovos_ray.storage.PATIENCE_S", 1.0)
    assert status._held(place) is True
    assert len(asked) == 2
    Bucket.fails = 10_000
    assert status._held(place) is None


def test_without_a_lock_that_is_held_nothing_runs(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    with exclusive(study / "going" / "lock"):
        pass
    status = read_study(str(study))
    assert status.count("running") == 0
    assert status.count("interrupted") == 2
    assert status.left_s is None


def test_a_pipe_gets_whole_plain_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_study(tmp_path)
    monkeypatch.chdir(tmp_path)
    shown = CliRunner().invoke(app, ["status", "mine"])  # by its name below runs/
    assert shown.exit_code == 0, shown.output
    assert "T done" in shown.output
    assert "71.2" in shown.output
    assert "\x1b" not in shown.output
    assert "best so far T done with 110.0 on the selection split" in shown.output
    assert "failed: T broken: DataError: a frame is \\x1b[31m gone" in shown.output


def test_watching_ends_with_the_study(tmp_path: Path) -> None:
    put(tmp_path / "one", result={"steps": 100, "seconds": 36.0, "scores": {"jf": 50.0}})
    shown = CliRunner().invoke(app, ["status", str(tmp_path / "one"), "--watch"])
    assert shown.exit_code == 0, shown.output
    assert "1 finished" in shown.output


def test_a_folder_without_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no study and no run"):
        read_study(str(tmp_path))
    study = make_study(tmp_path)
    with pytest.raises(ConfigError, match=str(study)):
        read_study(str(study.parent))


@pytest.mark.parametrize("name", ["config.json", "result.json", "failure.json", "tracking/s/records.jsonl"])
def test_a_damaged_file_hides_no_other_run(tmp_path: Path, name: str) -> None:
    study = make_study(tmp_path)
    (study / "going" / name).write_bytes(b'{"config": \xff')
    assert read_study(str(study)).count("finished") == 1


@pytest.mark.slow
def test_a_study_that_was_made_reads_as_its_results_say(tmp_path: Path) -> None:
    make_dataset(tmp_path)
    space = SearchSpace(name="s", trainable="none", axes={"method.backward": ("2-step", "1-step")}, seeds=(0,))
    trials = expand(space, tiny_config(tmp_path, steps=10))[0]
    run_study(space, trials, lambda *_: None)
    folder = trials[0].config.storage
    assert read_study(folder).count("waiting") == 2

    def first_only(_: object, __: object, requests: dict[str, object], lease: object) -> None:
        fit_here(requests[trials[0].name])  # type: ignore[arg-type]

    run_study(space, trials, functools.partial(first_only))
    status = read_study(folder)
    assert [run.state for run in status.runs] == ["finished", "waiting"]
    assert [run.name for run in status.runs] == [trial.name for trial in trials]
    result = json.loads((Path(folder) / trials[0].config.name / "result.json").read_text())
    assert status.runs[0].score == result["scores"]["jf"]
    assert [step for step, _ in status.runs[0].progress.curves["train/loss"]] == [5, 10]


def test_neither_ray_nor_torch_is_imported(tmp_path: Path) -> None:
    put(tmp_path / "one")
    code = (
        "import sys; from ovos_ray.cli.status import status; "
        f"status({str(tmp_path / 'one')!r}, watch=False, every=1.0); "
        "assert not {'ray', 'torch', 'mlflow'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_sparklines_span_from_lowest_to_highest() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"
    assert sparkline([3.0]) == "▁"
    assert sparkline([1, 1, 9, 9], width=2) == "▁█"
    assert sparkline([0.0, float("nan"), 1.0]) == "▁ █"
    assert sparkline([]) == ""


def test_a_strangers_study_leads_nowhere_and_says_no_nonsense(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    put(tmp_path / "victim", result={"steps": 1, "scores": {"jf": 99.0}})
    plan = json.loads((study / "study.json").read_text())
    for impossible in (5, {"a": 1}, ["s3://elsewhere/secret", "gs://elsewhere/x"]):
        (study / "study.json").write_text(json.dumps(plan | {"pretrainings": impossible}))
        assert len(read_study(str(study)).runs) == 6
    (study / "study.json").write_text(json.dumps(plan | {"pretrainings": ["1" * 5000, "\ud800"]}))
    assert len(read_study(str(study)).runs) == 8
    for place in ("../../victim", "/etc", "", 7):
        (study / "study.json").write_text(json.dumps(plan | {"trials": {"T": place}}))
        with pytest.raises(DataError, match="trial's folder"):
            read_study(str(study))
    (study / "study.json").write_text(json.dumps(plan))
    values: list[object] = [[], "x", None, {"train": []}, {"train": {"gpus_per_worker": "x"}}, {"train": {"steps": []}}]
    for value in values:
        (study / "going" / "config.json").write_text(json.dumps({"config": value}))
        assert read_study(str(study)).count("finished") == 1
    for scores in ([], {"jf": "x"}, {"jf": []}, 7):
        (study / "done" / "result.json").write_text(json.dumps({"steps": 1, "scores": scores}))
        assert len(read_study(str(study)).runs) == 6
