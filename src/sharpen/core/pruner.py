"""Stopping trials early by their learning curves: the contract, and rules that look at one step.

Medians and percentiles: Daniel Golovin et al., "Google Vizier: A Service for Black-Box
Optimization", KDD 2017, section 3.2.2. Patience: Lutz Prechelt, "Early Stopping - But When?", in
Neural Networks: Tricks of the Trade, 1998.

::

    best(t, s), mean(t, s)    of the losses that trial t has reported up to step s
    Percentile p   stop if  best(t, s) > the p-th percentile over finished others of mean(., s)
    Median         the same with p = 50
    Threshold      stop if  the last value < lower, > upper, or not a finite number
    Patience k     stop if  the best of the last k losses is not below the best before them, or by
                            less than min_delta
    PlateauNoise   stop if  the slope b of the least-squares line through the last k losses is
                            b >= -z s_b,  s_b^2 = sum r^2 / (k - 2) / sum (t - mean t)^2,
                            r its residuals

The last is the test for the slope of a linear regression (George Snedecor and William Cochran,
"Statistical Methods", 8th edition, 1989, section 9.3): noise that by chance finds a new best value
does not keep a trial going, as it does with Patience. Its noise is taken to be independent.

Percentiles are interpolated. Differs from the sources: Vizier has the median alone; the limit of
the test is a number of standard errors, not a quantile.
Time O(n log s) a report for n trials with s points each.
"""

from __future__ import annotations

import math
import statistics
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from sharpen.core.errors import ConfigError

__all__ = ["Curve", "Median", "Patience", "Percentile", "PlateauNoise", "Pruner", "Threshold"]


class Curve:
    """What a trial has reported, by step.

    Args:
        number: the trial's number.
        points: ascending steps and values of the first objective, as reported.
        is_max: whether more is better.
        is_finished: whether the trial ended well; otherwise it runs or was stopped.
    """

    __slots__ = ("_best", "_sums", "is_finished", "is_max", "losses", "number", "steps", "values")

    def __init__(
        self,
        number: int,
        points: Iterable[tuple[int, float]],
        *,
        is_max: bool = False,
        is_finished: bool = True,
    ) -> None:
        self.number = number
        self.is_max = is_max
        self.is_finished = is_finished
        self.steps: list[int] = []
        """Steps, ascending."""
        self.values: list[float] = []
        """Values as they were reported."""
        self.losses: list[float] = []
        """The same such that less is better; infinite where it is no number."""
        self._best: list[float] = []
        self._sums: list[float] = []
        for step, value in points:
            self.add(step, value)

    def add(self, step: int, value: float) -> None:
        """Add a report; one of an earlier step than the last counts as at the last."""
        loss = -value if self.is_max else value
        loss = math.inf if math.isnan(loss) else loss
        self._best.append(min(loss, self._best[-1]) if self._best else loss)
        self._sums.append(loss + (self._sums[-1] if self._sums else 0.0))
        self.steps.append(max(step, self.steps[-1]) if self.steps else step)
        self.values.append(value)
        self.losses.append(loss)

    def __len__(self) -> int:
        return len(self.steps)

    def count(self, step: int) -> int:
        """Number of points up to and at a step."""
        return bisect_right(self.steps, step)

    def least(self, n: int) -> float:
        """The least of the first ``n`` losses."""
        return self._best[n - 1]

    def best(self, step: int) -> float:
        """The least loss up to a step that it has reached."""
        return self.least(self.count(step))

    def mean(self, step: int) -> float:
        """The mean of losses up to a step that it has reached."""
        n = self.count(step)
        return self._sums[n - 1] / n


class Pruner(Protocol):
    """Decides, at each report, whether a trial is worth going on."""

    def should_stop(self, curve: Curve, others: Sequence[Curve]) -> bool:
        """Whether to stop.

        Args:
            curve: the trial's, with its latest report.
            others: of trials that ended well, that were stopped, and of those that run in this
                process.
        """


def _needs(is_right: bool, pruner: object, text: str) -> None:
    if not is_right:
        raise ConfigError(f"{text} ({type(pruner).__name__}).")


def _is_behind(
    curve: Curve, others: Sequence[Curve], percentile: float, min_trials: int, warmup_steps: int
) -> bool:
    """Whether the best loss is above a percentile of the means of finished others."""
    step = curve.steps[-1]
    if step <= warmup_steps:
        return False
    means = sorted(o.mean(step) for o in others if o.is_finished and o.count(step))
    if len(means) < min_trials:
        return False
    place = (len(means) - 1) * percentile / 100
    low, high = means[math.floor(place)], means[math.ceil(place)]
    share = place - math.floor(place)
    return curve.best(step) > (low if low == high else low + (high - low) * share)


@dataclass(frozen=True, slots=True, kw_only=True)
class Percentile:
    """Stops a trial whose best loss is worse than a percentile of the others' means."""

    percentile: float = 25.0
    """How many of a hundred trials may go on, about; above 0 and below 100."""

    min_trials: int = 4
    """Finished trials needed before any is stopped."""

    warmup_steps: int = 0
    """No trial is stopped at or before this step."""

    def __post_init__(self) -> None:
        p, n, w = self.percentile, self.min_trials, self.warmup_steps
        _needs(0 < p < 100, self, f"percentile={p} must be above 0 and below 100")
        _needs(n >= 1, self, f"min_trials={n} must be at least 1")
        _needs(w >= 0, self, f"warmup_steps={w} must be at least 0")

    def should_stop(self, curve: Curve, others: Sequence[Curve]) -> bool:
        """See :meth:`Pruner.should_stop`."""
        return _is_behind(curve, others, self.percentile, self.min_trials, self.warmup_steps)


@dataclass(frozen=True, slots=True, kw_only=True)
class Median:
    """Stops a trial whose best loss so far is worse than the median of the others' means."""

    min_trials: int = 4
    """Finished trials needed before any is stopped."""

    warmup_steps: int = 0
    """No trial is stopped at or before this step."""

    def __post_init__(self) -> None:
        n, w = self.min_trials, self.warmup_steps
        _needs(n >= 1, self, f"min_trials={n} must be at least 1")
        _needs(w >= 0, self, f"warmup_steps={w} must be at least 0")

    def should_stop(self, curve: Curve, others: Sequence[Curve]) -> bool:
        """See :meth:`Pruner.should_stop`."""
        return _is_behind(curve, others, 50, self.min_trials, self.warmup_steps)


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """Stops a trial that reports a value out of bounds, or none that is finite."""

    lower: float | None = None
    """Least allowed value, in the objective's own unit and direction."""

    upper: float | None = None
    """Largest allowed value, in the objective's own unit and direction."""

    warmup_steps: int = 0
    """No trial is stopped at or before this step."""

    def __post_init__(self) -> None:
        bounds = [bound for bound in (self.lower, self.upper) if bound is not None]
        _needs(bool(bounds), self, "give lower or upper, the bounds of the reported value")
        _needs(bounds == sorted(bounds), self, f"lower={self.lower} is above upper={self.upper}")
        _needs(self.warmup_steps >= 0, self, f"warmup_steps={self.warmup_steps} must be at least 0")

    def should_stop(self, curve: Curve, others: Sequence[Curve]) -> bool:
        """See :meth:`Pruner.should_stop`."""
        value = curve.values[-1]
        if curve.steps[-1] <= self.warmup_steps:
            return False
        is_within = (self.lower is None or value >= self.lower) and (
            self.upper is None or value <= self.upper
        )
        return not (math.isfinite(value) and is_within)


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """Stops a trial that no longer improves, whatever others do."""

    patience: int = 10
    """Reports without an improvement before it is stopped."""

    min_delta: float = 0.0
    """Smallest decrease of the loss that is an improvement."""

    def __post_init__(self) -> None:
        _needs(self.patience >= 1, self, f"patience={self.patience} must be at least 1")
        _needs(self.min_delta >= 0, self, f"min_delta={self.min_delta} must be at least 0")

    def should_stop(self, curve: Curve, others: Sequence[Curve]) -> bool:
        """See :meth:`Pruner.should_stop`."""
        if len(curve) <= self.patience:
            return False
        before = curve.least(len(curve) - self.patience)
        after = min(curve.losses[-self.patience :])
        return not (after < before and before - after >= self.min_delta)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlateauNoise:
    """Stops a trial whose loss no longer falls by more than its noise explains."""

    window: int = 20
    """Last reports that the line goes through; before so many, no trial is stopped."""

    errors: float = 2.0
    """z: standard errors by which the slope must be below zero for the trial to go on."""

    warmup_steps: int = 0
    """No trial is stopped at or before this step."""

    def __post_init__(self) -> None:
        _needs(self.window >= 3, self, f"window={self.window} must be at least 3")
        _needs(self.errors >= 0, self, f"errors={self.errors} must be at least 0")
        _needs(self.warmup_steps >= 0, self, f"warmup_steps={self.warmup_steps} must be at least 0")

    def should_stop(self, curve: Curve, others: Sequence[Curve]) -> bool:
        """See :meth:`Pruner.should_stop`; losses that are not finite are left out."""
        if len(curve) < self.window or curve.steps[-1] <= self.warmup_steps:
            return False
        last = zip(curve.steps[-self.window :], curve.losses[-self.window :], strict=True)
        points = [(step, loss) for step, loss in last if math.isfinite(loss)]
        steps, losses = [float(step) for step, _ in points], [loss for _, loss in points]
        if len(set(steps)) < 3:
            return False
        slope, intercept = statistics.linear_regression(steps, losses)
        residual = sum((y - intercept - slope * t) ** 2 for t, y in points)
        spread = sum((t - statistics.fmean(steps)) ** 2 for t in steps)
        return slope >= -self.errors * math.sqrt(residual / (len(points) - 2) / spread)
