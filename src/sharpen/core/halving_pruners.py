"""Successive halving among running trials, by what they report: ASHA, and Hyperband of it.

Liam Li et al., "A System for Massively Parallel Hyperparameter Tuning", MLSys 2020, arXiv
1810.05934, algorithm 2, in the form that stops instead of climbing: a trial runs on from rung to
rung while it is good enough. Brackets: Lisha Li et al., "Hyperband", JMLR 18(185), 2018, arXiv
1603.06560, algorithm 1.

::

    rungs             at steps r eta^k, k = 0, 1 ..
    ASHA              at the first report at or beyond a rung: go on if the loss there is among the
                      best max(1, floor(m / eta)) of the m trials that have reached that rung
    Hyperband         s_max = floor(log_eta(R / r)); a trial belongs to one of the brackets
                      s = 0 .. s_max and is compared with those of its bracket alone; bracket s is
                      ASHA with r = R eta^-s, and gets ceil((s_max + 1) / (s + 1) eta^s) trials of a
                      round, spread evenly over the round by number

Trials that were stopped on a rung count there; of equal losses all go on. A trial is judged on a
rung with what is known when it comes there, so the first goes on.

Differs from the papers: the form that stops, as said; trials of all brackets take turns.
Time O(n log s) a rung for n trials with s points each.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from sharpen.core.errors import ConfigError
from sharpen.core.pruner import Curve

__all__ = ["ASHA", "Hyperband"]


def _rung(last: int, before: int, low: int, eta: int) -> int | None:
    """The highest rung in (before, last]; None is none."""
    rung = low
    while rung * eta <= last:
        rung *= eta
    return rung if before < rung <= last else None


def _loss_at(curve: Curve, rung: int) -> float | None:
    """The loss at the first report at or beyond a rung; None if there is none yet."""
    place = bisect_left(curve.steps, rung)
    return curve.losses[place] if place < len(curve) else None


@lru_cache
def _round(low: int, high: int, eta: int) -> tuple[int, ...]:
    """The brackets of the trials of one round of Hyperband, by number; rounds repeat."""
    s_max = 0
    while low * eta ** (s_max + 1) <= high:
        s_max += 1
    sizes = {s: -(-(s_max + 1) * eta**s // (s + 1)) for s in range(s_max + 1)}
    places = [((k + 0.5) / n, -s) for s, n in sizes.items() for k in range(n)]
    return tuple(-s for _, s in sorted(places))


@dataclass(frozen=True, slots=True, kw_only=True)
class ASHA:
    """Lets the best 1 / eta of those that reach a rung go on; see the module for the method."""

    min_steps: int = 1
    """Step of the first rung."""

    eta: int = 3
    """One in so many goes on; rungs are so many times as far as the one before."""

    def __post_init__(self) -> None:
        if self.min_steps < 1 or self.eta < 2:
            raise ConfigError(
                f"min_steps={self.min_steps} must be at least 1 and eta={self.eta} 2 (ASHA)."
            )

    def should_stop(self, curve: Curve, others: Sequence[Curve]) -> bool:
        """See :meth:`sharpen.core.pruner.Pruner.should_stop`."""
        before = curve.steps[-2] if len(curve) > 1 else 0
        rung = _rung(curve.steps[-1], before, self.min_steps, self.eta)
        if rung is None:
            return False
        found = [loss for other in others if (loss := _loss_at(other, rung)) is not None]
        allowed = max(1, (len(found) + 1) // self.eta)
        return sum(loss < curve.losses[-1] for loss in found) >= allowed


@dataclass(frozen=True, slots=True, kw_only=True)
class Hyperband:
    """Brackets of ASHA that begin to stop at different steps; see the module for the method."""

    max_steps: int
    """The last step of a trial that is never stopped."""

    min_steps: int = 1
    """Step of the first rung of the bracket that stops earliest."""

    eta: int = 3
    """One in so many goes on."""

    def __post_init__(self) -> None:
        if not (1 <= self.min_steps <= self.max_steps and self.eta >= 2):
            raise ConfigError(
                f"min_steps={self.min_steps} and max_steps={self.max_steps} must keep 1 <= "
                f"min_steps <= max_steps, and eta={self.eta} be at least 2 (Hyperband)."
            )

    def bracket(self, number: int) -> int:
        """The bracket s of a trial."""
        brackets = _round(self.min_steps, self.max_steps, self.eta)
        return brackets[number % len(brackets)]

    def should_stop(self, curve: Curve, others: Sequence[Curve]) -> bool:
        """See :meth:`sharpen.core.pruner.Pruner.should_stop`."""
        s = self.bracket(curve.number)
        if s == 0 or curve.steps[-1] >= self.max_steps:
            return False
        rule = ASHA(min_steps=max(round(self.max_steps / self.eta**s), 1), eta=self.eta)
        return rule.should_stop(curve, [o for o in others if self.bracket(o.number) == s])
