"""What is installed and run to test and release the project: pinned, hashed, and in step with pyproject.toml."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from check_jsonschema import main as check
from click.testing import CliRunner
from packaging.requirements import Requirement

if sys.version_info < (3, 11):
    pytest.skip("tomllib came with Python 3.11", allow_module_level=True)
import tomllib

REPOSITORY = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((REPOSITORY / ".github" / "workflows").glob("*.yml"))
LOCK = REPOSITORY / "requirements.lock"


def steps(path: Path) -> list[dict[str, Any]]:
    return [step for job in yaml.safe_load(path.read_text())["jobs"].values() for step in job["steps"]]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_actions_are_pinned_by_commit_and_their_targets_exist(path: Path) -> None:
    makefile = (REPOSITORY / "Makefile").read_text()
    for step in steps(path):
        if "uses" in step:
            assert re.fullmatch(r"[\w/.-]+@[0-9a-f]{40}", step["uses"]), step["uses"]
        for line in step.get("run", "").splitlines():
            words = line.removeprefix("sudo ").split()
            for target in words[1:] if words[:1] == ["make"] else ():
                if "=" in target or target.startswith("-"):
                    break
                assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"{path.name}: make {target}"


def test_no_workflow_may_write_to_the_repository() -> None:
    for path in WORKFLOWS:
        assert yaml.safe_load(path.read_text())["permissions"] == {"contents": "read"}, path.name


def test_the_lock_pins_and_hashes_every_requirement_as_pyproject_admits_it() -> None:
    blocks = re.split(r"(?m)^(?=[A-Za-z0-9_.-]+==)", LOCK.read_text())[1:]
    pinned = {}
    for block in blocks:
        name, version = block.split(maxsplit=1)[0].split("==")
        assert "--hash=sha256:" in block, f"{name} has no hash"
        pinned[name.lower().replace("_", "-")] = version
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *(one for extra in project["optional-dependencies"].values() for one in extra)]
    for requirement in map(Requirement, wanted):
        if requirement.name != project["name"]:
            assert pinned[requirement.name.lower().replace("_", "-")] in requirement.specifier, (
                f"{requirement} in {LOCK.name}"
            )


def test_security_names_the_bounds_that_hold() -> None:
    """Of every direct dependency, and as pyproject.toml has them."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *(one for extra in project["optional-dependencies"].values() for one in extra)]
    bounds = {(one.name, spec.version) for one in map(Requirement, wanted) for spec in one.specifier}
    text = (REPOSITORY / "SECURITY.md").read_text().partition("## Dependencies")[2]
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    named = {(one[0], one[1]) for row in rows for one in re.findall(r"`([\w-]+)>=([\d.]+)`", row.split("|")[1])}
    assert len(named) > 10
    assert named <= bounds
    for requirement in map(Requirement, project["dependencies"]):
        assert f"`{requirement.name}" in text, f"{requirement.name}: what was read of it?"


def test_commands_that_write_secrets_let_nobody_else_read_them() -> None:
    """A shell's redirection makes files that everybody may read, unless it is told otherwise."""
    written = []
    for path in [*REPOSITORY.glob("docs/*.md"), *REPOSITORY.glob("deploy/*")]:
        lines = path.read_text().splitlines()
        for number, line in enumerate(lines):
            if re.search(r">>? *\S*(token|\.env|secret)\b", line):
                command = "\n".join(lines[max(0, number - 2) : number + 1])
                assert "(umask 077 && " in command, f"{path.name}:{number + 1}: {line}"
                written.append(path.name)
    assert len(written) >= 4


def test_the_lock_names_no_index_and_no_folder() -> None:
    text = LOCK.read_text()
    assert "://" not in text
    assert "--index-url" not in text


@pytest.mark.parametrize(
    ("schema", "path"),
    [
        *(("github-workflows", path) for path in WORKFLOWS),
        ("dependabot", REPOSITORY / ".github" / "dependabot.yml"),
        ("compose-spec", REPOSITORY / "deploy" / "mlflow.yaml"),
    ],
    ids=lambda value: value.stem if isinstance(value, Path) else None,
)
def test_what_others_machines_read_fits_its_schema(schema: str, path: Path, tmp_path: Path) -> None:
    """GitHub's and Docker's own schemas, as check-jsonschema brings them: nothing can be run there from a test."""
    checked = ["--builtin-schema", f"vendor.{schema}"]
    told = CliRunner().invoke(check, [*checked, str(path)])
    assert told.exit_code == 0, told.output
    broken = tmp_path / path.name
    broken.write_text(path.read_text() + "\nneeds: {nothing: 1}\n")
    assert CliRunner().invoke(check, [*checked, str(broken)]).exit_code == 1
