"""The documentation as a site: `make docs`. The pages are the Markdown files as GitHub shows them, links and all.

The source folder is the repository itself, so that a link to `../SECURITY.md` means the same here and there;
`include_patterns` says which files are pages.
"""

from __future__ import annotations

import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

project = "ovos_ray"
author = "the ovos_ray authors"
copyright = author

root_doc = "docs/index"
include_patterns = ["docs/**", "SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md"]
include_patterns += ["benchmarks/README.md", "tests/README.md"]
exclude_patterns = ["docs/_build", "docs/studies/**"]

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode", "sphinxcontrib.typer"]
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_numpy_docstring = False

html_theme = "furo"
html_title = "ovos_ray"
html_extra_path = ["site"]  # index.html of the whole leads to docs/
html_static_path = ["static"]
html_css_files = ["site.css"]
html_show_sphinx = False
highlight_language = "bash"  # of indented blocks, most of which are commands


def _add_settings(app: object, docname: str, source: list[str]) -> None:
    """Writes the table of `docs/all-settings.md`, which is never stale."""
    if docname != "docs/all-settings":
        return
    from ovos_ray.config.explain import explain

    lines = [source[0], "| setting | default | may be | meaning |", "| --- | --- | --- | --- |"]
    for meaning in explain().values():
        may_be = ", ".join(f"`{choice}`" for choice in meaning.choices) or meaning.limits
        cells = f"`{meaning.key}`", f"`{meaning.default!r}`", may_be, meaning.text
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    source[0] = "\n".join(lines)


def setup(app: object) -> None:
    """Called by Sphinx."""
    app.connect("source-read", _add_settings)  # type: ignore[attr-defined]
