"""What changes during training, as pure functions of the optimiser step (0 for the first step).

Nothing here holds state, so a resumed run has nothing to restore. The curriculum of D belongs to the plan of clips
(`data.clips.curricula.max_skip_at`).
"""

from __future__ import annotations

from ovos_ray.config import LossConfig, OptimizerConfig

__all__ = ["learning_rate_at", "top_fraction_at"]


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
