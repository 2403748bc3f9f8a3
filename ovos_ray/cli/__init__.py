"""The command line: thin verbs over the rooms of the package."""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """Runs `ovos-ray`; errors the project knows are printed with their remedy and exit with 1."""
    from ovos_ray.cli.app import run

    run()
