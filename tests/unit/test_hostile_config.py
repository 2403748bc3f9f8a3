"""Whatever a configuration says, on a command line or in a file of somebody else, is used or refused by name."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ovos_ray.config import ExperimentConfig, flatten, override, to_dict
from ovos_ray.config.stored import read_stored
from ovos_ray.errors import CheckpointError, ConfigError, DataError, OvosError
from ovos_ray.run.checks import check_config
from ovos_ray.storage import Storage
from ovos_ray.train.run_folder import RunFolder

_KEYS = sorted(flatten(ExperimentConfig()))
_GROUPS = sorted({key.partition(".")[0] for key in _KEYS})
_TEXT = st.text(max_size=12) | st.sampled_from(
    ["nan", "inf", "-1", "1e400", "none", "[[0,1]]", "[" * 3000, "((((", "{[]: 1}", "\0", "a\x1b[31m", "..", "9" * 5000]
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None)
@given(key=st.sampled_from(_KEYS) | st.text(max_size=12), value=_TEXT)
def test_no_override_ends_in_an_unnamed_error(key: str, value: str) -> None:
    with contextlib.suppress(ConfigError):
        assert isinstance(override(ExperimentConfig(), [f"{key}={value}"]), ExperimentConfig)


@settings(max_examples=300, deadline=None)
@example(changes={"evaluation.also": [{}]}, schema=2)
@given(
    changes=st.dictionaries(st.sampled_from(_KEYS + _GROUPS), _JSON, min_size=1, max_size=3), schema=st.just(2) | _JSON
)
def test_no_stored_configuration_ends_in_an_unnamed_error(changes: dict[str, Any], schema: Any) -> None:
    stored: dict[str, Any] = to_dict(ExperimentConfig())
    for key, value in changes.items():
        *groups, leaf = key.split(".")
        place = stored
        for name in groups:
            place = place[name] if isinstance(place.get(name), dict) else place
        place[leaf] = value
    with contextlib.suppress(ConfigError):
        read_stored(json.loads(json.dumps(stored)), schema)


@settings(max_examples=100, deadline=None)
@example(key="validation.root", value="[" * 3000)
@given(key=st.sampled_from(_KEYS), value=_TEXT)
def test_no_configuration_that_is_taken_ends_in_an_unnamed_error_when_it_is_checked(key: str, value: str) -> None:
    with contextlib.suppress(OvosError):
        check_config(override(ExperimentConfig(tracking_uri=""), ["network.name=stcn-tiny", f"{key}={value}"]))


@pytest.mark.parametrize("name", ["..", "../../victim", "/etc/x", "a//b", "a\x1b[31m", "", "a/../b"])
def test_a_name_that_leads_elsewhere_is_refused(name: str) -> None:
    """It becomes the run's folder."""
    with pytest.raises(DataError, match="name=: run"):
        check_config(ExperimentConfig(name=name, tracking_uri=""))


@pytest.mark.parametrize("name", ["config.json", "result.json"])
@pytest.mark.parametrize("content", [b"", b"null", b"[]", b"\xff", b'{"a": ', b"[" * 50_000])
def test_a_damaged_file_of_a_run_is_named(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    folder = RunFolder(Storage(str(tmp_path)))
    with pytest.raises(CheckpointError, match=rf"{name} is damaged"):
        folder.config() if name == "config.json" else folder.result()
