"""Where the command line prints: results to standard output, errors to standard error, names as they are.

Names of videos, runs and files are of others. None is read as markup, and no control character among them reaches the
terminal: it could hide, move or forge what is shown.
"""

from __future__ import annotations

import re
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

__all__ = ["Plain", "console", "counted", "duration", "errors", "printable", "progress_bar", "tell"]

# Control characters but line ends and tabs, text that reads otherwise than it is, halves of characters.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """Returns a text whose control characters are spelt out: an escape becomes a backslash and `x1b`."""
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


class Plain(Console):
    """A console that takes texts as they are: no markup, no emoji, no highlighting, nothing cut off."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, soft_wrap=True, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Returns a text as it will be shown; rich calls this for everything that is not a renderable."""
        return super().render_str(printable(text), **options)


console: Console = Plain()
errors: Console = Plain(stderr=True)


def counted(number: int, noun: str) -> str:
    """Returns `1 trial`, `2 trials`."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def duration(seconds: float) -> str:
    """Returns `40 s`, `12 min`, `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:,.1f} h"


def tell(head: str, text: object, *, style: str, where: Console = console) -> None:
    """Prints a line that begins with a few styled words."""
    where.print(Text.assemble((printable(head), style), " ", printable(str(text))))


def progress_bar() -> Progress:
    """Returns a progress bar that shows on terminals only."""
    description = TextColumn("{task.description}", markup=False)
    columns = description, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    return Progress(*columns, console=console, disable=not console.is_terminal, transient=True)
