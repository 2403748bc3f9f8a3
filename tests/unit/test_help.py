"""What `ovos-ray VERB --help` says: every choice there is, an example that parses, one line a key."""

from __future__ import annotations

import re
import shlex
from typing import get_args

import pytest
from typer.testing import CliRunner

from ovos_ray.cli.app import app
from ovos_ray.config.strategies import NETWORKS
from ovos_ray.data.folders.open import LAYOUTS
from ovos_ray.evaluate.infer.convert import FORMATS
from ovos_ray.evaluate.infer.directions import Direction
from ovos_ray.evaluate.score.submission import BENCHMARKS
from ovos_ray.evaluate.score.table import Protocol
from ovos_ray.run.stored_times import GPUS

CHOICES = {
    ("pack", "layout"): ("auto", *LAYOUTS),
    ("pack", "labels"): ("first", "all"),
    ("predict", "layout"): ("auto", *LAYOUTS),
    ("predict", "network"): tuple(NETWORKS),
    ("predict", "baseline"): ("copy", "colour"),
    ("predict", "direction"): get_args(Direction),
    ("predict", "precision"): ("float32", "bfloat16", "float16"),
    ("predict", "reference"): ("given", "empty"),
    ("label", "network"): tuple(NETWORKS),
    ("convert", "to"): tuple(FORMATS),
    ("evaluate", "protocol"): get_args(Protocol),
    ("submission", "benchmark"): tuple(BENCHMARKS),
    ("train", "on"): GPUS,
    ("sweep", "on"): GPUS,
    ("show", "format"): ("text", "yaml", "json"),
}
VERBS = sorted({one.name or "" for one in app.registered_commands})


def help_of(verb: str) -> str:
    done = CliRunner().invoke(app, [verb, "--help"], env={"COLUMNS": "400"}, catch_exceptions=False)
    return re.sub("\x1b\\[[0-9;]*m", "", done.output)


@pytest.mark.parametrize(("verb", "option"), CHOICES)
def test_help_lists_the_choices_there_are(verb: str, option: str) -> None:
    found = re.search(rf"^\W*--{option}\b(.*?)(?=^\W*--|\Z)", help_of(verb), re.DOTALL | re.MULTILINE)
    assert found is not None
    said = set(re.findall(r"\w[\w-]*", found[1]))
    assert not set(CHOICES[verb, option]) - said, found[1]


@pytest.mark.parametrize("verb", VERBS)
def test_help_names_what_is_given_once_and_shows_an_example(verb: str) -> None:
    said = help_of(verb)
    usage = next(line for line in said.splitlines() if "Usage" in line)
    assert "[[" not in usage, "brackets are typer's to set"
    example = re.search(r"Example: (ovos-ray .*)", said)
    assert example is not None
    assert shlex.split(example[1])[1] == verb
