"""Every guarantee names tests that are there."""

from __future__ import annotations

import re

import pytest
from conftest import REPOSITORY

TESTS = {path.name: path for path in (REPOSITORY / "tests").rglob("test_*.py")}
ROWS = [
    line
    for line in (REPOSITORY / "docs" / "guarantees.md").read_text().splitlines()
    if line.startswith("| ") and not line.startswith("| What")
]


@pytest.mark.parametrize("row", ROWS, ids=[row[2:60] for row in ROWS])
def test_every_guarantee_names_tests_that_are_there(row: str) -> None:
    _, _, _, tests, _ = re.split(r"(?<!\\)\|", row)
    named = re.findall(r"`(test_[a-z0-9_]+\.py)(?:::(test_[a-z0-9_]+))?`", tests)
    assert named, "a promise that nothing holds"
    for file, test in named:
        assert file in TESTS, f"{file} is not there"
        assert not test or f"def {test}(" in TESTS[file].read_text(), f"{file} has no {test}"


def test_there_are_guarantees() -> None:
    assert len(ROWS) > 30
