"""docs/architecture.md: its map names the rooms there are, and its lines train a network."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from tiny_study import make_dataset, tiny_config

import ovos_ray

PAGE = (Path(__file__).parents[2] / "docs" / "architecture.md").read_text(encoding="utf-8")
PACKAGE = Path(ovos_ray.__file__).parent


def test_every_room_is_on_the_map_and_every_file_named_is_there() -> None:
    rooms = {path.stem for path in PACKAGE.iterdir() if not path.name.startswith("__") and path.suffix in ("", ".py")}
    named = {
        word.split("/")[0] for line in re.findall(r"^\| (`.*?) \|", PAGE, re.M) for word in re.findall(r"`(.*?)`", line)
    }
    assert rooms == named
    for path in re.findall(r"`([a-z_]+(?:/[a-z_]+)+\.py)`", PAGE):
        assert (PACKAGE / path).is_file() or (PACKAGE.parent / path).is_file(), path


def test_rooms_stay_small() -> None:
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in PACKAGE.rglob("*.py")}
    assert [path for path, number in lines.items() if number > 350] == []
    for room in {path.relative_to(PACKAGE).parts[0] for path in lines}:
        own = sum(number for path, number in lines.items() if path.relative_to(PACKAGE).parts[0] == room)
        assert own <= 0.15 * sum(lines.values()), f"{room}/ has {own} of {sum(lines.values())} lines"


@pytest.mark.slow
def test_the_lines_of_the_page_make_a_step(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    make_dataset(tmp_path)
    space = {"config": tiny_config(tmp_path, steps=2)}
    exec(code, space)
    start = torch.cat([p.detach().flatten() for p in space["initial_network"](space["config"]).parameters()])
    trained = torch.cat([p.detach().flatten() for p in space["network"].parameters()])
    assert not torch.equal(start, trained)
