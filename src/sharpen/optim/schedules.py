"""Learning-rate schedules as pure functions of the step, so that resuming needs no state.

With S steps in all, W of warm-up, a floor r (``min_ratio``) and step t counted from 0::

    warm-up    (t + 1) / W                                  for t < W
    constant   1
    linear     1 - (1 - r) u                                u = (t - W) / (S - W)
    cosine     r + (1 - r) (1 + cos(pi u)) / 2              (Loshchilov & Hutter, SGDR, 2016)
    wsd        1, then 1 - (1 - r) v over the last D steps  v = (t - (S - D)) / D
               (warm-up, stable, decay: Hu et al., MiniCPM, 2024)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from sharpen.core.errors import ConfigError

__all__ = ["Schedule"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule:
    """The factor of the peak learning rate at each step."""

    steps: int
    """Optimizer steps in all."""

    kind: Literal["cosine", "linear", "wsd", "constant"] = "cosine"
    """Shape after warm-up."""

    warmup: float = 0.01
    """Warm-up: a number of steps when 1 or more, else a share of ``steps``."""

    min_ratio: float = 0.1
    """The floor, as a share of the peak."""

    decay_frac: float = 0.2
    """``wsd``: share of ``steps`` that decays."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.steps < 1:
            raise ConfigError(f"steps={self.steps} must be at least 1.")
        if self.warmup < 0 or self.warmup_steps > self.steps:
            raise ConfigError(
                f"warmup={self.warmup} must be from 0 to steps={self.steps} (below 1 is a share)."
            )
        if not 0 <= self.min_ratio <= 1:
            raise ConfigError(f"min_ratio={self.min_ratio} must be from 0 to 1.")
        if not 0 < self.decay_frac <= 1:
            raise ConfigError(f"decay_frac={self.decay_frac} must be above 0 and at most 1.")

    @property
    def warmup_steps(self) -> int:
        """Number of warm-up steps."""
        return int(self.warmup) if self.warmup >= 1 else math.ceil(self.warmup * self.steps)

    def factor(self, step: int) -> float:
        """The factor at ``step``, counted from 0; past the end it stays at its last value."""
        warmup = self.warmup_steps
        if step < warmup:
            return (step + 1) / warmup
        if self.kind == "constant":
            return 1.0
        if self.kind == "wsd":
            decay = max(1, math.ceil(self.decay_frac * self.steps))
            progress = (step - (self.steps - decay)) / decay
        else:
            progress = (step - warmup) / max(1, self.steps - warmup)
        progress = min(max(progress, 0.0), 1.0)
        if self.kind == "cosine":
            return self.min_ratio + (1 - self.min_ratio) * (1 + math.cos(math.pi * progress)) / 2
        return 1 - (1 - self.min_ratio) * progress
