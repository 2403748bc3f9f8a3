"""What only the nightly holds stands in tests/README.md, and beside it what every `make test` holds of it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
FILES = {path.name: path for path in TESTS.rglob("test_*.py")}
TABLE = (TESTS / "README.md").read_text().partition("## What the nightly alone holds")[2]
ROWS = [line.strip("|").split("|") for line in TABLE.splitlines() if line.startswith("| ")][1:]


def nightly(path: Path) -> tuple[bool, bool]:
    """Whether a file has tests, or fixtures of tests, that only the nightly runs; and others."""
    module = ast.parse(path.read_text())
    whole = any(isinstance(node, ast.Assign) and "pytest.mark.nightly" in ast.unparse(node) for node in module.body)
    functions = [node for node in module.body if isinstance(node, ast.FunctionDef)]
    marked = [any("mark.nightly" in ast.unparse(one) for one in node.decorator_list) for node in functions]
    # A parametrised one has cases of both kinds.
    plain = ["mark.nightly" not in ast.unparse(node) or "pytest.param(" in ast.unparse(node) for node in functions]
    tests = [node.name.startswith("test_") for node in functions]
    others = any(test and one for test, one in zip(tests, plain, strict=True))
    return whole or any(marked), not whole and others


def named(cell: str) -> set[str]:
    return set(re.findall(r"`(test_\w+\.py)`", cell))


def test_the_table_names_all_that_is_nightly_and_for_each_what_every_run_holds() -> None:
    assert len(ROWS) > 8
    kinds = {name: nightly(path) for name, path in FILES.items()}
    in_table = set[str]().union(*(named(alone) for _, _, alone in ROWS))
    assert in_table == {name for name, (some, _) in kinds.items() if some}
    for promise, always, _ in ROWS:
        assert named(always), promise
        for name in named(always):
            assert kinds[name][1], f"{promise}: {name} holds nothing in every run"


def test_what_is_nightly_is_told_from_what_is_not() -> None:
    assert nightly(FILES["test_soak.py"]) == (True, False)
    assert nightly(FILES["test_elastic_ray.py"]) == (True, True)
    assert nightly(FILES["test_faults.py"]) == (True, True)
    assert nightly(FILES["test_masks.py"]) == (False, True)
