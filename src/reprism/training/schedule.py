"""The learning rate over epochs."""

from __future__ import annotations

import math

from reprism.training.recipes import OptimizerSettings


def learning_rate_factor(settings: OptimizerSettings, epoch: float) -> float:
    """Return the learning rate at a moment as a fraction of the peak; ``epoch`` counts from 0, with fractions."""
    if epoch < settings.warmup:
        return max(epoch, 1e-3) / settings.warmup
    if settings.schedule == "cosine":
        done = (epoch - settings.warmup) / max(1e-9, settings.epochs - settings.warmup)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
    return settings.gamma ** sum(epoch >= milestone for milestone in settings.milestones)
