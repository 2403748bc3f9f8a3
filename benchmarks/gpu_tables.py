"""The tables of `gpu_proof.py`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["markdown"]

_STEP = (
    ("seconds", "s, back to back", "{:.4f}"), ("ratio", "ratio", "{:.2f}"), ("seconds alone", "s, alone", "{:.4f}"),
    ("ratio alone", "ratio, alone", "{:.2f}"), ("kernels s", "kernels, s", "{:.4f}"),
    ("busy", "GPU computes", "{:.0%}"),
    ("synchronisations", "waits", "{}"), ("peak MiB", "peak MiB", "{}"), ("reserved MiB", "reserved MiB", "{}"),
    ("first steps s", "first steps, s", "{:.1f}"), ("graph failed", "remark", "{}"), ("failed", "failed", "{}"),
)  # fmt: skip


def markdown(parts: Mapping[str, Any]) -> str:
    """Returns what was measured, part by part."""
    lines: list[str] = []
    for part, found in parts.items():
        machine = found["machine"]
        lines += [
            f"## Part ({part})",
            "",
            f"{machine['device']}, torch {machine['torch']} (CUDA {machine['cuda']}), Python {machine['python']}, "
            f"{machine['cpus']} CPUs{', tiny: no figure is of use' if machine['tiny'] else ''}; "
            f"{found.get('seconds', 'not finished,')} s in all",
            "",
        ]
        rest = {key: value for key, value in found.items() if key not in ("machine", "seconds")}
        lines += _steps(rest) if part == "a" else _plain(rest)
        lines.append("")
    return "\n".join(lines)


def _steps(found: Mapping[str, Any]) -> list[str]:
    rows, others = [], {}
    for network, variants in found.items():
        if not any(isinstance(value, Mapping) and "first loss" in value for value in variants.values()):
            others[network] = variants
            continue
        for variant, values in variants.items():
            rows.append([network, variant, *(_cell(values, key, form) for key, _, form in _STEP)])
    table = _table(["network", "variant", *(title for _, title, _ in _STEP)], rows)
    return [*table, "", *_kernels(found), *_plain(others)]


def _kernels(found: Mapping[str, Any]) -> list[str]:
    """Where the time of a step with a graph goes; the file has the kernels of the other variants, too."""
    rows = [
        [
            network,
            f"`{kernel['kernel'][:90]}`",
            str(kernel["calls"]),
            f"{1e3 * kernel['seconds']:.2f}",
            f"{kernel['share']:.1%}",
        ]
        for network, variants in found.items()
        if isinstance(graph := variants.get("graph"), Mapping)
        for kernel in graph.get("kernels", ())
    ]
    return [*_table(["network", "kernel of a step with a graph", "calls", "ms", "share"], rows), ""] if rows else []


def _cell(values: Mapping[str, Any], key: str, form: str) -> str:
    return form.format(values[key]) if values.get(key) is not None else ""


def _plain(found: Mapping[str, Any]) -> list[str]:
    rows = []
    for key, value in found.items():
        values = value if isinstance(value, Mapping) else {"": value}
        rows += [[key, name, _short(item)] for name, item in values.items()]
    return _table(["what", "", "value"], rows) if rows else []


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_short(item)}" for key, item in value.items())
    return str(value)


def _table(titles: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    titles = list(titles)
    head = ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]
    return [
        *head,
        *("| " + " | ".join(cell.replace("|", "/").replace("\n", " ") for cell in row) + " |" for row in rows),
    ]
