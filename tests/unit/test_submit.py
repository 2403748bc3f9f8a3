"""What `ovos-ray submit` checks before anything is sent, and how it follows a job. A real cluster: test_jobs_ray.py."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import REPOSITORY
from typer.testing import CliRunner

from ovos_ray.cli.app import app
from ovos_ray.cli.console import console
from ovos_ray.errors import ClusterError, ConfigError, ResourceError
from ovos_ray.on_ray import job_client
from ovos_ray.on_ray.job_client import connect, follow
from ovos_ray.on_ray.job_environment import job_environment, parse_environment
from ovos_ray.on_ray.job_package import JobPackage
from ovos_ray.on_ray.job_paths import refuse_relative_paths

MIB = 2**20


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with code, data, caches and ignore files in several places."""
    for name, size in {
        "recipes/mine.py": 100,
        "recipes/weights.bin": 3 * MIB,
        "videos/cat/frames.mp4": 5 * MIB,
        "videos/dog/frames.mp4": 2 * MIB,
        "runs/one/state.pt": 9 * MIB,
        "notes/.gitignore": 0,
        "notes/keep.md": 10,
        "notes/drop.log": 10,
        "big.log": 4 * MIB,
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * size)
    (tmp_path / ".gitignore").write_text("*.log\n")
    (tmp_path / ".rayignore").write_text("runs\n")
    (tmp_path / "notes" / ".gitignore").write_text("drop.*\n")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_package_is_what_ray_packs(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    from ray._private.runtime_env.packaging import create_package

    archive = tmp_path_factory.mktemp("archive") / "a.zip"
    create_package(str(folder), archive, include_gitignore=True, excludes=["dog"])
    packed = {info.filename: info.file_size for info in zipfile.ZipFile(archive).infolist() if not info.is_dir()}
    package = JobPackage.of(folder, ["dog"])
    assert package.sizes == packed
    assert "videos/cat/frames.mp4" in packed
    assert not {"runs/one/state.pt", "big.log", "notes/drop.log", "videos/dog/frames.mp4"} & packed.keys()
    assert package.mib == pytest.approx(archive.stat().st_size / MIB, rel=0.01)


def test_secrets_and_what_links_bring_in_are_not_sent(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray._private.runtime_env.packaging import create_package

    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "private.txt").write_text("a diary")
    secrets = [
        ".env",
        ".env.local",
        "token",
        "my cluster [1].token",
        ".aws/credentials",
        "recipes/.ssh/config",
        "a.pem",
        ".ray/auth_token",
        "ray_token",
    ]
    for name in [*secrets, "token.py", "recipes/environment.py", "tokens.txt", "the-cluster's"]:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("s3cret")
    (folder / "link").symlink_to(elsewhere)
    (folder / "notes/diary.txt").symlink_to(elsewhere / "private.txt")
    (folder / "notes/mine.py").symlink_to(folder / "recipes/mine.py")
    (folder / "notes/settings.txt").symlink_to(folder / ".env")
    (folder / "notes/cloud").symlink_to(folder / ".aws")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(folder / "the-cluster's"))

    package = JobPackage.of(folder)
    archive = tmp_path_factory.mktemp("archive") / "a.zip"
    create_package(str(folder), archive, include_gitignore=True, excludes=package.patterns())
    sent = {info.filename for info in zipfile.ZipFile(archive).infolist() if not info.is_dir()}
    assert sent == package.sizes.keys()
    assert {"token.py", "tokens.txt", "recipes/environment.py", "notes/mine.py", "recipes/mine.py"} <= sent
    assert not {*secrets, "the-cluster's"} & sent
    assert not any(name.startswith(("link", "notes/diary", "notes/settings", "notes/cloud")) for name in sent)
    assert package.left_out[".env"] == "a secret"
    assert package.left_out["link"] == "a link that leads elsewhere"
    assert package.left_out_text().count(" (") == 10


def test_package_of_the_checkout_is_small_and_holds_all_code() -> None:
    package = JobPackage.of(REPOSITORY)
    rooms = ("ovos_ray", "trainables", "search_spaces", "datasets")
    files = [path for room in rooms for path in (REPOSITORY / room).rglob("*") if path.is_file()]
    needed = {path.relative_to(REPOSITORY).as_posix() for path in files if "__pycache__" not in path.parts}
    assert needed <= package.sizes.keys()
    assert not any(name.startswith(("tests/", ".git/")) for name in package.sizes)
    assert package.mib < 10


def test_large_package_is_refused_with_a_remedy_that_works(folder: Path) -> None:
    package = JobPackage.of(folder)
    package.check(limit_mib=11)
    with pytest.raises(ResourceError, match=r"10 MiB of \d+ files.*videos/cat/frames.mp4 \(5.0 MiB\)") as caught:
        package.check(limit_mib=4)
    assert "/videos/" in str(caught.value.remedy)
    assert "/recipes/" not in package.to_ignore(), "a folder with code is not to be ignored"
    with open(folder / ".rayignore", "a") as file:
        file.write("\n".join(package.to_ignore()[:2]) + "\n")
    after = JobPackage.of(folder)
    after.check(limit_mib=4)
    assert "recipes/mine.py" in after.sizes


@pytest.mark.parametrize("arguments", [{"storage": "runs"}, {"storage": "/mnt/runs", "data.shards": "/a,b"}])
def test_relative_settings_are_refused_in_a_job(arguments: dict[str, str]) -> None:
    good = {"data.shards": "/a,s3://bucket/b", "storage": "s3://bucket/runs", "tracking_uri": "http://host:5000"}
    parameters = {"search_space": "search_spaces.smoke"}
    overrides = [f"{key}={value}" for key, value in {**good, **arguments}.items()]
    with pytest.raises(ConfigError, match=r"relative paths.*(storage = runs|data.shards = /a,b)"):
        refuse_relative_paths({**parameters, "overrides": overrides})
    refuse_relative_paths({**parameters, "overrides": [f"{key}={value}" for key, value in good.items()]})


def test_what_a_recipe_leaves_relative_is_refused_and_the_remedy_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError) as caught:
        refuse_relative_paths({"trainable": "trainables.one_shot", "overrides": ["data.shards=here"]})
    remedy = str(caught.value.remedy)
    assert "http://HOST:5000" in remedy
    written = [word.rstrip(";") for word in remedy.split() if "=/" in word or "=sqlite:" in word]
    assert {word.partition("=")[0] for word in written} == {"data.shards", "storage", "tracking_uri"}
    refuse_relative_paths({"trainable": "trainables.one_shot", "overrides": written})


def test_every_relative_path_of_a_study_is_named_and_the_remedy_is_accepted() -> None:
    parameters = {"search_space": "search_spaces.networks.paper", "overrides": ["seeds=0,1"]}
    with pytest.raises(ConfigError) as caught:
        refuse_relative_paths(parameters)
    written = [word.rstrip(";") for word in str(caught.value.remedy).split() if "=/" in word or "=sqlite:" in word]
    keys = {"data.shards", "evaluation.root", "evaluation.also", "storage", "tracking_uri"}
    assert {word.partition("=")[0] for word in written} == keys
    assert f"evaluation.also=davis2016={Path.cwd()}/DAVIS/2016," in str(caught.value.remedy)
    refuse_relative_paths({**parameters, "overrides": ["seeds=0,1", *written]})


def test_paths_of_other_verbs_are_refused_too() -> None:
    with pytest.raises(ConfigError, match="--out = masks") as caught:
        refuse_relative_paths({"out": Path("masks"), "root": Path("/data"), "split": "val"})
    assert f"--out {Path.cwd() / 'masks'}" in str(caught.value.remedy)
    refuse_relative_paths({"out": Path("/masks"), "checkpoint": Path("s3://bucket/run")})
    with pytest.raises(ConfigError, match="--tracking-uri"):
        refuse_relative_paths({"out": Path("/r"), "tracking_uri": "sqlite:///mlflow.db"})


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["sweap", "x"], "there is no verb 'sweap'"),
        (["submit", "--", "ls"], "there is no verb 'submit'"),
        (["predict", "--oout", "/x"], "--oout"),
    ],
)
def test_wrong_command_lines_are_found_before_anything_is_sent(
    command: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_client, "connect", lambda *_: pytest.fail("the cluster was asked"))
    result = CliRunner().invoke(app, ["submit", "--", *command])
    assert result.exit_code == 2
    assert said in result.output


def test_wrong_settings_are_found_before_anything_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_client, "connect", lambda *_: pytest.fail("the cluster was asked"))
    result = CliRunner().invoke(app, ["submit", "--", "train", "trainables.one_shot", "train.stepz=3"])
    assert isinstance(result.exception, ConfigError)
    assert "train.stepz" in result.exception.message


def test_environment_brings_program_dependencies_commit_and_variables(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OVOS_GIT_COMMIT", "f" * 40)
    monkeypatch.setenv("SECRET", "s")
    environment, variables = parse_environment('{"env_vars": {"A": "1", "B": "1"}, "pip": ["av"]}', ["B=2", "SECRET"])
    made = job_environment(environment, variables, install=True)
    assert made["working_dir"] == str(folder)
    assert made["env_vars"] == {"OVOS_GIT_COMMIT": "f" * 40, "A": "1", "B": "2", "SECRET": "s"}
    (program,) = made["py_modules"]
    assert (Path(program) / "cli" / "submit.py").is_file(), "a folder of recipes alone: the program travels along"
    names = {line.split(">")[0].split("<")[0] for line in made["pip"]}
    assert {"torch", "mlflow", "typer", "av"} <= names
    assert "ray" not in names, "the cluster's own version of Ray stays"
    assert "matplotlib" not in names, "extras stay out"


def test_checkout_is_sent_as_it_is() -> None:
    assert not {"py_modules", "pip"} & job_environment().keys()


@pytest.mark.parametrize("text", ["no such file", "[1, 2]", "{a: ["])
def test_unreadable_environment_is_a_named_error(text: str) -> None:
    with pytest.raises(ConfigError, match="runtime environment"):
        parse_environment(text, [])
    with pytest.raises(ConfigError, match="NOWHERE_SET"):
        parse_environment(None, ["NOWHERE_SET"])


def test_cluster_that_does_not_answer_is_a_named_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:8")
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "")
    with pytest.raises(ClusterError, match=r"127\.0\.0\.1:9"):  # what is asked for comes before the variables
        connect("http://127.0.0.1:9")
    with pytest.raises(ClusterError, match="no token file"):
        connect("http://127.0.0.1:9", tmp_path / "absent")


def test_token_alone_is_sent_although_ray_asks_for_a_mode_too() -> None:
    code = (
        "from ovos_ray.on_ray.job_client import use_token\n"
        "use_token()\n"
        "from ray._private.authentication.http_token_authentication import get_auth_headers_if_auth_enabled\n"
        "print(get_auth_headers_if_auth_enabled({}))\n"
    )
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    for token, sent in (({}, False), ({"RAY_AUTH_TOKEN": "sesame" * 4}, True)):
        environment = {**clean, "PYTHONPATH": str(REPOSITORY), **token}
        said = subprocess.check_output([sys.executable, "-c", code], env=environment, text=True)
        assert ("Bearer sesame" in said) is sent


def test_address_of_a_job_server_is_no_cluster_to_attach_to(monkeypatch: pytest.MonkeyPatch) -> None:
    from ovos_ray.on_ray.session import ray_session

    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:8265")
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    with pytest.raises(ClusterError, match="where jobs are submitted") as caught, ray_session():
        pass
    assert "ovos-ray submit --" in str(caught.value.remedy)


class Job:
    """A job server whose connections break."""

    def __init__(
        self, connections: list[list[str | BaseException]], status: str = "SUCCEEDED", code: int | None = 0
    ) -> None:
        self.connections = connections
        self.status, self.code = status, code

    async def tail_job_logs(self, job: str) -> AsyncIterator[str]:
        for part in self.connections.pop(0):
            if isinstance(part, BaseException):
                raise part
            yield part

    def get_job_info(self, job: str) -> Any:
        status = _Status(self.status, terminal=not self.connections)
        return SimpleNamespace(status=status, driver_exit_code=self.code, message="no image")


class _Status(str):
    def __new__(cls, text: str, *, terminal: bool) -> _Status:
        made = super().__new__(cls, text)
        made.terminal = terminal
        return made

    terminal: bool

    def is_terminal(self) -> bool:
        return self.terminal


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_client.time, "sleep", lambda seconds: None)


def test_log_is_printed_once_over_broken_connections(capsys: pytest.CaptureFixture[str]) -> None:
    job = Job([["one\ntw", RuntimeError("closed")], ["one\n", "two\nthr"], [OSError("away")], ["one\ntwo\nthree\n"]])
    assert follow(job, "j", console) == 0
    assert capsys.readouterr().out == "one\ntwo\nthree\njob j succeeded\n"


@pytest.mark.parametrize(
    ("status", "code", "exit_status"),
    [("FAILED", 3, 3), ("FAILED", -9, 137), ("FAILED", None, 1), ("STOPPED", None, 1)],
)
def test_exit_status_is_the_job_s(
    status: str, code: int | None, exit_status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert follow(Job([["log\n"]], status, code), "j", console) == exit_status
    assert ("no image" in capsys.readouterr().out) == (status == "FAILED" and code is None)


def test_interrupting_leaves_the_job_and_says_how_to_follow_it(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    class Client(Job):
        def list_jobs(self) -> list[Any]:
            return []

        def get_address(self) -> str:
            return "http://head"

        def submit_job(self, *, submission_id: str, runtime_env: dict[str, Any], **_: Any) -> str:
            assert runtime_env["excludes"] == ["/.env"]
            return submission_id

    (folder / ".env").write_text("PASSWORD=s3cret")
    client = Client([["log\n", KeyboardInterrupt()]])
    monkeypatch.setattr(job_client, "connect", lambda *_: client)
    result = CliRunner().invoke(app, ["submit", "--submission-id", "mine", "--", "ls"])
    assert result.exit_code == 130
    said = result.output
    assert "not sent: .env (a secret)" in said
    assert "the job goes on" in said
    assert said.count("ray job logs --follow mine") == said.count("ray job stop mine") == 2


def test_second_job_of_the_same_command_is_refused(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    class Client(Job):
        def list_jobs(self) -> list[Any]:
            return [
                SimpleNamespace(
                    entrypoint="python -m ovos_ray ls", submission_id="first", status=_Status("RUNNING", terminal=False)
                )
            ]

    monkeypatch.setattr(job_client, "connect", lambda *_: Client([]))
    result = CliRunner().invoke(app, ["submit", "--", "ls"])
    assert isinstance(result.exception, ClusterError)
    assert "first runs the same command" in result.exception.message
    assert "ray job stop first" in str(result.exception.remedy)
