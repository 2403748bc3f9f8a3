"""Where a run says it comes from."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from ovos_ray.track import provenance
from ovos_ray.track.provenance import provenance_tags


def test_provenance_names_commit_state_and_versions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("OVOS_GIT_COMMIT", raising=False)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(tmp_path)]
    (tmp_path / "a").write_text("1")
    for command in (["init", "-q"], ["add", "a"], ["commit", "-q", "-m", "m"]):
        subprocess.run([*git, *command], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    monkeypatch.setattr(provenance, "_ROOT", tmp_path)
    tags = provenance_tags(kind="trial")
    assert (tags["ovos.git_commit"], tags["ovos.git_dirty"]) == (head, "false")
    assert "ovos.version.torch" in tags
    (tmp_path / "a").write_text("2")
    assert provenance_tags(kind="trial")["ovos.git_dirty"] == "true"
    monkeypatch.setenv("OVOS_GIT_COMMIT", "f" * 40)
    assert provenance_tags(kind="trial")["ovos.git_commit"] == "f" * 40


def test_submitted_job_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)
    assert "ovos.ray_job_id" not in provenance_tags(kind="trial")
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", '{"metadata": {"job_submission_id": "sweep-1"}}')
    assert provenance_tags(kind="trial")["ovos.ray_job_id"] == "sweep-1"
