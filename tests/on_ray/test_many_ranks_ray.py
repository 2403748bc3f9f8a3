"""Nine ranks on a node of 8 CPUs decode at the same time, though no CPU of the cluster is free for each of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from processes import last_line

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.nightly
@pytest.mark.ray
@pytest.mark.slow
def test_every_rank_decodes_where_there_are_fewer_free_cpus_than_ranks(tmp_path: Path) -> None:
    paths = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests" / "support")])
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_ADDRESS")}
    script = [sys.executable, str(REPOSITORY / "tests" / "support" / "nine_ranks.py"), str(tmp_path)]
    ended = subprocess.run(
        script, env={**environment, "PYTHONPATH": paths}, cwd=tmp_path, capture_output=True, text=True, timeout=800
    )
    assert ended.returncode == 0, ended.stderr[-4000:]
    told = last_line(ended.stdout)
    assert told["RankStream"] == 9, "each rank's first clips waited for those of all others"
    assert told["ClusterWide"] <= 5, "tasks that ask for CPUs must wait for one another: the test can fail"
