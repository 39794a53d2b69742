"""Stopping trials early by their learning curves.

The median rule: Daniel Golovin et al., "Google Vizier: A Service for Black-Box Optimization",
KDD 2017, section 3.2.2.

::

    stop trial t at step s  if  best(loss of t up to s) > median over others of mean(loss up to s)

Differs from the paper: None. Time O(n) a report for n finished trials with s points each.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from sharpen.core.errors import ConfigError

__all__ = ["Median", "Pruner"]

Curve = Sequence[tuple[int, float]]
"""Steps and losses (less is better), by step."""


class Pruner(Protocol):
    """Decides, at each report, whether a trial is worth going on."""

    def should_stop(self, curve: Curve, others: Sequence[Curve]) -> bool:
        """Whether to stop.

        Args:
            curve: the trial's so far.
            others: of trials that ended well.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Median:
    """Stops a trial whose best loss so far is worse than the median of the others' means."""

    min_trials: int = 4
    """Finished trials needed before any is stopped."""

    warmup_steps: int = 0
    """No trial is stopped at or before this step."""

    def __post_init__(self) -> None:
        if self.min_trials < 1 or self.warmup_steps < 0:
            raise ConfigError(
                f"min_trials={self.min_trials} must be at least 1 and "
                f"warmup_steps={self.warmup_steps} at least 0 (Median)."
            )

    def should_stop(self, curve: Curve, others: Sequence[Curve]) -> bool:
        """See :meth:`Pruner.should_stop`."""
        step = curve[-1][0]
        if step <= self.warmup_steps:
            return False
        means = [
            statistics.fmean(losses)
            for other in others
            if (losses := [loss for at, loss in other if at <= step])
        ]
        if len(means) < self.min_trials:
            return False
        return min(loss for _, loss in curve) > statistics.median(means)
