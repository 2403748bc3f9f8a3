"""docs/settings.md and the costs in docs/reproducing.md show what the recipes say."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ovos_ray.config import ExperimentConfig, override
from ovos_ray.config.overrides import flatten
from ovos_ray.config.recipes import make

REPOSITORY = Path(__file__).resolve().parents[2]


def test_the_page_of_settings_is_what_the_recipes_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.syspath_prepend(str(REPOSITORY / "benchmarks"))
    import settings_table

    page = (REPOSITORY / "docs" / "settings.md").read_text()
    assert page == settings_table.render(), "stale: python benchmarks/settings_table.py > docs/settings.md"
    assert "| data.frame_sampling | grown | grown | grown |" in page
    known = set(flatten(ExperimentConfig()))
    assert set(settings_table._MAIN) | set(settings_table._STATIC) <= known
    sys.modules.pop("settings_table")


def test_the_costs_of_the_papers_rows_are_computed_from_the_recipes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.syspath_prepend(str(REPOSITORY / "benchmarks"))
    import paper_costs

    page = (REPOSITORY / "docs" / "reproducing.md").read_text()
    assert paper_costs.render() in page, "stale: put what python benchmarks/paper_costs.py prints into the page"
    measured = (REPOSITORY / "benchmarks" / "README.md").read_text()
    for network, seconds in paper_costs.STEP_SECONDS.items():
        assert f"| {network} | roll-out as a graph | {seconds:.3f} |" in measured
    # By hand: 2-step walks 7 frames there and 2 back, 7 + 3 * 2 = 13; T-step 7 + 3 * 7 = 28. Twice the clips measured.
    xmem = make("trainables.one_shot.xmem", ExperimentConfig)
    assert paper_costs.gpu_hours("xmem", xmem) == pytest.approx(110_000 * 2 * 0.100 * 28 / 13 / 3600)
    two = override(xmem, {"method.backward": "2-step"})
    assert paper_costs.gpu_hours("xmem", two) == pytest.approx(110_000 * 2 * 0.100 / 3600)
    sys.modules.pop("paper_costs")
