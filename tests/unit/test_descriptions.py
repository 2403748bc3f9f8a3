from __future__ import annotations

from pathlib import Path

import pytest

from ovos_ray.data.folders.description import DatasetDescription, described_names
from ovos_ray.data.folders.open import LAYOUTS, describe, open_dataset
from ovos_ray.errors import DataError


def test_descriptions_are_found_by_name_file_and_layout(tmp_path: Path) -> None:
    assert {"davis2016", "davis2017", "youtube_vos2018", "youtube_vos2019", "static_images"} <= set(described_names())
    for name in described_names():
        description = describe(name)
        assert description.name == name
        assert description.layout in LAYOUTS
        assert description.source
        assert description.licence
        assert description.splits
    assert len(describe("youtube_vos2019").excluded) == 7
    (tmp_path / "mine.py").write_text(
        "from ovos_ray.data.folders.description import DatasetDescription\n"
        "DATASET = DatasetDescription(name='mine', layout='folder', frame_interval=3)\n"
    )
    assert describe(str(tmp_path / "mine.py")).frame_interval == 3
    assert describe("folder") == DatasetDescription(name="folder", layout="folder")
    with pytest.raises(DataError, match="did you mean 'davis2017'"):
        describe("davis2071")
    (tmp_path / "bad.py").write_text("DATASET = 3\n")
    with pytest.raises(DataError, match="defines no DATASET"):
        describe(str(tmp_path / "bad.py"))
    with pytest.raises(DataError, match="no layout 'davis'"):
        open_dataset(tmp_path, layout="davis")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "import pathlib\npathlib.Path({mark!r}).touch()\nDATASET = DatasetDescription(name='x', layout='folder')",
            None,
        ),
        ("DATASET = DatasetDescription(name=open({mark!r}, 'w').name, layout='folder')", "cannot be read"),
        ("DATASET = DatasetDescription(name='x', layout='folder', frame_interval=0)", "frame_interval"),
        ("DATASET = DatasetDescription(name='x', layout='folder', frame_interval='5')", "frame_interval"),
        ("DATASET = DatasetDescription(name='x', layout='folder', excluded=(3,))", "expected texts"),
        ("DATASET = DatasetDescription(name='x', colour='red')", "colour"),
        ("DATASET = (", "not a dataset description"),
        (
            "DATASET = DatasetDescription(name=" + "(" * 5000 + ")" * 5000 + ")",
            "not a dataset description|cannot be read",
        ),
        ("DATASET = DatasetDescription(name='x', layout='folder', colours={{'#ff0000'}})", "cannot be read"),
        ("DATASET = DatasetDescription(name='x', layout='cubes')", "layout 'cubes'"),
    ],
)
def test_a_description_is_read_and_never_run(tmp_path: Path, text: str, message: str | None) -> None:
    mark = tmp_path / "mark"
    (tmp_path / "x.py").write_text(text.format(mark=str(mark)))
    (tmp_path / "videos").mkdir()
    expected = "no dataset of layout folder" if message is None else message
    with pytest.raises(DataError, match=expected):
        open_dataset(tmp_path / "videos", str(tmp_path / "x.py"))
    assert not mark.exists()
