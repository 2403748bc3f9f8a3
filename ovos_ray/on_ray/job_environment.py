"""What a job finds on its machine: the current folder, this program, its dependencies and variables."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ovos_ray.config.recipes import PACKAGES
from ovos_ray.errors import ConfigError, first_line
from ovos_ray.paths import shipped

__all__ = ["job_environment", "parse_environment"]


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


def job_environment(
    environment: Mapping[str, Any] | None = None,
    variables: Mapping[str, str] | None = None,
    *,
    excludes: Sequence[str] = (),
    install: bool = False,
) -> dict[str, Any]:
    """Returns the runtime environment of a job: the current folder, this program, and what it was started from.

    Args:
        environment: As Ray knows it; what is said here is added.
        variables: More environment variables.
        excludes: Patterns of what stays here, as in an ignore file.
        install: Let pip bring the dependencies to every node.

    Raises:
        ConfigError: The dependencies cannot be added to the environment's own.
    """
    from ovos_ray.track.provenance import git_environment

    made = {**(environment or {})}
    made["working_dir"] = str(Path.cwd())
    if excludes:
        made["excludes"] = [*made.get("excludes", ()), *excludes]
    named = {**git_environment(Path.cwd()), **made.get("env_vars", {}), **(variables or {})}
    if named:
        made["env_vars"] = named
    if not Path("ovos_ray", "__init__.py").is_file():
        # Recipes in a folder of their own: the program that checked them here travels along.
        made["py_modules"] = [*made.get("py_modules", ()), str(_this_program())]
    if install:
        given = made.get("pip", [])
        if not isinstance(given, list):
            raise ConfigError(
                "--install adds to a list of pip requirements; the runtime environment has another form",
                'write it as a list, {"pip": ["av"]}, or leave out --install',
            )
        made["pip"] = [*_requirements(), *given]
    return made


def _this_program() -> Path:
    """Returns the folder of this package as a wheel has it, with the recipes inside; of a checkout a copy for now."""
    import ovos_ray

    package = Path(ovos_ray.__file__).parent
    if (package / "recipes").is_dir():
        return package
    folder = tempfile.mkdtemp(prefix="ovos-ray-job-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    ignore = shutil.ignore_patterns("__pycache__")
    copy = Path(shutil.copytree(package, Path(folder, "ovos_ray"), ignore=ignore))
    for name in (*PACKAGES, "datasets"):
        shutil.copytree(shipped(name), copy / "recipes" / name, ignore=ignore)
    return copy


def _requirements() -> list[str]:
    """Returns what ovos_ray needs beside Ray, whose version is the cluster's own."""
    from importlib import metadata

    from packaging.requirements import Requirement

    parsed = [Requirement(line) for line in metadata.requires("ovos-ray") or []]
    needed = [r for r in parsed if r.name != "ray" and (r.marker is None or r.marker.evaluate({"extra": ""}))]
    return [f"{r.name}{r.specifier}" for r in needed]
