"""Learning-rate schedules as pure functions of the step, so that resuming needs no state.

With S steps in all, W of warm-up, a floor r (``min_ratio``) and step t counted from 0::

    warm-up    (t + 1) / W                                  for t < W
    constant   1
    linear     1 - (1 - r) u                                u = (t - W) / (S - W)
    cosine     r + (1 - r) (1 + cos(pi u)) / 2              (Loshchilov & Hutter, SGDR, 2016)
    wsd        1, then 1 - (1 - r) v over the last D steps  v = (t - (S - D)) / D
               (warm-up, stable, decay: Hu et al., MiniCPM, 2024)
    inv_sqrt   max(r, sqrt(W / (t + 1)))                    (Vaswani et al., Attention, 2017)
    one_cycle  1/25 up to 1, then down to r, both along half a cosine, at t = W - 1 and S - 1
               (Smith & Topin, Super-Convergence, 2018; cosines as in torch and fastai)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from sharpen.core.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from torch.optim.lr_scheduler import LambdaLR

__all__ = [
    "Schedule",
    "ScheduleKind",
    "constant",
    "inv_sqrt",
    "one_cycle",
    "warmup_cosine",
    "warmup_linear",
    "wsd",
]

ScheduleKind = Literal["cosine", "linear", "wsd", "constant", "inv_sqrt", "one_cycle"]
_CYCLE_START = 1 / 25


@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule:
    """The factor of the peak learning rate at each step."""

    steps: int
    """Optimizer steps in all."""

    kind: ScheduleKind = "cosine"
    """Shape after warm-up."""

    warmup: float = 0.01
    """Warm-up: a number of steps when 1 or more, else a share of ``steps``."""

    min_ratio: float = 0.1
    """The floor, as a share of the peak."""

    decay_frac: float = 0.2
    """``wsd``: share of ``steps`` that decays."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.kind not in get_args(ScheduleKind):
            known = ", ".join(get_args(ScheduleKind))
            raise ConfigError(f"kind={self.kind!r} must be one of {known}.")
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
        if self.kind == "one_cycle":
            return self._one_cycle(min(step, self.steps - 1))
        if step < warmup:
            return (step + 1) / warmup
        if self.kind == "constant":
            return 1.0
        if self.kind == "inv_sqrt":
            last = min(step, self.steps) + 1
            return max(self.min_ratio, math.sqrt(max(warmup, 1) / last))
        if self.kind == "wsd":
            decay = max(1, math.ceil(self.decay_frac * self.steps))
            progress = (step - (self.steps - decay)) / decay
        else:
            progress = (step - warmup) / max(1, self.steps - warmup)
        progress = min(max(progress, 0.0), 1.0)
        if self.kind == "cosine":
            return _along_cosine(1.0, self.min_ratio, progress)
        return 1 - (1 - self.min_ratio) * progress

    def _one_cycle(self, step: int) -> float:
        top = self.warmup_steps - 1
        if step < top:
            return _along_cosine(_CYCLE_START, 1.0, step / top)
        top = max(top, 0)
        return _along_cosine(1.0, self.min_ratio, (step - top) / max(1, self.steps - 1 - top))


def _along_cosine(start: float, end: float, progress: float) -> float:
    """From ``start`` to ``end`` along half a cosine."""
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2


def _scheduler(optimizer: torch.optim.Optimizer, schedule: Schedule) -> LambdaLR:
    from torch.optim.lr_scheduler import LambdaLR

    return LambdaLR(optimizer, schedule.factor)


def warmup_cosine(
    optimizer: torch.optim.Optimizer, steps: int, warmup: float = 0.01, min_ratio: float = 0.1
) -> LambdaLR:
    """Torch's scheduler of the ``cosine`` schedule; its own ``step`` is called after each step.

    Args:
        optimizer: its groups' learning rates are the peaks.
        steps: optimizer steps in all.
        warmup: steps when 1 or more, else a share of ``steps``.
        min_ratio: the floor, as a share of the peak.

    Raises:
        ConfigError: a value is out of its range.

    Examples:
        >>> import torch
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
        >>> scheduler = warmup_cosine(optimizer, steps=4, warmup=2, min_ratio=0.0)
        >>> scheduler.get_last_lr()
        [0.5]
    """
    return _scheduler(optimizer, Schedule(steps=steps, warmup=warmup, min_ratio=min_ratio))


def warmup_linear(
    optimizer: torch.optim.Optimizer, steps: int, warmup: float = 0.01, min_ratio: float = 0.1
) -> LambdaLR:
    """Torch's scheduler of the ``linear`` schedule; arguments as of :func:`warmup_cosine`."""
    schedule = Schedule(steps=steps, kind="linear", warmup=warmup, min_ratio=min_ratio)
    return _scheduler(optimizer, schedule)


def wsd(
    optimizer: torch.optim.Optimizer,
    steps: int,
    warmup: float = 0.01,
    min_ratio: float = 0.1,
    decay_frac: float = 0.2,
) -> LambdaLR:
    """Torch's scheduler of warm-up, a level, and decay over the last share of the steps.

    Args:
        optimizer: as of :func:`warmup_cosine`, as the next three are.
        steps: in all.
        warmup: steps or share.
        min_ratio: the floor.
        decay_frac: share of ``steps`` that decays.
    """
    schedule = Schedule(
        steps=steps, kind="wsd", warmup=warmup, min_ratio=min_ratio, decay_frac=decay_frac
    )
    return _scheduler(optimizer, schedule)


def constant(optimizer: torch.optim.Optimizer, warmup: int = 0) -> LambdaLR:
    """Torch's scheduler of a constant rate after ``warmup`` steps."""
    return _scheduler(optimizer, Schedule(steps=max(warmup, 1), kind="constant", warmup=warmup))


def inv_sqrt(
    optimizer: torch.optim.Optimizer, steps: int, warmup: float = 0.01, min_ratio: float = 0.0
) -> LambdaLR:
    """Torch's scheduler of the ``inv_sqrt`` schedule; arguments as of :func:`warmup_cosine`."""
    schedule = Schedule(steps=steps, kind="inv_sqrt", warmup=warmup, min_ratio=min_ratio)
    return _scheduler(optimizer, schedule)


def one_cycle(
    optimizer: torch.optim.Optimizer, steps: int, warmup: float = 0.3, min_ratio: float = 4e-6
) -> LambdaLR:
    """Torch's scheduler of the ``one_cycle`` schedule; arguments as of :func:`warmup_cosine`."""
    schedule = Schedule(steps=steps, kind="one_cycle", warmup=warmup, min_ratio=min_ratio)
    return _scheduler(optimizer, schedule)
