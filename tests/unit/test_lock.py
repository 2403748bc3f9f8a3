"""Who may train a run: one at a time; `test_lease.py` has the bucket's."""

from __future__ import annotations

from pathlib import Path

import pytest

from ovos_ray.errors import DataError
from ovos_ray.run import lock
from ovos_ray.storage import Storage


def test_a_lock_that_is_a_link_empties_no_file_of_the_users(tmp_path: Path) -> None:
    """In a folder of a stranger's, whose run is gone on with."""
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "run").mkdir()
    (tmp_path / "run/lock").symlink_to(tmp_path / "precious")
    with pytest.raises(DataError, match="is a link"), lock.hold(Storage(str(tmp_path / "run")), "run", print):
        pytest.fail("it is held")
    assert (tmp_path / "precious").read_text() == "mine"
