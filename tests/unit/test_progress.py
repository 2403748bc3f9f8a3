"""What runs say about themselves reaches the terminal once, and does not pile up."""

from __future__ import annotations

from ovos_ray.run.progress import ProgressBoard, format_progress


def test_board_gives_every_record_once_and_forgets_what_was_read() -> None:
    board, seen = ProgressBoard(), []
    for step in range(1000):
        board.post({"run": "a", "step": step, "steps": 1000})
        if step % 7 == 0:
            seen += board.since(len(seen))
    seen += board.since(len(seen))
    assert [record["step"] for record in seen] == list(range(1000))
    assert board.since(1000) == []
    assert board._records == [], "a study of weeks must not fill the driver's memory"
    board.post({"run": "b", "step": 0, "steps": 1})
    assert board.since(1000) == board.since(1000), "asked again, what was not read yet is still there"


def test_lines_tell_progress_and_events() -> None:
    record = {
        "run": "a", "step": 20, "steps": 100, "train/loss": 0.5, "train/clips_per_s": 3.0, "train/data_wait": 0.02,
        "eta_s": 3725.0,
    }  # fmt: skip
    assert format_progress(record) == "step     20/100  loss 0.5000  3.0 clips/s  data wait 2 %  ETA 1:02:05"
    assert format_progress({"step": 3, "steps": 9, "event": "resumed"}) == "step      3/9  resumed"
