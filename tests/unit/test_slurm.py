"""The script of `submit --slurm`, run with stand-ins for Slurm and Ray. With a real Ray: test_slurm_ray.py."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import fake_slurm
import pytest
from conftest import REPOSITORY
from processes import wait_for
from typer.testing import CliRunner

from ovos_ray.cli.app import app
from ovos_ray.errors import ClusterError, ConfigError
from ovos_ray.on_ray.slurm import SlurmJob, queue

_RAY = """#!/bin/bash
echo "$@" >> "$SLURM_HOME/started"
[ -z "${NO_RAY:-}" ] || { echo "no ray today"; exit 3; }
[[ "$*" == *--head* ]] || exec sleep 60
exec REAL -c 'import socket, sys, time
s = socket.create_server(("127.0.0.1", int(sys.argv[1])))
time.sleep(60)' "$(sed 's/.*--port=//; s/ .*//' <<< "$*")"
"""
_PYTHON = """#!/bin/bash
if [ "$1" = -c ]; then exec REAL "$@"; fi
trap 'echo stopped > "$SLURM_HOME/stopped"; kill $!; exit 143' TERM
printf '%s\\n' "$@" > "$SLURM_HOME/arguments"
echo "$RAY_ADDRESS $RAY_AUTH_MODE ${#RAY_AUTH_TOKEN}" > "$SLURM_HOME/environment"
until [ "$(wc -l < "$SLURM_HOME/started")" -ge "${NODES:-1}" ]; do sleep 0.05; done
sleep "${LASTS:-0}" & wait $!
exit 7
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with stand-ins for everything that the script calls."""
    fake_slurm.install(tmp_path / "bin")
    for name, text in {"ray": _RAY, "python": _PYTHON}.items():
        (tmp_path / "bin" / name).write_text(text.replace("REAL", sys.executable))
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("SLURM_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    return tmp_path


def job(home: Path, *arguments: str, **options: object) -> SlurmJob:
    command = ["python", "-m", "ovos_ray", "train", *arguments]
    return SlurmJob(command, str(home), str(home / "bin"), cpus_per_node=2, **options)  # type: ignore[arg-type]


def environment(**more: str) -> dict[str, str]:
    given = {"SLURM_JOB_ID": str(os.getpid()), "SLURM_JOB_NODELIST": "two", "SLURM_CPUS_PER_TASK": "2", **more}
    return {**os.environ, **given}


def has_trap(process: int, number: signal.Signals) -> bool:
    """Whether a process handles a signal, as Linux says."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
    return bool(int(status["SigCgt"], 16) >> number - 1 & 1)


def test_the_verb_runs_with_its_words_as_they_are_on_a_cluster_of_all_nodes(home: Path) -> None:
    words = ["mine.recipe", "name=it's one", "data.shards=a b", "x=$(touch oops)", "y='; exit'"]
    script = job(home, *words, nodes=2, gpus_per_node=4).script()
    done = subprocess.run(
        ["bash", "-c", script], env=environment(SLURM_GPUS_ON_NODE="4", NODES="2"), timeout=60, capture_output=True
    )
    assert done.returncode == 7, done.stderr  # the verb's own
    assert (home / "arguments").read_text().splitlines() == ["-m", "ovos_ray", "train", *words]
    port = 20000 + os.getpid() % 10000
    assert (home / "environment").read_text() == f"127.0.0.1:{port} token 64\n"
    started = (home / "started").read_text()
    assert f"--head --port={port}" in started
    assert f"--address=127.0.0.1:{port}" in started
    assert started.count("--num-cpus=2 --num-gpus=4") == 2
    assert not (home / "oops").exists()
    assert not Path(f"/tmp/ovos-{os.getpid()}").exists()


def test_at_the_limit_the_verb_ends_and_the_job_is_queued_again(home: Path) -> None:
    (home / "job.sh").write_text("exit 0")  # what the second launch runs
    script = job(home, nodes=2).script()
    running = subprocess.Popen(["bash", "-c", script], env=environment(LASTS="60"), stdout=subprocess.PIPE, text=True)
    wait_for(lambda: (home / "environment").exists() and has_trap(running.pid, signal.SIGUSR1), 30)
    os.kill(running.pid, signal.SIGUSR1)
    output, _ = running.communicate(timeout=30)
    assert running.returncode == 0
    assert (home / "stopped").exists()
    assert (home / "launches").read_text() == "launched\n"
    assert "queued again" in output


def test_a_head_that_does_not_start_says_why(home: Path) -> None:
    done = subprocess.run(
        ["bash", "-c", job(home).script()], env=environment(NO_RAY="1"), timeout=60, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "no ray today" in done.stdout
    assert not (home / "arguments").exists()


def test_directives_are_what_was_asked_for(home: Path) -> None:
    asked = job(home, partition="gpu", time="24:00:00", nodes=3, gpus_per_node=0, more=["--mem=64G"])
    lines = [line for line in asked.script().splitlines() if line.startswith("#SBATCH ")]
    wanted = ["--partition=gpu", "--time=24:00:00", "--nodes=3", "--cpus-per-task=2", "--mem=64G", "--requeue"]
    assert {f"#SBATCH {one}" for one in wanted} <= set(lines)
    assert not any("gpus" in line for line in lines)
    subprocess.run(["bash", "-n"], input=asked.script(), text=True, check=True)


@pytest.mark.parametrize("option", ["account=me", "--mem=1\nrm -rf x"])
def test_what_is_no_option_of_sbatch_is_refused(home: Path, option: str) -> None:
    with pytest.raises(ConfigError, match="not an option of sbatch"):
        job(home, more=[option]).script()


def test_without_sbatch_it_says_what_to_do(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "bin" / "sbatch").write_text("#!/bin/bash\necho 'sbatch: error: invalid partition' >&2; exit 1")
    with pytest.raises(ClusterError, match="invalid partition"):
        queue(job(home))
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ClusterError, match="no sbatch"):
        queue(job(home))


def test_print_shows_the_script_and_checks_the_verb(home: Path) -> None:
    good = ["submit", "--slurm", "--print", "--partition", "gpu", "--", "train", "trainables.one_shot", "seed=1"]
    shown = CliRunner().invoke(app, good)
    assert shown.exit_code == 0, shown.output
    assert "python -m ovos_ray train trainables.one_shot seed=1 &" in shown.output
    assert not (home / "launches").exists()
    refused = CliRunner().invoke(app, ["submit", "--slurm", "--print", "--", "trian", "trainables.one_shot"])
    assert refused.exit_code != 0
    assert "no verb" in refused.output
    assert CliRunner().invoke(app, ["submit", "--slurm", "--", "sweep", "search_spaces.smoke", "--no-ray"]).exit_code


def test_imagenet_weights_are_fetched_before_the_job_is_queued(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    provided: list[str] = []
    monkeypatch.setattr("ovos_ray.run.initial.provide_initial", lambda config: provided.append(config.network.name))
    (home / "bin" / "launch").write_text("#!/bin/bash\n")  # queued, and never begun: a job would start Ray
    sent = CliRunner().invoke(app, ["submit", "--slurm", "--", "train", "trainables.one_shot.xmem", "storage=runs"])
    assert sent.exit_code == 0, sent.output
    assert "job 4321" in sent.output
    assert provided == ["xmem", "xmem"]  # of its stage 0, and its own
    provided.clear()
    (home / "run.yaml").write_text("recipe: trainables.one_shot.xmem\n")
    sent = CliRunner().invoke(app, ["submit", "--slurm", "--", "train", str(home / "run.yaml"), "storage=runs"])
    assert sent.exit_code == 0, sent.output
    assert provided == ["xmem", "xmem"], "a file of settings is trained too"
    provided.clear()
    CliRunner().invoke(app, ["submit", "--slurm", "--", "sweep", "search_spaces.backward_strategy.paper"])
    assert {"stcn", "xmem", "cutie-base"} <= set(provided)


def test_the_file_of_deploy_is_what_submit_writes() -> None:
    command = "sweep search_spaces.backward_strategy data.shards=shards/davis2017 evaluation.root=DAVIS/2017"
    written = SlurmJob(
        ["python", "-m", "ovos_ray", *command.split()],
        "/home/ME/ovos_ray",
        "/home/ME/ovos_ray/.venv/bin",
        partition="gpu",
        time="24:00:00",
        nodes=2,
        gpus_per_node=4,
        cpus_per_node=32,
        made_by=f"Made by: ovos-ray submit --slurm … -- {command}",
    ).script()
    assert (REPOSITORY / "deploy" / "slurm.sbatch").read_text() == written


@pytest.mark.parametrize("made", ["link", "file"])
def test_a_folder_that_somebody_else_made_is_not_taken(home: Path, made: str) -> None:
    """Ray's sockets and logs lie there: whoever owns it is who runs the job's tasks."""
    folder, trap = Path(f"/tmp/ovos-{os.getpid()}"), home / "trap"
    trap.mkdir()
    folder.symlink_to(trap) if made == "link" else folder.touch()
    try:
        done = subprocess.run(["bash", "-c", job(home).script()], env=environment(), timeout=60, capture_output=True)
        assert done.returncode == 1, done.stderr
        assert b"somebody else" in done.stdout
        assert not (home / "arguments").exists()
        assert list(trap.iterdir()) == []
    finally:
        folder.unlink()
