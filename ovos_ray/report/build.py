"""Report of one study: `ovos-ray report` as a function, which writes the page, the tables and the films."""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ovos_ray.errors import ConfigError
from ovos_ray.io import atomic_path
from ovos_ray.paths import checked_name
from ovos_ray.report.numbers.axes import axis_effects
from ovos_ray.report.numbers.comparison import compare
from ovos_ray.report.numbers.rows import Comparison
from ovos_ray.report.numbers.significance import against_best
from ovos_ray.report.numbers.verdict import verdict
from ovos_ray.report.page import Content, leading_rows, render_page
from ovos_ray.report.paper.exports import paper_csv, paper_latex, paper_markdown
from ovos_ray.report.paper.paper import paper_tables
from ovos_ray.report.pictures.cycle import cycle_gallery
from ovos_ray.report.pictures.emergence import emergence_galleries
from ovos_ray.report.pictures.films import write_films
from ovos_ray.report.pictures.galleries import choose_sequences, copying_galleries, overlay_galleries
from ovos_ray.report.pictures.pictures import Gallery, decode, or_nothing
from ovos_ray.report.pictures.stored import Buckets, in_bucket, stored_predictions
from ovos_ray.report.pictures.traces import traces
from ovos_ray.report.read import load_study
from ovos_ray.report.tables import csv_table, latex_table, markdown_table, note_text, render_table
from ovos_ray.track.sender import connect

__all__ = ["Report", "build_report", "compare_study", "render_table"]

_log = logging.getLogger(__name__)
_CYCLES = 2
_FILES = ("report.html", "report.md", "report.csv", "report.tex", "paper.csv", "paper.tex")
_MANIFEST = ".ovos-report.json"
"""Names the films that a report has written: the next one removes those and nothing else."""


@dataclass(frozen=True)
class Report:
    """What `build_report` wrote.

    Attributes:
        html: The page, one self-contained file.
        markdown: The tables for a README or a pull request.
        csv: The comparison in full precision.
        latex: The comparison for a paper.
        comparison: The rows behind all of them.
    """

    html: Path
    markdown: Path
    csv: Path
    latex: Path
    comparison: Comparison


def compare_study(experiment: str, tracking_uri: str) -> Comparison:
    """Reads a study's final scores without its curves: enough for tables and their tests, and quick.

    Raises:
        TrackingError: The store cannot be read or has no such experiment.
    """
    return compare(load_study(experiment, tracking_uri, curves=()))


def build_report(
    experiment: str,
    tracking_uri: str,
    out: Path,
    *,
    sequences: Sequence[str] = (),
    attach: bool = True,
    stage_0: Sequence[str] = (),
) -> Report:
    """Reads a study from MLflow and writes its comparison.

    Args:
        experiment: Name of the MLflow experiment.
        tracking_uri: Where MLflow keeps it.
        out: Folder for `report.html`, `report.md`, `report.csv`, `report.tex`, `paper.csv` and `paper.tex`; made
            if absent. Animated overlays go to `films/`.
        sequences: Sequences to show pictures of, instead of the worst, a middling and the best one.
        attach: Also store the page with the sweep's MLflow run, the table as its note, and overlays with their runs.
        stage_0: As for `paper_tables`.

    Raises:
        TrackingError: The store cannot be read or has no such experiment, or a sequence was not scored.
        MissingExtraError: matplotlib, jinja2 or scipy is not installed.
        ConfigError: `out` holds a file of one of these names that no report has written.
    """
    _check_target(out)
    comparison = compare(load_study(experiment, tracking_uri))
    tables = paper_tables(comparison, stage_0)
    leading = leading_rows(comparison)
    differences, effects = against_best(comparison), axis_effects(comparison)
    texts = {
        "report.md": markdown_table(comparison) + paper_markdown(tables),
        "report.csv": csv_table(comparison),
        "report.tex": latex_table(comparison),
        "paper.csv": paper_csv(tables),
        "paper.tex": paper_latex(tables),
    }
    buckets = Buckets()
    stored = stored_predictions(leading, buckets)
    chosen = choose_sequences(stored, sequences)
    traced = tuple(chosen) if any(in_bucket(one.place) for one in stored) else ()  # what is shown is fetched, no more
    found = traces(stored, traced)
    galleries = overlay_galleries(stored, chosen)
    page = render_page(
        Content(
            comparison,
            differences,
            effects,
            tables,
            found,
            galleries,
            copying_galleries(stored, found, sequences),
            emergence_galleries(comparison.rows, buckets),
            tuple(cycle for row in leading if (cycle := cycle_gallery(row, tracking_uri)) is not None)[:_CYCLES],
            texts,
            traced,
        )
    )
    for name, text in {**texts, "report.html": page}.items():
        with atomic_path(out / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    films = write_films(stored, _make_room(out, list(chosen)))
    report = Report(out / "report.html", out / "report.md", out / "report.csv", out / "report.tex", comparison)
    if attach:
        note = note_text(comparison, verdict(comparison, differences, effects))
        try:
            _attach(report, note, galleries, films)
        except Exception as error:  # the report is written; the store, its artifacts or a name in it may be at fault
            _log.warning("the report could not be attached to its runs in MLflow: %s", error)
    return report


def _check_target(out: Path) -> None:
    """Refuses to write over files that are not a report's, which has all of them."""
    there = [name for name in _FILES if (out / name).exists()]
    if there and len(there) < len(_FILES) and not (out / _MANIFEST).is_file():
        raise ConfigError(
            f"{out} holds {', '.join(there)}, which no report has written", "give another --out, or move it away"
        )


def _make_room(out: Path, sequences: Sequence[str]) -> dict[str, Path]:
    """Removes the films of an earlier report, notes which come now, and returns where; a user's own film stays."""
    folder, manifest = out / "films", out / _MANIFEST
    try:
        listed = json.loads(manifest.read_text(encoding="utf-8"))["films"]
        before = {name for name in listed if Path(name).name == name and name.endswith(".mp4")}
    except (OSError, ValueError, KeyError, TypeError):
        before = set()
    for name in before:
        (folder / name).unlink(missing_ok=True)
    films = {}
    for sequence in sequences:
        name = f"{sequence.replace('/', '-')}.mp4"
        if or_nothing(functools.partial(checked_name, name, "sequence", "scores.csv"), f"film of {name!r}") is None:
            continue
        if (folder / name).exists():
            _log.warning("no film of %s: %s exists, and no report has written it", sequence, folder / name)
        else:
            films[sequence] = folder / name
    with atomic_path(manifest) as temporary:
        temporary.write_text(json.dumps({"films": [path.name for path in films.values()]}), encoding="utf-8")
    return films


def _attach(report: Report, note: str, galleries: Sequence[Gallery], films: Sequence[Path]) -> None:
    """Puts page and summary where a reader of MLflow finds them, at the sweep, and the overlays at their runs."""
    study = report.comparison.study
    client = connect(study.tracking_uri)
    for run in study.of_kind("sweep"):
        for path in (report.html, report.csv):
            client.log_artifact(run.run_id, str(path), "report")
        for film in films:
            client.log_artifact(run.run_id, str(film), "report/films")
        client.set_tag(run.run_id, "mlflow.note.content", note)
    for gallery in galleries:
        for strip in gallery.strips:
            if strip.run_id and strip.image:
                client.log_image(strip.run_id, decode(strip.image), f"figures/{gallery.sequence}.jpg")
