"""The pictures of the report come from what runs have stored."""

from __future__ import annotations

import itertools
import statistics
from pathlib import Path

import numpy as np
import pytest
from synthetic_study import memory_run, save_mask, square, write_videos

from ovos_ray.errors import TrackingError
from ovos_ray.report.numbers.comparison import compare
from ovos_ray.report.pictures.films import write_films
from ovos_ray.report.pictures.galleries import choose_sequences, copying_galleries, overlay_galleries
from ovos_ray.report.pictures.pictures import decode
from ovos_ray.report.pictures.stored import stored_predictions
from ovos_ray.report.pictures.traces import traces
from ovos_ray.report.runs import Study


def test_copy_score_and_pictures_come_from_stored_predictions(tmp_path: Path) -> None:
    sequences = ["a", "b"]
    write_videos(tmp_path / "data", sequences)
    params = {
        "method.name": "one_shot",
        "network.name": "xmem-tiny",
        "evaluation.protocol": "davis2017",
        "evaluation.root": str(tmp_path / "data"),
        "evaluation.split": "val",
    }
    runs = []
    for strategy, shift, quality in (("2-step", 8, 90.0), ("T-step", 0, 20.0)):
        for sequence, t in itertools.product(sequences, range(6)):
            save_mask(tmp_path / strategy / sequence / f"{t:05d}.png", square(t * shift))
        scores = {(sequence, 1): (quality, quality) for sequence in sequences}
        tags = {"ovos.predictions": str(tmp_path / strategy)}
        runs.append(memory_run(strategy, 0, scores, params={**params, "method.backward": strategy}, tags=tags))
    comparison = compare(Study("s", "1", "uri", tuple(runs)))
    stored = stored_predictions(comparison.rows)
    found = traces(stored)
    perfect, copying = (sequences["a"] for sequences in found.values())
    # Two 24-pixel squares t·8 pixels apart overlap by 24 - 8t of 24 + 8t columns.
    overlap = [100 * max(0, 24 - 8 * t) / (24 + min(24, 8 * t)) for t in range(1, 6)]
    assert perfect.truth == pytest.approx([100.0] * 5)
    assert perfect.first == pytest.approx(overlap)
    assert copying.truth == pytest.approx(overlap)
    assert copying.copy_score == pytest.approx(100 - statistics.fmean(overlap))
    assert perfect.copy_score == pytest.approx(statistics.fmean(overlap) - 100)

    chosen = choose_sequences(stored)
    assert set(chosen) == {"a", "b"}
    made = overlay_galleries(stored, chosen)
    assert {gallery.sequence for gallery in made} == {"a", "b"}
    assert [strip.label for strip in made[0].strips] == ["truth", *(row.label for row in comparison.rows)]
    assert all(strip.image.startswith("data:image/webp;base64,") for strip in made[0].strips)
    assert made[0].strips[0].film

    (gallery,) = copying_galleries(stored, found)
    assert gallery.strips[0].label == comparison.rows[1].label, "T-step copies, 2-step does not"
    assert f"copy score {copying.copy_score:+.1f}" in gallery.strips[0].score
    assert "resemble the first mask more than the truth" in gallery.words
    # In the last frame the square has moved 40 of 128 pixels on: green is where it is, red where the copy stayed.
    last = np.asarray(decode(gallery.strips[0].image))[:, -250:].astype(int)
    scale = 250 / 128
    there, stayed = (last[int(32 * scale), int(x * scale)] for x in (40 + 12, 12))
    assert there[1] > there[0] + 10
    assert stayed[0] > stayed[1] + 10

    assert [shown.sequence for shown in copying_galleries(stored, found, ["b", "a"])] == ["b", "a"]
    assert choose_sequences(stored, ["b"]) == {"b": "as asked for"}
    with pytest.raises(TrackingError, match="no scored sequence 'c'"):
        choose_sequences(stored, ["c"])


def test_films_show_the_truth_and_all_predictions(tmp_path: Path) -> None:
    import av

    write_videos(tmp_path / "data", ["a"])
    params = {"network.name": "xmem-tiny", "evaluation.root": str(tmp_path / "data"), "evaluation.split": "val"}
    for t in range(6):
        save_mask(tmp_path / "masks" / "a" / f"{t:05d}.png", square(t * 8))
    tags = {"ovos.predictions": str(tmp_path / "masks")}
    run = memory_run("2-step", 0, {("a", 1): (90.0, 90.0)}, params=params, tags=tags)
    stored = stored_predictions(compare(Study("s", "1", "uri", (run,))).rows)
    (film,) = write_films(stored, {"a": tmp_path / "films" / "a.mp4"})
    with av.open(str(film)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == 6
    assert frames[0].shape == (240 + 22, 2 * 480, 3)
    # Prediction and truth are the same here, so both halves are.
    assert np.abs(frames[3][30:, :480].astype(int) - frames[3][30:, 480:]).mean() < 3
    (tmp_path / "masks" / "a" / "00003.png").unlink()
    assert write_films(stored, {"a": tmp_path / "cut" / "a.mp4"}) == []
    assert list((tmp_path / "cut").iterdir()) == []


def test_widest_gap_to_full_supervision_is_shown(tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    rows = []
    for method, values in (("one_shot", (70.0, 40.0, 60.0, 50.0)), ("supervised", (71.0, 60.0, 65.0, 58.0))):
        scores = {(name, 1): (value, value) for name, value in zip("abcd", values, strict=True)}
        params = {"method.name": method, "method.backward": "2-step", "network.name": "xmem", "evaluation.root": "/d"}
        tags = {"ovos.predictions": str(tmp_path / "masks")}
        rows.append(memory_run(method, 0, scores, params=params, tags=tags))
    stored = stored_predictions(compare(Study("s", "1", "uri", tuple(rows))).rows)
    # The supervised network leads and chooses: b or d worst, c in the middle, a best; one-shot is furthest behind at b.
    assert list(choose_sequences(stored)) == ["d", "c", "a", "b"]
    assert choose_sequences(stored)["b"] == "full supervision is furthest ahead, by 20.0 points"


def test_predictions_that_are_gone_cost_pictures_not_the_report(tmp_path: Path) -> None:
    run = memory_run("2-step", 0, {("a", 1): (50.0, 50.0)}, tags={"ovos.predictions": str(tmp_path / "gone")})
    comparison = compare(Study("s", "1", "uri", (run,)))
    assert stored_predictions(comparison.rows) == []
    assert choose_sequences([]) == {}
    assert copying_galleries([], {}) == ()
