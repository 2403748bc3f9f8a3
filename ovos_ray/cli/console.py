"""Where the command line prints: results to standard output, errors to standard error."""

from rich.console import Console

__all__ = ["console", "errors"]

console = Console()
errors = Console(stderr=True)
