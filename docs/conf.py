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
include_patterns = ["docs/**", "SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md"]
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
