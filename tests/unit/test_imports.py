"""Imports go one way through the rooms, and heavy libraries stay where they belong."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import ovos_ray

PACKAGE = Path(ovos_ray.__file__).parent
BENCHMARKS = sorted((Path(__file__).resolve().parents[2] / "benchmarks").glob("*.py"))
# From the ground up; a room may import from itself and from the floors below.
FLOORS = (
    ("arrays", "errors", "io", "lease", "paths", "repeating", "seeding", "storage"),
    ("config",),
    ("pixels",),
    ("data", "networks"),
    ("methods", "packing"),
    ("train",),
    ("evaluate", "track"),
    ("run", "report"),
    ("study",),
    ("on_ray", "label"),
    ("cli",),
    ("api",),
    ("__main__",),
)
ROOMS = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
MAY_IMPORT = {
    "ray": ("on_ray", "cli"),
    "mlflow": ("track",),
    "torch": (
        "pixels",
        "data",
        "networks",
        "methods",
        "train",
        "evaluate",
        "track",
        "run",
        "report",
        "study",
        "on_ray",
        "label",
        "cli",
    ),
}


def modules() -> list[str]:
    paths = sorted(PACKAGE.rglob("*.py"))
    return [".".join(path.relative_to(PACKAGE).with_suffix("").parts) for path in paths]


def imported(module: str) -> Iterator[str]:
    tree = ast.parse((PACKAGE / (module.replace(".", "/") + ".py")).read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room(module: str) -> int:
    return ROOMS[module.split(".")[0]]


def is_in(module: str, places: tuple[str, ...]) -> bool:
    return any(module == place or module.startswith(f"{place}.") for place in places)


@pytest.mark.parametrize("module", [m for m in modules() if m != "__init__"])
def test_imports_go_one_way(module: str) -> None:
    for name in imported(module):
        if (
            name.startswith("ovos_ray.")
            and (PACKAGE / name.split(".")[1]).with_suffix(".py").exists() | (PACKAGE / name.split(".")[1]).is_dir()
        ):
            target = name.removeprefix("ovos_ray.")
            assert room(target) <= room(module), f"{module} imports {name}, which lies above it"
        top = name.split(".")[0]
        if top in MAY_IMPORT:
            assert is_in(module, MAY_IMPORT[top]), f"{module} imports {top}"
        assert top not in ("trainables", "search_spaces"), f"{module} imports the recipes"


@pytest.mark.slow
def test_importing_the_ground_floor_and_asking_for_help_is_light() -> None:
    code = (
        "import sys, ovos_ray.config, ovos_ray.seeding, ovos_ray.io, ovos_ray.cli.app\n"
        "print([name for name in ('torch', 'ray', 'mlflow') if name in sys.modules])"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "[]"


@pytest.mark.slow
def test_training_imports_the_compiler_only_where_it_is_asked_for(tmp_path: Path) -> None:
    """It takes 1.5 s and 180 MiB of every process; PyTorch does so for harmless things."""
    code = (
        "import sys, torch\n"
        "from pathlib import Path\n"
        "from tiny_study import make_dataset, tiny_config\n"
        "from ovos_ray.config import override\n"
        "from ovos_ray.run.estimate import checkpoint_bytes, estimate\n"
        "from ovos_ray.run.here import fit_here\n"
        "from ovos_ray.run.request import RunRequest\n"
        "root = make_dataset(Path(sys.argv[1]))\n"
        "for name in ('stcn-tiny', 'xmem-tiny', 'cutie-tiny'):\n"
        "    config = override(tiny_config(root, steps=2, checkpoint_every=1), {'network.name': name, 'name': name})\n"
        "    estimate(config), checkpoint_bytes(config)\n"
        "    fit_here(RunRequest(config, experiment='imports', run_key=name))\n"
        "there = 'torch._dynamo' in sys.modules\n"
        "torch.optim.AdamW([torch.zeros(1)])\n"
        "print(there, 'torch._dynamo' in sys.modules)\n"
    )
    support = Path(__file__).resolve().parents[1] / "support"
    environment = {**os.environ, "PYTHONPATH": f"{PACKAGE.parent}{os.pathsep}{support}"}
    command = [sys.executable, "-c", code, str(tmp_path)]
    output = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert output.split()[-2:] == ["False", "True"]


@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda path: path.stem)
def test_benchmarks_find_the_recipes_beside_the_package(path: Path) -> None:
    """`python benchmarks/NAME.py` has its own folder on the path, and not the one of the recipes."""
    lines = path.read_text(encoding="utf-8").splitlines()
    needs = next((at for at, line in enumerate(lines) if line.startswith(("from trainables", "from search_sp"))), None)
    found = next((at for at, line in enumerate(lines) if line.startswith("sys.path")), None)
    assert needs is None or (found is not None and found < needs)
