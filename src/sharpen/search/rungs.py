"""What optimizers that climb a ladder of fidelities share: its rungs, who is better, what is best.

::

    s_max = floor(log_eta(R / r)),   rungs R eta^(k - s_max), k = 0 .. s_max

with r and R the lowest and highest fidelity; rungs of a whole-numbered fidelity are rounded. A
trial stands on the rung that is its fidelity; one at any other fidelity is not counted. Without a
fidelity the ladder has one rung, and every trial is measured in full.

Better is: feasible by loss, then infeasible by the sum of violations, then failed (Deb's rules, see
:mod:`sharpen.search.observations`); of equals, the trial with the smaller number. What failed, was
pruned or timed out never climbs.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from sharpen.core.errors import ConfigError
from sharpen.core.feedback import Trial
from sharpen.core.optimizer import Optimizer, Proposal, Recommendation
from sharpen.core.problem import Constraint, Fidelity, Objective
from sharpen.core.space import Space, random_stream

__all__ = ["Climber", "Standing", "is_ladder", "rung_levels"]

Standing = tuple[int, float, int]
"""Class (0 feasible, 1 infeasible, 2 failed), loss or violation, number: smaller is better."""

_FAILED = 2
_ROUNDING = 1e-9


def is_ladder(fidelity: Fidelity) -> bool:
    """Whether a fidelity can have rungs: it does not start at 0 and has no costs of its own."""
    return fidelity.low > 0 and fidelity.costs is None


def rung_levels(fidelity: Fidelity, eta: int) -> list[float]:
    """Fidelities of the rungs, ascending; see the module.

    Raises:
        ConfigError: the fidelity is no ladder: it starts at 0, or has costs of its own.

    Examples:
        >>> rung_levels(Fidelity("epochs", 1, 100, integer=True), 3)
        [1.0, 4.0, 11.0, 33.0, 100.0]
    """
    if not is_ladder(fidelity):
        raise ConfigError(
            f"a ladder needs low > 0 and no costs, which {fidelity.name!r} has not. "
            "Raise low, or take an optimizer that learns across fidelities."
        )
    levels, level = [fidelity.high], fidelity.high / eta
    while level >= fidelity.low * (1 - _ROUNDING):
        levels.append(float(round(level)) if fidelity.integer else max(level, fidelity.low))
        level /= eta
    return levels[::-1]


class Climber(Optimizer):
    """Base of optimizers that measure at rungs of a ladder.

    Args:
        space: what to search over.
        objectives: one.
        constraints: any number.
        eta: one in so many climbs from a rung to the next; at least 2.
        given: see :class:`~sharpen.core.optimizer.Optimizer`.

    Raises:
        ConfigError: ``eta`` is too small, or the fidelity is no ladder.
    """

    def __init__(
        self,
        space: Space,
        objectives: Sequence[Objective] = (Objective("value"),),
        constraints: Sequence[Constraint] = (),
        *,
        eta: int = 3,
        **given: Any,
    ) -> None:
        super().__init__(space, objectives, constraints, **given)
        if eta < 2:
            raise ConfigError(f"eta={eta} must be at least 2 (the optimizer '{self.name}').")
        self.eta = eta
        self.levels = [1.0] if self.fidelity is None else rung_levels(self.fidelity, eta)
        """Fidelities of the rungs, ascending."""
        self._rung = {level: k for k, level in enumerate(self.levels)}
        self.restart()

    @abstractmethod
    def next_job(self, number: int) -> tuple[dict[str, Any] | None, int]:
        """The configuration of trial ``number``, or None for a new one; and the rung of it."""

    def new_config(self, number: int) -> dict[str, Any]:
        """A new configuration for trial ``number``; here one at random."""
        return self.space.draw(random_stream(self.seed, number))

    def propose(self, number: int) -> dict[str, Any] | Proposal:
        """See :meth:`Optimizer.propose`."""
        config, rung = self.next_job(number)
        if config is None:
            config = self.new_config(number)
        return Proposal(
            config=config, fidelity=None if self.fidelity is None else self.levels[rung]
        )

    def rung_of(self, trial: Trial) -> int | None:
        """The rung that a trial stands on; None is none."""
        if trial.fidelity is None or self.is_true(trial):
            return len(self.levels) - 1
        return self._rung.get(trial.fidelity)

    def standing(self, trial: Trial) -> Standing:
        """How good a finished trial is among those of its rung."""
        if not trial.is_ok or trial.feedback is None:
            return _FAILED, 0.0, trial.number
        if trial.feasible:
            return 0, self.objectives[0].loss(trial.value), trial.number
        known = trial.feedback.constraints
        excess = sum(max(c.margin(known[c.name]), 0.0) for c in self.constraints)
        return 1, excess, trial.number

    def recommend(self) -> Recommendation:
        """The best feasible trial at the highest fidelity that has any.

        Raises:
            ConfigError: nothing feasible was told yet.
        """
        best: tuple[int, Standing] | None = None
        for trial in self.history.values():
            rung, standing = self.rung_of(trial), self.standing(trial)
            if rung is not None and standing[0] == 0:
                best = min(best or (1, standing), (-rung, standing))
        if best is None:
            raise ConfigError("no feasible trial was told yet, so there is nothing to recommend.")
        trial = self.history[best[1][2]]
        why = f"best feasible value observed, trial {trial.number}"
        if self.fidelity is not None and not self.is_true(trial):
            why += f", at {self.fidelity.name} {trial.fidelity:g}: none was measured in full yet"
        return Recommendation(config=dict(trial.config), predicted=trial.values, why=why)

    @staticmethod
    def can_climb(standing: Standing) -> bool:
        """Whether a trial of this standing may climb at all."""
        return standing[0] != _FAILED
