"""Templates of the report's page and tables (`templates/`), and how each kind of file escapes what is put into it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ovos_ray.errors import MissingExtraError
from ovos_ray.report.paper.paper import score_text

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["latex_escape", "markdown_escape", "render"]

_LATEX: dict[str, str | int | None] = {
    **{character: "\\" + character for character in "&%$#_{}"},
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "·": r"$\cdot$", "→": r"$\to$", "±": r"$\pm$", "–": "--",
}  # fmt: skip


class _Raw(str):
    """Text that is LaTeX or Markdown already."""


def latex_escape(text: str) -> str:
    """Returns text as LaTeX prints it, whatever commands it spells."""
    return text.translate(str.maketrans(_LATEX))


def markdown_escape(text: str) -> str:
    """Returns text as Markdown prints it in a cell of a table: no markup, no HTML, no links."""
    return re.sub(r"[\\`*\[\]<>|]|(?<!\w)_|_(?!\w)", r"\\\g<0>", text)


def _latex_symbol(label: str) -> str:
    """A measure's label with the letters of `J&F`, `J_S` or `F decay` in calligraphic."""
    name, *words = label.split(" ")
    head, _, index = name.partition("_")
    symbol = r"\&".join(rf"\mathcal{{{letter}}}" for letter in head.split("&"))
    return _Raw(" ".join([f"${symbol}_{index}$" if index else f"${symbol}$", *map(latex_escape, words)]))


def render(template: str, filters: Mapping[str, Callable[..., Any]] | None = None, **values: Any) -> str:
    """Returns a template of `templates/` filled in; whatever text is put into it is escaped for its kind of file.

    Args:
        template: Its file name, which ends in `.html`, `.md` or `.tex`.
        filters: Filters it uses, beside `score` and `symbol`.
        values: Its variables.

    Raises:
        MissingExtraError: jinja2 is not installed.
    """
    environment = _environment(template.rpartition(".")[2])
    environment.filters |= {"score": score_text, "symbol": _latex_symbol, **(filters or {})}
    return environment.get_template(template).render(**values)


def _environment(kind: str) -> Environment:
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError as error:
        raise MissingExtraError("jinja2", "report", "writing the report") from error
    options: dict[str, Any] = {"trim_blocks": True, "lstrip_blocks": True, "undefined": StrictUndefined}
    if kind == "html":
        options["autoescape"] = True
    else:
        escape = latex_escape if kind == "tex" else markdown_escape
        options |= {
            "keep_trailing_newline": True,
            "finalize": lambda value: escape(value) if type(value) is str else value,
        }
    if kind == "tex":  # whose own braces would be jinja's
        options |= {"block_start_string": "<%", "block_end_string": "%>", "comment_start_string": "<#"}
        options |= {"variable_start_string": "<<", "variable_end_string": ">>", "comment_end_string": "#>"}
    return Environment(loader=PackageLoader("ovos_ray.report"), **options)  # noqa: S701 - escaped above, for each kind
