"""What a way of training is called: one word for runs, tables and filters."""

from __future__ import annotations

__all__ = ["EMPTY", "SUPERVISED", "strategy_name"]

SUPERVISED = "fully supervised"
EMPTY = "empty reference"


def strategy_name(method: str, reference: str, backward: str) -> str:
    """Returns how a network was trained, in the paper's words.

    Returns:
        `fully supervised`, `empty reference`, or the backward strategy, such as `T-step`; it says so where the
        reference is the true mask.
    """
    if method == "supervised":
        return SUPERVISED
    if reference == "true":
        return f"{backward}, true reference (all labels)"
    return EMPTY if reference == "empty" else backward
