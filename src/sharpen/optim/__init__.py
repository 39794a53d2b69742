"""Gradient optimizers and learning-rate schedules."""

from sharpen.optim.adamw import adamw, split_decay
from sharpen.optim.schedules import Schedule

__all__ = ["Schedule", "adamw", "split_decay"]
