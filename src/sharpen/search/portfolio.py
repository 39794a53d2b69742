"""A portfolio: several optimizers share a study, and a bandit deals the trials to them.

Jason Ansel, Shoaib Kamil, Kalyan Veeramachaneni, Jonathan Ragan-Kelley, Jeffrey Bosboom, Una-May
O'Reilly and Saman Amarasinghe, "OpenTuner: An Extensible Framework for Program Autotuning", PACT
2014, section 3.2 (AUC Bandit).

::

    trial n     goes to the member with the largest  AUC_t + C sqrt(2 log2 |H| / H_t)
    H           the last `window` trials; H_t those that t proposed, running ones among them
    V_t,i       whether the i-th of those was better than every trial before it, by at least
                `gain` (median - least) of all losses
    AUC_t       2 / (H_t (H_t + 1)) sum_i i V_t,i           recent successes weigh more

A member with no trial in H comes first, in the order of the list; ties are broken at random. All
members learn from all trials, under the same numbers: to each, the others' trials are trials from
elsewhere. Better is: feasible by loss, then infeasible by violation; what failed is no success.

Differs from the paper: a success has a least size, without which whoever polishes the last digits
gets all trials; C is 0.2, not 0.05, since a study has hundreds of trials, not tens of thousands.
Time O(n) a proposal beside the member's, and each trial is told to
every member; memory that of all members.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from sharpen.core.errors import ConfigError
from sharpen.core.feedback import Trial
from sharpen.core.optimizer import Capabilities, Optimizer, Proposal, make_optimizer
from sharpen.core.parameters import Float, Int
from sharpen.core.problem import Constraint, Objective
from sharpen.core.space import Space, random_stream
from sharpen.search.observations import ArrayOptimizer

__all__ = ["Portfolio", "area_under_curve"]


def area_under_curve(successes: Sequence[bool]) -> float:
    """AUC_t of a member's trials, the oldest first; 0 where there are none.

    Examples:
        >>> area_under_curve([False, True])
        0.6666666666666666
    """
    n = len(successes)
    weights = (i for i, success in enumerate(successes, 1) if success)
    return 2 * sum(weights) / (n * (n + 1)) if n else 0.0


class Portfolio(ArrayOptimizer):
    """Several optimizers with a bandit over them; see the module for the method.

    Args:
        space: what to search over.
        objectives: one.
        constraints: any number.
        members: names of optimizers, or mappings of ``name`` and options.
        exploration: C.
        gain: least improvement that is a success, as a part of how far the median of all losses
            is above the least.
        window: number of trials that the bandit looks back.
        given: see :class:`~sharpen.core.optimizer.Optimizer`; members get it, too.

    Raises:
        ConfigError: fewer than two members, one that cannot handle the problem or does not exist,
            or an option out of range.

    Examples:
        >>> optimizer = Portfolio(Space(x=Float(-1, 1)), members=["random", "de"])
        >>> [candidate.origin for candidate in optimizer.ask(2)]
        ['portfolio:random', 'portfolio:de']
    """

    name: ClassVar[str] = "portfolio"
    capabilities: ClassVar[Capabilities] = Capabilities(constraints=True)
    hyperparameters: ClassVar[Space | None] = Space(
        exploration=Float(0.02, 1.0, log=True, default=0.2),
        gain=Float(0.001, 0.1, log=True, default=0.01),
        window=Int(20, 2000, log=True, default=500),
    )

    def __init__(
        self,
        space: Space,
        objectives: Sequence[Objective] = (Objective("value"),),
        constraints: Sequence[Constraint] = (),
        *,
        members: Sequence[str | Mapping[str, Any]] = ("de", "cmaes", "tpe", "annealing"),
        exploration: float = 0.2,
        gain: float = 0.01,
        window: int = 500,
        **given: Any,
    ) -> None:
        self.members: dict[str, Optimizer] = {}
        """Optimizers by name, with a number where a name is there twice."""
        super().__init__(space, objectives, constraints, **given)
        if isinstance(members, str) or len(members) < 2:
            raise ConfigError(f"members={members!r} must be two optimizers or more (portfolio).")
        if exploration < 0 or window < 2:
            raise ConfigError(
                f"exploration={exploration} must be at least 0 and window={window} 2 (portfolio)."
            )
        if not 0 <= gain < 1:
            raise ConfigError(f"gain={gain} must be at least 0 and below 1 (portfolio).")
        self.exploration, self.gain, self.window = exploration, gain, window
        for member in members:
            name = member if isinstance(member, str) else str(member.get("name"))
            if name in self.members:
                name = f"{name}-{sum(known.startswith(name) for known in self.members) + 1}"
            self.members[name] = make_optimizer(member, space, objectives, constraints, **given)

    # -- the history ----------------------------------------------------------------------------

    def restart(self) -> None:
        """See :meth:`Optimizer.restart`."""
        super().restart()
        for member in self.members.values():
            member.history, member.pending = {}, {}
            member.restart()

    def tell(self, trials: Iterable[Trial]) -> None:
        """See :meth:`Optimizer.tell`."""
        given = list(trials)
        super().tell(given)
        for member in self.members.values():
            member.tell(given)

    def abandon(self, numbers: Iterable[int]) -> None:
        """See :meth:`Optimizer.abandon`."""
        gone = list(numbers)
        super().abandon(gone)
        for member in self.members.values():
            member.abandon(gone)

    # -- the bandit -----------------------------------------------------------------------------

    def values(self) -> dict[str, float]:
        """What the bandit maximizes, by member; infinite where one was not tried lately."""
        seen = self.seen
        merit = np.where(seen.ok, seen.merit(), np.inf)
        before = np.minimum.accumulate(np.concatenate([[np.inf], merit]))[:-1]
        known = merit[np.isfinite(merit)]
        least = self.gain * (np.median(known) - known.min()) if len(known) else 0.0
        success = (merit < before) & (merit <= before - least)
        # Running trials are uses that have not succeeded yet.
        uses = [*zip(seen.numbers.tolist(), success.tolist(), strict=True)]
        uses = sorted([*uses, *((number, False) for number in self.pending)])[-self.window :]
        successes: dict[str, list[bool]] = {name: [] for name in self.members}
        for number, is_success in uses:
            trial = self.history.get(number) or self.pending[number]
            member = trial.origin.removeprefix(f"{self.name}:")
            if member in successes:
                successes[member].append(is_success)
        spread = math.log2(max(len(uses), 1))
        return {
            name: area_under_curve(found) + self.exploration * math.sqrt(2 * spread / len(found))
            if found
            else math.inf
            for name, found in successes.items()
        }

    def propose(self, number: int) -> Proposal:
        """See :meth:`Optimizer.propose`."""
        values = self.values()
        best = [name for name, value in values.items() if value == max(values.values())]
        choice = int(random_stream(self.seed, number).integers(len(best)))
        name = best[0] if math.isinf(values[best[0]]) else best[choice]
        member = self.members[name]
        # Its own earlier candidates, and the others', count as pending for it.
        member.tell([t for n, t in self.pending.items() if n not in member.pending])
        given = member.propose(number)
        config = given.config if isinstance(given, Proposal) else given
        return Proposal(config=config, origin=f"{self.name}:{name}")
