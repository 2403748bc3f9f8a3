"""What changes during training, as pure functions of the optimiser step (0 for the first step).

Nothing here holds state, so a resumed run has nothing to restore.
"""

from __future__ import annotations

from collections.abc import Sequence

from ovos_ray.config import LossConfig, OptimizerConfig
from ovos_ray.errors import ConfigError

__all__ = ["learning_rate_at", "max_skip_at", "top_fraction_at"]


def max_skip_at(step: int, num_steps: int, curriculum: Sequence[tuple[float, int]]) -> int:
    """Returns D, the largest gap between consecutive frames of a clip, in force at a step (paper section 4.1).

    Args:
        step: Optimiser step.
        num_steps: Length of the training the fractions refer to.
        curriculum: (fraction of training, D) in ascending order; a value holds from step
            `round(fraction * num_steps)` on, as in the published code of XMem and Cutie.

    Raises:
        ConfigError: The fractions do not start at 0, do not ascend, or a D is below 1.
    """
    fractions = [fraction for fraction, _ in curriculum]
    if not fractions or fractions[0] != 0 or fractions != sorted(set(fractions)) or fractions[-1] > 1:
        raise ConfigError(
            f"data.max_skip has the fractions {fractions}",
            "start at 0 and ascend to at most 1, such as [[0, 5], [0.1, 10]]",
        )
    if any(skip < 1 for _, skip in curriculum):
        raise ConfigError(f"data.max_skip = {list(curriculum)} has a gap below 1", "the smallest gap is 1 frame")
    return [skip for fraction, skip in curriculum if step >= round(fraction * num_steps)][-1]


def learning_rate_at(step: int, config: OptimizerConfig) -> float:
    """Returns the learning rate of a step: linear warm-up, then a product of the decays that were reached.

    A decay at step s holds for step s and later, as `MultiStepLR` stepped once an iteration does. The last warm-up
    step, `warm_up_steps - 1`, has the full rate and the first one is not zero.
    """
    warm_up = min(1.0, (step + 1) / config.warm_up_steps) if config.warm_up_steps else 1.0
    num_decays = sum(step >= boundary for boundary in config.decay_steps)
    return config.learning_rate * warm_up * config.decay_factor**num_decays


def top_fraction_at(step: int, config: LossConfig) -> float:
    """Returns the share of pixels that the bootstrapped cross-entropy keeps: 1, then a linear fall (STCN, XMem)."""
    if step < config.warm_up_start:
        return 1.0
    if step >= config.warm_up_end:
        return config.top_fraction
    remaining = (config.warm_up_end - step) / (config.warm_up_end - config.warm_up_start)
    return config.top_fraction + (1 - config.top_fraction) * remaining
