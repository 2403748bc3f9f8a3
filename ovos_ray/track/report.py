"""`ovos-ray report`: one study as one page, and as tables to paste."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from ovos_ray.errors import MissingExtraError
from ovos_ray.io import atomic_path
from ovos_ray.track.comparison import Comparison, compare
from ovos_ray.track.figures import curve_figure
from ovos_ray.track.study import load_study
from ovos_ray.track.tables import csv_table, latex_table, markdown_table, render_table

__all__ = ["Report", "build_report", "render_table"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Report:
    """What `build_report` wrote.

    Attributes:
        html: The page, one self-contained file.
        markdown: The table for a README or an issue.
        csv: The table in full precision.
        latex: The table for a paper.
        comparison: The rows behind all of them.
    """

    html: Path
    markdown: Path
    csv: Path
    latex: Path
    comparison: Comparison


def build_report(experiment: str, tracking_uri: str, out: Path) -> Report:
    """Reads a study from MLflow and writes its comparison.

    Args:
        experiment: Name of the MLflow experiment.
        tracking_uri: Where MLflow keeps it.
        out: Folder for `report.html`, `report.md`, `report.csv` and `report.tex`; made if absent.

    Raises:
        TrackingError: The store cannot be read or has no such experiment.
        MissingExtraError: matplotlib, jinja2 or scipy is not installed.
    """
    comparison = compare(load_study(experiment, tracking_uri))
    report = Report(out / "report.html", out / "report.md", out / "report.csv", out / "report.tex", comparison)
    texts = {
        report.html: _page(comparison),
        report.markdown: markdown_table(comparison),
        report.csv: csv_table(comparison),
        report.latex: latex_table(comparison),
    }
    for path, text in texts.items():
        with atomic_path(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return report


def _page(comparison: Comparison) -> str:
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError as error:
        raise MissingExtraError("jinja2", "report", "writing the report") from error
    environment = Environment(
        loader=PackageLoader("ovos_ray.track"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    figures = [
        (title, figure)
        for title, metric, label in (
            ("J&F over training", "val/jf", "J&F on the selection split (%)"),
            ("Training IoU", "train/iou", "IoU of the reconstructed first mask"),
        )
        if (figure := curve_figure(comparison.rows, metric, label)) is not None
    ]
    return environment.get_template("report.html").render(
        comparison=comparison,
        rows=[*comparison.rows, *comparison.baselines],
        figures=figures,
        made=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
    )
