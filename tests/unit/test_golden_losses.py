"""The first 50 losses of every tiny trainable are what they were: a change that alters results must say so."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent / "golden"))
from make_losses import FILE, RECIPES, STEPS, losses, machine, make_data

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    """What was recorded on this class of machine; the first recording, where it has none."""
    recordings: list[dict[str, Any]] = json.loads(FILE.read_text())
    return next((one for one in recordings if one["machine"] == machine()), recordings[0])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    make_data(root)
    return root


@pytest.mark.parametrize("first", [15, pytest.param(STEPS, marks=pytest.mark.nightly)])
@pytest.mark.parametrize("recipe", RECIPES)
def test_losses_are_those_of_before(recipe: str, first: int, golden: dict[str, Any], data: Path) -> None:
    """Bit for bit on the same class of machine and versions, else to rounding."""
    try:
        found = losses(recipe, data, first)
    finally:
        torch.use_deterministic_algorithms(False)
    expected = golden["losses"][recipe]
    assert len(expected) == STEPS
    if golden["machine"] == machine():
        assert found == expected[:first]
    else:
        np.testing.assert_allclose(found, expected[:first], rtol=1e-4)


def test_other_recipes_and_steps_have_other_losses(golden: dict[str, Any]) -> None:
    """Else the comparison could not fail."""
    assert golden["losses"].keys() == set(RECIPES)
    firsts = {tuple(values[:3]) for values in golden["losses"].values()}
    assert len(firsts) == len(RECIPES)
    assert all(len(set(values)) > STEPS * 0.9 for values in golden["losses"].values())
