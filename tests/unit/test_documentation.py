"""The documentation against the program: every command line in it parses, every error text in it is in the code."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import typer
from conftest import REPOSITORY
from typer.testing import CliRunner

from ovos_ray.cli.app import app
from ovos_ray.config import ExperimentConfig, flatten
from ovos_ray.config.recipes import list_recipes

PAGES = sorted([*(REPOSITORY / "docs").glob("*.md"), *REPOSITORY.glob("*.md"), REPOSITORY / "benchmarks" / "README.md"])
_STAND_IN = {"…": "x", "…,": "x"}


def command_lines(text: str) -> Iterator[str]:
    """Command lines of indented and fenced blocks and of inline code, with their continuations joined."""
    blocks = [line[4:] for line in text.splitlines() if line.startswith("    ")]
    fenced = re.findall(r"(?ms)^```\w*\n(.*?)^```", text)
    joined = re.sub(r"\\\n\s*", " ", "\n".join([*blocks, *fenced]))
    yield from joined.splitlines()
    yield from (" ".join(code.split()) for code in re.findall(r"`((?:ovos-ray|python -m ovos_ray) [^`]+)`", text))


def commands(text: str) -> list[list[str]]:
    """The words after `ovos-ray` of each; what only names a verb with an ellipsis, and placeholders, are kept."""
    found = []
    for line in command_lines(text):
        given = re.match(r"\s*(?:\$ )?(?:ovos-ray|python -m ovos_ray|\.venv/bin/ovos-ray) (.+)", line)
        if given is None:
            continue
        line = re.sub(r"\$\([^)]*\)", "x", given[1])  # what another command prints
        words = shlex.split(re.sub(r"\s[|&;<>].*", "", line), comments=True)
        found.append([_STAND_IN.get(word, word) for word in words])
        if "--" in found[-1] and found[-1][-1] != "--":  # a verb that is handed to another
            found.append(found[-1][found[-1].index("--") + 1 :])
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_every_command_of_a_page_is_one(page: Path) -> None:
    verbs = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    settings = set(flatten(ExperimentConfig()))
    for words in commands(page.read_text(encoding="utf-8")):
        verb, *arguments = words
        if verb in ("VERB", "x") or verb.startswith("-"):
            continue
        assert verb in verbs, f"{words}: no such verb"
        options = {name for parameter in verbs[verb].params for name in (*parameter.opts, *parameter.secondary_opts)}
        for word in arguments[: arguments.index("--") if "--" in arguments else None]:
            if word.startswith("--"):
                assert word.partition("=")[0] in options | {"--help"}, f"{words}: {verb} has no {word}"
            elif re.match(r"(network|data|method|optimizer|train|validation|evaluation|pretrain)\.[a-z_.]+=", word):
                assert word.partition("=")[0] in settings, f"{words}: no setting {word}"
        if "x" not in arguments and len(arguments) > 1:  # nothing was left out of it: it parses as a whole
            made = CliRunner().invoke(app, [verb, "--help", *(word.replace("…", "x") for word in arguments)])
            assert made.exit_code == 0, (words, made.output)


def test_the_pages_name_commands_at_all() -> None:
    assert sum(len(commands(page.read_text(encoding="utf-8"))) for page in PAGES) > 60


def test_every_page_has_its_place_in_the_contents() -> None:
    index = (REPOSITORY / "docs" / "index.md").read_text(encoding="utf-8")
    listed = re.findall(r"(?ms)^```{toctree}\n(.*?)^```", index)
    names = {
        line.partition("<")[2].rstrip(">") or line for block in listed for line in block.split("\n\n")[1].splitlines()
    }
    pages = {page.stem for page in (REPOSITORY / "docs").glob("*.md")} - {"index"}
    assert pages <= names, f"docs/index.md lists no {', '.join(sorted(pages - names))}"


def test_recipes_and_studies_that_pages_name_exist() -> None:
    known = {recipe.path for package in ("trainables", "search_spaces") for recipe in list_recipes(package)}
    known |= {path.rpartition(".")[0] for path in known} | {f"{one}.{one.rpartition('.')[2]}" for one in known}
    for page in PAGES:
        if page.name == "CHANGELOG.md":  # of its time
            continue
        text = page.read_text(encoding="utf-8")
        for path in re.findall(r"(?<![\w/.])(?:trainables|search_spaces)(?:\.[a-z_]\w*)+", text):
            assert path.removesuffix(".py") in known or path.endswith(".py"), f"{page.name}: {path}"


@cache
def constants() -> str:
    """All texts of the package, one after another, and its names of settings."""
    texts = []
    for path in (REPOSITORY / "ovos_ray").rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        texts += [
            node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)
        ]
    return "\n".join(texts)


def test_the_errors_of_the_questions_are_those_of_the_code() -> None:
    page = (REPOSITORY / "docs" / "faq.md").read_text(encoding="utf-8")
    quoted = re.findall(r"\*\*`([^`]+)`\*\*", page)
    assert len(quoted) > 30
    for text in quoted:
        for part in filter(None, (part.strip(" ,:();") for part in text.split("…"))):
            assert part in constants(), f"no error says {part!r} (of {text!r})"
