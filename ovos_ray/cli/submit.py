"""`submit`: the same verb as a job of a Ray cluster, checked here before anything is sent.

What would fail there minutes later fails here at once: unknown verbs, options and settings, paths that mean something
else on another machine, a package that is too large, a second job for the same results.
"""

from __future__ import annotations

import datetime
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ovos_ray.cli.console import console
from ovos_ray.errors import ClusterError, ConfigError
from ovos_ray.on_ray.job_client import connect, first_line, follow, use_token
from ovos_ray.on_ray.job_package import DEFAULT_LIMIT_MIB, JobPackage

__all__ = ["JobOptions", "job_environment", "parse_environment", "refuse_relative_paths", "submit"]

_INTERRUPTED = 130


@dataclass(frozen=True, kw_only=True)
class JobOptions:
    """How a job is submitted.

    Attributes:
        address: The cluster, as `http://HEAD:8265`; None: `RAY_API_SERVER_ADDRESS`, `RAY_ADDRESS`, or one on this
            machine.
        wait: Follow the job's log until it ends.
        submission_id: Name of the job; None: made of the verb and the time.
        environment: A runtime environment, as Ray knows it.
        variables: Environment variables of the job.
        install: Let pip bring the dependencies on every node.
        token_file: File with the cluster's token.
        num_cpus: CPUs of the job's own process, beside those of its workers.
        num_gpus: GPUs of the job's own process.
        max_package_mib: Largest package that is sent.
    """

    address: str | None = None
    wait: bool = True
    submission_id: str | None = None
    environment: Mapping[str, Any] | None = None
    variables: Mapping[str, str] | None = None
    install: bool = False
    token_file: Path | None = None
    num_cpus: float = 0
    num_gpus: float = 0
    max_package_mib: float = DEFAULT_LIMIT_MIB


def submit(verb: str, arguments: Sequence[str], parameters: Mapping[str, Any], options: JobOptions) -> int:
    """Submits `ovos-ray VERB ARGUMENTS…`, follows it, and returns its exit status.

    Args:
        verb: The verb.
        arguments: As typed after it.
        parameters: The same, parsed; relative paths among them are refused.
        options: Where and how.

    Raises:
        OvosError: The job cannot be sent or would not find what it needs.
    """
    use_token(options.token_file)  # before anything imports Ray
    refuse_relative_paths(verb, parameters)
    package = JobPackage.of(Path.cwd(), (options.environment or {}).get("excludes", ()))
    package.check(options.max_package_mib)
    client = connect(options.address, options.token_file)
    entrypoint = shlex.join(["python", "-m", "ovos_ray", verb, *arguments])
    _refuse_second(client, entrypoint)
    name = options.submission_id or f"{verb}-{datetime.datetime.now().strftime('%Y%m%d-%H%M%S')}"
    console.print(f"sending {len(package.sizes)} files, {package.mib:.1f} MiB, to {client.get_address()}")
    try:
        job = client.submit_job(
            entrypoint=entrypoint,
            submission_id=name,
            runtime_env=job_environment(options),
            entrypoint_num_cpus=options.num_cpus,
            entrypoint_num_gpus=options.num_gpus,
        )
    except RuntimeError as error:
        raise ClusterError(
            f"the cluster refuses the job: {first_line(error)}",
            "give another --submission-id, or none" if "already" in str(error) else None,
        ) from error
    how = f"follow: ray job logs --follow {job}   stop: ray job stop {job}"
    console.print(f"job {job}; {how}", highlight=False, soft_wrap=True)
    if not options.wait:
        return 0
    try:
        return follow(client, job, console)
    except KeyboardInterrupt:
        console.print(f"\nthe job goes on without this terminal; {how}", highlight=False, soft_wrap=True)
        return _INTERRUPTED


def refuse_relative_paths(verb: str, parameters: Mapping[str, Any]) -> None:
    """Refuses paths that start from the current folder: a job's is a copy of it that vanishes with the job.

    Raises:
        ConfigError: Names the settings and the way to write them; also for a recipe or setting that does not exist.
    """
    found: dict[str, str] = {}
    for name, value in parameters.items():
        for path in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(path, Path) and not path.is_absolute() and ":/" not in str(path):
                found["--" + name.replace("_", "-")] = str(path)
    store = parameters.get("tracking_uri")
    if isinstance(store, str) and store.startswith("sqlite:///") and not store.startswith("sqlite:////"):
        found["--tracking-uri"] = store
    recipe = parameters.get("trainable") or parameters.get("search_space")
    if recipe:
        found |= _relative_settings(recipe, parameters.get("overrides") or [])
    if not found:
        return
    listing = ", ".join(f"{name} = {value}" for name, value in found.items())
    absolute = " ".join(_absolute(name, value) for name, value in found.items())
    remedy = f"write paths that every node of the cluster sees, in a bucket or on a disk such as this one: {absolute}"
    if any("tracking" in name for name in found):
        remedy += "; best give a tracking server, http://HOST:5000"
    raise ConfigError(
        f"relative paths mean another folder in a job, one that vanishes with it: {listing}",
        remedy,
    )


def _relative_settings(recipe: str, overrides: Sequence[str]) -> dict[str, str]:
    """Returns the settings of a recipe that are relative paths."""
    from ovos_ray.cli.training import resolve
    from ovos_ray.config import ExperimentConfig, flatten, override
    from ovos_ray.config.recipes import find, make
    from ovos_ray.study.expand import expand_study
    from ovos_ray.study.price import group_trials
    from ovos_ray.study.space import SearchSpace

    made = find(recipe).make()
    if isinstance(made, SearchSpace):
        space, trials, _ = expand_study(made, overrides)
        configs = [group.config for group in group_trials(trials)]
        configs = [override(config, {"storage": config.storage.removesuffix(f"/{space.name}")}) for config in configs]
    else:
        configs = [override(make(recipe, ExperimentConfig), list(overrides))]
    relative: dict[str, str] = {}
    for config in configs:
        for (key, value), there in zip(flatten(config).items(), flatten(resolve(config)).values(), strict=True):
            parts = value if isinstance(value, tuple) else (value,)
            if key == "evaluation.also":  # NAME=FOLDER each
                parts = tuple(one.root for one in config.evaluation.also)
            # What resolving changes is a path; an absolute one may change too, where it leads over a link.
            if value != there and not all(str(part).startswith(("/", "sqlite:////")) for part in parts):
                relative.setdefault(key, ",".join(map(str, value if isinstance(value, tuple) else (value,))))
    if "storage" in relative:
        relative.pop("pretrain.storage", None)  # it lies there unless said otherwise
    return relative


def _absolute(name: str, value: str) -> str:
    prefix = "sqlite:///" if value.startswith("sqlite:///") else ""
    named = [part.removeprefix(prefix).rpartition("=") for part in value.split(",")]  # evaluation.also has NAME=FOLDER
    paths = ",".join(prefix + before + equals + os.path.abspath(path) for before, equals, path in named)
    return f"{name} {paths}" if name.startswith("--") else f"{name}={paths}"


def _refuse_second(client: Any, entrypoint: str) -> None:
    """Two jobs of the same command would write the same folders."""
    for job in client.list_jobs():
        if job.entrypoint == entrypoint and not job.status.is_terminal():
            name = job.submission_id
            raise ClusterError(
                f"job {name} runs the same command already",
                f"follow it: ray job logs --follow {name}; or stop it first: ray job stop {name}",
            )


def parse_environment(text: str | None, variables: Sequence[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """Reads a runtime environment (a YAML file, or JSON) and variables (`NAME=VALUE`, or `NAME` for its value here).

    Raises:
        ConfigError: They cannot be read, or a variable is not set here.
    """
    import yaml

    environment: Any = {}
    if text is not None:
        try:
            environment = yaml.safe_load(Path(text).read_text() if Path(text).is_file() else text)
        except yaml.YAMLError as error:
            raise ConfigError(f"the runtime environment cannot be read: {first_line(error)}") from error
        if not isinstance(environment, dict):
            raise ConfigError(
                f"{text!r} is neither a file nor a runtime environment", 'write --runtime-env \'{"pip": ["av"]}\''
            )
    values = {}
    for variable in variables:
        name, assigned, value = variable.partition("=")
        if not assigned and name not in os.environ:
            raise ConfigError(f"--env {name}: there is no such variable here", f"write --env {name}=VALUE")
        values[name] = value if assigned else os.environ[name]
    return environment, values


def job_environment(options: JobOptions) -> dict[str, Any]:
    """Returns the runtime environment of a job: the current folder, this program, and what it was started from."""
    import ovos_ray
    from ovos_ray.track.provenance import git_environment

    environment = {**(options.environment or {})}
    environment["working_dir"] = str(Path.cwd())
    variables = {**git_environment(Path.cwd()), **environment.get("env_vars", {}), **(options.variables or {})}
    if variables:
        environment["env_vars"] = variables
    if not Path("ovos_ray", "__init__.py").is_file():
        # Recipes in a folder of their own: the program that checked them here travels along.
        environment["py_modules"] = [*environment.get("py_modules", ()), str(Path(ovos_ray.__file__).parent)]
    if options.install:
        given = environment.get("pip", [])
        if not isinstance(given, list):
            raise ConfigError("--install adds to a list of pip requirements; the runtime environment has another form")
        environment["pip"] = [*_requirements(), *given]
    return environment


def _requirements() -> list[str]:
    """Returns what ovos_ray needs beside Ray, whose version is the cluster's own."""
    from importlib import metadata

    from packaging.requirements import Requirement

    parsed = [Requirement(line) for line in metadata.requires("ovos-ray") or []]
    needed = [r for r in parsed if r.name != "ray" and (r.marker is None or r.marker.evaluate({"extra": ""}))]
    return [f"{r.name}{r.specifier}" for r in needed]
