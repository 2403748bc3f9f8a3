"""docs/settings.md shows what the recipes say."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ovos_ray.config import ExperimentConfig
from ovos_ray.config.overrides import flatten

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
