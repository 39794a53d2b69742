"""Bandits as optimizers: the arms are the configurations of a space, or of a grid over it.

A loss is what an objective exceeds the least value seen by, so that policies see numbers of at
least 0. A failed or infeasible trial costs as much as the worst known. With contexts, the first
scalar parameter of the space of contexts is what policies see, scaled to [0, 1].

The state for trial ``number`` follows from the finished trials with smaller numbers, in their
order, each with the probability that the policy gave it then: so it depends on the history alone.
Time O(d) a trial; a trial that ends after later ones is put in its place from a copy of the state
that was kept at most 64 trials before. An arm that is being measured is not taken again while there
are others: one of those is drawn, in proportion to what the policy gives them.
"""

from __future__ import annotations

import bisect
import copy
import math
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from sharpen.core.errors import ConfigError
from sharpen.core.feedback import Trial
from sharpen.core.optimizer import Capabilities, Optimizer, Proposal, Recommendation
from sharpen.core.parameters import Float, Int
from sharpen.core.problem import Constraint, Objective
from sharpen.core.space import Space, random_stream
from sharpen.search.bandits.binned import Binned
from sharpen.search.bandits.chebcb import ChebCB
from sharpen.search.bandits.exp3 import Exp3
from sharpen.search.bandits.linear import LinearBandit
from sharpen.search.bandits.policy import Policy
from sharpen.search.bandits.rejects import SuccessiveRejects
from sharpen.search.bandits.thompson import Thompson
from sharpen.search.bandits.tsallis_inf import TsallisINF
from sharpen.search.bandits.ucb import UCB

__all__ = [
    "BanditOptimizer",
    "BinnedTsallis",
    "ChebCBOptimizer",
    "ContextualBandit",
    "Exp3IXOptimizer",
    "Exp3Optimizer",
    "LinTSOptimizer",
    "LinUCBOptimizer",
    "SquareCBOptimizer",
    "SuccessiveRejectsOptimizer",
    "ThompsonOptimizer",
    "TsallisINFOptimizer",
    "UCB1Optimizer",
    "UCBTunedOptimizer",
]

_MOST_ARMS = 10_000
_EVERY, _KEPT = 64, 16
_ORDER = 2**62  # the stream of no trial


class _State:
    """A policy and what it needs to scale losses, after the trials before :attr:`next`."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.next = -(2**63)
        self.least: float | None = None
        self.worst = 0.0


class BanditOptimizer(Optimizer):
    """Base of the optimizers here; see the module.

    Args:
        space: its configurations are the arms.
        objectives: one.
        constraints: any number.
        resolution: values of a parameter that has more; arms are all combinations.
        given: see :class:`~sharpen.core.optimizer.Optimizer`.

    Raises:
        ConfigError: the space has fewer than two arms, or more than 10,000.
    """

    capabilities: ClassVar[Capabilities] = Capabilities(constraints=True)
    hyperparameters: ClassVar[Space | None] = Space(resolution=Int(2, 50, log=True, default=20))

    def __init__(
        self,
        space: Space,
        objectives: Sequence[Objective] = (Objective("value"),),
        constraints: Sequence[Constraint] = (),
        *,
        resolution: int = 20,
        **given: Any,
    ) -> None:
        super().__init__(space, objectives, constraints, **given)
        if resolution < 2:
            raise ConfigError(f"resolution={resolution} must be at least 2.")
        count = math.prod(
            min(p.cardinality, resolution) if isinstance(p, (Float, Int)) else p.cardinality
            for p in space.values()
        )
        if count > _MOST_ARMS:
            raise ConfigError(
                f"the space has about {count:,.0f} arms at resolution {resolution}; the optimizer "
                f"'{self.name}' takes {_MOST_ARMS:,}. Lower resolution, or take another optimizer."
            )
        grid = space.grid(resolution)
        order = random_stream(self.seed, _ORDER).permutation(len(grid))
        self.arms = [grid[i] for i in order]  # those never tried are tried in this order
        self._arm_of = {space.canonical(config): i for i, config in enumerate(self.arms)}
        self.restart()

    @abstractmethod
    def make_policy(self, arms: int) -> Policy:
        """The policy of so many arms."""

    def restart(self) -> None:
        """See :meth:`Optimizer.restart`."""
        self._state = _State(self.make_policy(len(self.arms)))
        self._kept = [copy.deepcopy(self._state)]
        self._numbers: list[int] = []

    def tell(self, trials: Iterable[Trial]) -> None:
        """See :meth:`Optimizer.tell`."""
        given = list(trials)
        super().tell(given)
        for trial in given:
            if trial.feedback is None:
                continue
            place = bisect.bisect_left(self._numbers, trial.number)
            if place == len(self._numbers) or self._numbers[place] != trial.number:
                self._numbers.insert(place, trial.number)
            if trial.number < self._state.next:
                self._go_back(trial.number)

    def _go_back(self, number: int) -> None:
        """To the last copy of the state that trial ``number`` cannot have changed."""
        while len(self._kept) > 1 and self._kept[-1].next > number:
            self._kept.pop()
        self._state = copy.deepcopy(self._kept[-1])

    def _go_on(self, number: int) -> Policy:
        """The policy as trial ``number`` finds it."""
        if number < self._state.next:
            self._go_back(number)
        first = bisect.bisect_left(self._numbers, self._state.next)
        for n in self._numbers[first : bisect.bisect_left(self._numbers, number)]:
            self._learn(self.history[n])
            self._state.next = n + 1
            if self._state.policy.rounds % _EVERY == 0:
                self._kept.append(copy.deepcopy(self._state))
                del self._kept[1:-_KEPT]
        return self._state.policy

    def _learn(self, trial: Trial) -> None:
        arm = self._arm_of.get(self.space.canonical(trial.config))
        if arm is None:
            return  # from elsewhere, between the arms
        state = self._state
        if trial.is_ok and trial.feasible:
            loss = self.objectives[0].loss(trial.values[self.objectives[0].name])
            if state.least is None:
                state.least = state.worst = loss
            state.least, state.worst = min(state.least, loss), max(state.worst, loss)
        else:
            loss = state.worst
        context = self._context(trial.context)
        p = float(state.policy.probabilities(context)[arm])
        p = max(p, 1e-8)  # of a trial from elsewhere that would not have been chosen
        state.policy.learn(arm, loss - (state.least or 0.0), p, context)

    def _context(self, context: Mapping[str, Any]) -> float:
        if self.contexts is None or not context:
            return 0.0
        for name, parameter in self.contexts.items():
            if isinstance(parameter, (Float, Int)) and name in context:
                return float(parameter.to_unit(context[name]))
        return 0.0

    def propose(self, number: int) -> dict[str, Any] | Proposal:
        """See :meth:`Optimizer.propose`; contexts that nobody knows are drawn at random."""
        if self.contexts is None:
            return self._play(number, {})
        context = self.contexts.draw(random_stream(self.seed + 1, number))
        return Proposal(config=self._play(number, context), context=context)

    def propose_in(self, context: Mapping[str, Any], number: int) -> dict[str, Any] | Proposal:
        """See :meth:`Optimizer.propose_in`."""
        return self._play(number, context)

    def _play(self, number: int, context: Mapping[str, Any]) -> dict[str, Any]:
        rng, policy = random_stream(self.seed, number), self._go_on(number)
        arm, _ = policy.choose(float(rng.random()), self._context(context))
        busy = {self._arm_of.get(self.space.canonical(t.config)) for t in self.pending.values()}
        if arm in busy and len(busy) < len(self.arms):
            p = policy.probabilities(self._context(context)).copy()
            p[[i for i in busy if i is not None]] = 0.0
            if not p.any():
                p = np.array([float(i not in busy) for i in range(len(p))])
            arm = int(rng.choice(len(p), p=p / p.sum()))
        return dict(self.arms[arm])

    def recommend(self) -> Recommendation:
        """The arm with the least mean loss, of those that kept the constraints more often than not.

        Raises:
            ConfigError: nothing feasible was told yet.
        """
        objective = self.objectives[0]
        found: dict[str, list[float]] = {}
        configs: dict[str, dict[str, Any]] = {}
        for number in sorted(self.history):
            trial = self.history[number]
            if trial.is_ok:
                key = self.space.canonical(trial.config)
                configs[key] = trial.config
                value = trial.values[objective.name] if trial.feasible else np.nan
                found.setdefault(key, []).append(value)
        means = {
            key: float(np.nanmean(values))
            for key, values in found.items()
            if np.isfinite(values).mean() > 0.5
        }
        if not means:
            raise ConfigError("no feasible trial was told yet, so there is nothing to recommend.")
        best = min(means, key=lambda key: objective.loss(means[key]))
        why = f"the least mean loss, over {len(found[best])} trials"
        return Recommendation(
            config=dict(configs[best]), predicted={objective.name: means[best]}, why=why
        )


class ContextualBandit(BanditOptimizer):
    """Base of those that mind the context."""

    capabilities: ClassVar[Capabilities] = Capabilities(constraints=True, context=True)


class UCB1Optimizer(BanditOptimizer):
    """UCB1; see :mod:`sharpen.search.bandits.ucb`."""

    name: ClassVar[str] = "ucb1"

    def make_policy(self, arms: int) -> Policy:
        """See :meth:`BanditOptimizer.make_policy`."""
        return UCB(arms)


class UCBTunedOptimizer(BanditOptimizer):
    """UCB1-tuned; see :mod:`sharpen.search.bandits.ucb`."""

    name: ClassVar[str] = "ucb-tuned"

    def make_policy(self, arms: int) -> Policy:
        """See :meth:`BanditOptimizer.make_policy`."""
        return UCB(arms, tuned=True)


class ThompsonOptimizer(BanditOptimizer):
    """Thompson sampling; see :mod:`sharpen.search.bandits.thompson`."""

    name: ClassVar[str] = "thompson"

    def make_policy(self, arms: int) -> Policy:
        """See :meth:`BanditOptimizer.make_policy`."""
        return Thompson(arms)


class Exp3Optimizer(BanditOptimizer):
    """Exp3; see :mod:`sharpen.search.bandits.exp3`."""

    name: ClassVar[str] = "exp3"

    def make_policy(self, arms: int) -> Policy:
        """See :meth:`BanditOptimizer.make_policy`."""
        return Exp3(arms)


class Exp3IXOptimizer(BanditOptimizer):
    """Exp3-IX; see :mod:`sharpen.search.bandits.exp3`."""

    name: ClassVar[str] = "exp3-ix"

    def make_policy(self, arms: int) -> Policy:
        """See :meth:`BanditOptimizer.make_policy`."""
        return Exp3(arms, implicit=True)


class TsallisINFOptimizer(BanditOptimizer):
    """Tsallis-INF; see :mod:`sharpen.search.bandits.tsallis_inf`."""

    name: ClassVar[str] = "tsallis-inf"

    def make_policy(self, arms: int) -> Policy:
        """See :meth:`BanditOptimizer.make_policy`."""
        return TsallisINF(arms)


class SuccessiveRejectsOptimizer(BanditOptimizer):
    """Successive rejects; see :mod:`sharpen.search.bandits.rejects`. It needs a budget."""

    name: ClassVar[str] = "successive-rejects"

    def make_policy(self, arms: int) -> Policy:
        """See :meth:`BanditOptimizer.make_policy`."""
        return SuccessiveRejects(arms, budget=max(self.budget or 20 * arms, arms))


class BinnedTsallis(ContextualBandit):
    """Tsallis-INF in each of five bins of the context; see :mod:`sharpen.search.bandits.binned`."""

    name: ClassVar[str] = "binned-tsallis"

    def make_policy(self, arms: int) -> Policy:
        """See :meth:`BanditOptimizer.make_policy`."""
        return Binned(arms)


class ChebCBOptimizer(ContextualBandit):
    """ChebCB; see :mod:`sharpen.search.bandits.chebcb`."""

    name: ClassVar[str] = "chebcb"

    def make_policy(self, arms: int) -> Policy:
        """See :meth:`BanditOptimizer.make_policy`."""
        return ChebCB(arms)


class LinUCBOptimizer(ContextualBandit):
    """LinUCB; see :mod:`sharpen.search.bandits.linear`."""

    name: ClassVar[str] = "linucb"

    def make_policy(self, arms: int) -> Policy:
        """See :meth:`BanditOptimizer.make_policy`."""
        return LinearBandit(arms, rule="ucb")


class LinTSOptimizer(ContextualBandit):
    """LinTS; see :mod:`sharpen.search.bandits.linear`."""

    name: ClassVar[str] = "lints"

    def make_policy(self, arms: int) -> Policy:
        """See :meth:`BanditOptimizer.make_policy`."""
        return LinearBandit(arms, rule="ts")


class SquareCBOptimizer(ContextualBandit):
    """SquareCB; see :mod:`sharpen.search.bandits.linear`."""

    name: ClassVar[str] = "squarecb"

    def make_policy(self, arms: int) -> Policy:
        """See :meth:`BanditOptimizer.make_policy`."""
        return LinearBandit(arms, rule="square")
