"""Numbers that a benchmark's server has answered: a text file of names and values, read and checked.

    benchmark youtube-vos2018
    dataset   youtube2018        # optional: what evaluation.also calls it; its scores stand under that name
    G   86.1
    J_S 85.8
    J_U 80.0
    F_S 90.5
    F_U 88.0

`name: value` and `name = value` are read too, and the servers' own names (`Overall`, `J_seen`, `J&F-Mean`, …), so that
their scores.txt needs nothing but the first line. Values are percentages, or fractions if none is above 1.
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ovos_ray.errors import ConfigError, EvaluationError
from ovos_ray.evaluate.score.submission import BENCHMARKS

__all__ = ["SERVER_TAG", "ServerScores", "read_server_scores"]

SERVER_TAG = "ovos.server."
"""Begins the MLflow tags that say, by the name of a run's scores, which benchmark's server gave them."""

_YOUTUBE = {
    "g": ("g", "overall", "average", "score"),
    "j_s": ("j_s", "j_seen"),
    "j_u": ("j_u", "j_unseen"),
    "f_s": ("f_s", "f_seen"),
    "f_u": ("f_u", "f_unseen"),
}
_DAVIS = {
    "jf": ("jf", "j&f", "j&f-mean", "globalmean", "g"),
    "j": ("j", "j-mean", "jmean", "meanj"),
    "f": ("f", "f-mean", "fmean", "meanf"),
}
"""What a score is called here, with what else it is called; the first is the mean of the others."""

_ROUNDED = 0.1  # percent; the servers give one digit and more


@dataclass(frozen=True)
class ServerScores:
    """What a server has answered.

    Attributes:
        benchmark: One of `submission.BENCHMARKS`.
        name: What its scores stand under: `NAME/g`.
        scores: In percent, by metric: `g`, `j_s`, … for YouTube-VOS, `jf`, `j`, `f` for DAVIS.
    """

    benchmark: str
    name: str
    scores: Mapping[str, float]

    @property
    def dataset(self) -> str:
        """The benchmark as the paper's tables name it: `youtube-vos2018/val`, `davis2017/test-dev`."""
        dataset, _, split = self.benchmark.partition("-test")
        return f"{dataset}/test{split}" if split else f"{dataset}/val"


def read_server_scores(path: Path) -> ServerScores:
    """Reads such a file.

    Raises:
        ConfigError: There is no such file, or it does not say whose scores it holds.
        EvaluationError: A score is missing, is no percentage, or the overall one is not the mean of its parts.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read ({error})", "give a text file of names and values") from error
    words: dict[str, str] = {}
    for line in lines:
        if found := re.match(r"\s*([A-Za-z][\w&-]*)\s*(?:[:=]\s*|\s)\s*([^\s#]+)\s*(?:#.*)?$", line):
            words[found[1].lower()] = found[2]
        elif line.strip() and not line.lstrip().startswith("#"):
            raise EvaluationError(
                f"{path}: {line.strip()[:80]!r} is not a name and a value", "write lines such as: G 86.1"
            )
    benchmark = words.get("benchmark", "")
    if benchmark not in BENCHMARKS:
        raise ConfigError(
            f"{path}: does not say whose scores these are" if not benchmark else f"{path}: no benchmark {benchmark!r}",
            f"begin it with a line `benchmark NAME`, one of {', '.join(BENCHMARKS)}",
        )
    scores = _scores(path, words, _YOUTUBE if benchmark.startswith("youtube") else _DAVIS)
    return ServerScores(benchmark, words.get("dataset", benchmark), scores)


def _scores(path: Path, words: Mapping[str, str], names: Mapping[str, tuple[str, ...]]) -> dict[str, float]:
    found = {key: next((words[name] for name in known if name in words), None) for key, known in names.items()}
    if missing := [known[0].upper() for key, known in names.items() if found[key] is None]:
        raise EvaluationError(f"{path}: {', '.join(missing)} missing", "enter every score that the server gives")
    try:
        values = {key: float(str(text).removesuffix("%")) for key, text in found.items()}
    except ValueError as error:
        raise EvaluationError(f"{path}: {error}", "write scores as numbers, in percent") from error
    if not all(math.isfinite(value) and 0 <= value <= 100 for value in values.values()):
        raise EvaluationError(f"{path}: {values} are not percentages", "give numbers from 0 to 100")
    if max(values.values()) <= 1:
        values = {key: 100 * value for key, value in values.items()}
    overall, *parts = values.values()
    if abs(overall - statistics.fmean(parts)) > _ROUNDED:
        raise EvaluationError(
            f"{path}: {next(iter(values)).upper()} = {overall:g}, and the mean of its parts is "
            f"{statistics.fmean(parts):.2f}",
            "compare the file with what the server says",
        )
    return values
