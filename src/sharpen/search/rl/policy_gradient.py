"""The base of optimizers that learn a policy over configurations from batches of trials.

A search space has no states: every trial begins alike and ends with its one reward. So the discount
is 0, an episode is one configuration, and what is left of reinforcement learning is a bandit whose
arms are configurations::

    a ~ pi(a),   r = -loss,   maximize E r + c sum_choices H(pi_choice)

A generation of :mod:`sharpen.search.generations` is a rollout: `rollout` trials drawn from the
policy as it is, then one round of learning from them. Trials that were not drawn from this policy
(configurations of somebody else, trials that began while a rollout was not complete, those from
elsewhere) count as if they had been.

Rewards are standardized by the mean and standard deviation of all losses known so far, and cut at
+-10. An infeasible trial has the reward of the worst feasible one, less 1 to 2 by its violation; a
failed one, less 2. Inactive parameters take no part in the log-probability of a trial, so that
nothing is learnt about them from it. Where forbidden combinations move a drawn configuration, the
reward goes to what was drawn.

Each agent chooses some of the parameters; with one network an agent. Agents that see what was
chosen before them draw in their order, the others at once.

Time O(rollout x network) a trial; memory O(network).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sharpen.core.errors import ConfigError, did_you_mean
from sharpen.core.optimizer import Capabilities
from sharpen.core.problem import Constraint, Objective
from sharpen.core.space import Space, random_stream
from sharpen.search.generations import Generation, GenerationalOptimizer
from sharpen.search.observations import Bools, Floats
from sharpen.search.rl.checks import check_at_least
from sharpen.search.rl.choices import Choices, Ranges
from sharpen.search.rl.networks import Networks, one_thread

__all__ = ["LATER", "DesignPolicy", "PolicyGradient", "RewardScale", "agent_groups"]

LATER = 2**62  # streams of no trial
_CUT = 10.0
_HUGE = 1e140  # its square, and a sum of them, is finite
_ANNEALED_OVER = 5000


class RewardScale:
    """Rewards of trials on the scale of all losses known so far; see the module."""

    def __init__(self) -> None:
        self._count, self._mean, self._squares, self._worst = 0, 0.0, 0.0, -np.inf

    def add(self, keys: Floats) -> None:
        """Take [k, 2] merit keys into the scale."""
        losses = np.clip(keys[keys[:, 0] == 0, 1], -_HUGE, _HUGE)
        if not len(losses):
            return
        # Two sets' moments joined: Chan, Golub and LeVeque, "Updating formulae", 1979.
        count, mean = len(losses), float(losses.mean())
        total, gap = self._count + count, mean - self._mean
        self._squares += float(((losses - mean) ** 2).sum())
        self._squares += gap**2 * self._count * count / total
        self._mean += gap * count / total
        self._count, self._worst = total, max(self._worst, float(losses.max()))

    def rewards(self, keys: Floats) -> Floats:
        """[k] rewards of [k, 2] merit keys."""
        sd = np.sqrt(self._squares / max(self._count, 1))
        sd = sd if np.isfinite(sd) and sd > 0 else 1.0
        lowest = max((self._mean - self._worst) / sd, -_CUT) if self._count else 0.0
        found = np.full(len(keys), lowest - 2)
        good, broken = keys[:, 0] == 0, keys[:, 0] == 1
        found[good] = np.clip(
            (self._mean - np.clip(keys[good, 1], -_HUGE, _HUGE)) / sd, -_CUT, _CUT
        )
        excess = keys[broken, 1]
        found[broken] = lowest - 1 - excess / (1 + excess)
        return found


def agent_groups(
    choices: Choices, agents: str | Mapping[str, Sequence[str]]
) -> dict[str, list[int]]:
    """Which choices each agent makes, by the agent's name, in the order of the choices.

    Args:
        choices: of the space.
        agents: ``"per_parameter"``, ``"one"``, or the names of each agent's parameters by the
            agent's name.

    Raises:
        ConfigError: unknown or missing parameters.
    """
    places: dict[str, list[int]] = {}
    for i, choice in enumerate(choices.choices):
        places.setdefault(choice.name, []).append(i)
    if agents == "per_parameter":
        return places
    if agents == "one":
        return {"all": list(range(len(choices)))}
    if isinstance(agents, str):
        raise ConfigError(f"agents={agents!r} must be 'per_parameter' or names by agent.")
    found, left = {}, dict(places)
    for agent, names in agents.items():
        found[agent] = list[int]()
        for name in [names] if isinstance(names, str) else names:
            if name not in choices.space:
                hint = did_you_mean(name, choices.space)
                raise ConfigError(f"agents[{agent!r}] names '{name}', no parameter.{hint}")
            if name in places and name not in left:
                raise ConfigError(f"agents: '{name}' has two agents; give it one.")
            found[agent] += left.pop(name, [])
    if left:
        raise ConfigError(f"agents: nobody chooses {', '.join(left)}. Add it to an agent.")
    found = {agent: sorted(group) for agent, group in found.items() if group}
    return dict(sorted(found.items(), key=lambda item: item[1][0]))


class DesignPolicy:
    """One network an agent, whose numbers together are those of all choices.

    Args:
        choices: of the space.
        groups: which of them each agent makes.
        hidden: widths of each network's layers.
        rng: what the first weights are drawn from.
        sees: [A, F] 1 where an agent reads a feature; None is that nobody reads anything.
    """

    def __init__(
        self,
        choices: Choices,
        groups: Sequence[Sequence[int]],
        hidden: Sequence[int],
        rng: np.random.Generator,
        sees: Tensor | None = None,
    ) -> None:
        self.choices, self.groups, self.sees = choices, groups, sees
        self.turns: Sequence[int] = range(len(groups))
        """The order in which the agents draw."""
        widths = [sum(choices.choices[i].width for i in group) for group in groups]
        inputs = 1 if sees is None else 1 + choices.num_features
        self.networks = Networks(
            len(groups), inputs, max(widths, default=1), hidden, rng, last_gain=0.01
        )
        # Where each of the policy's numbers stands among those that the networks put out.
        take = np.zeros(choices.num_outputs, dtype=np.int64)
        for agent, group in enumerate(groups):
            at = agent * max(widths)
            for i in group:
                width = choices.choices[i].width
                take[choices.starts[i] : choices.starts[i + 1]] = at + np.arange(width)
                at += width
        self._take = torch.from_numpy(take)
        member = np.zeros((len(choices), len(groups)))
        for agent, group in enumerate(groups):
            member[list(group), agent] = 1.0
        self.member = torch.from_numpy(member)
        """[C, A] whether a choice is an agent's."""

    def outputs(self, features: Tensor) -> Tensor:
        """[B, L] numbers of all choices; [1, L] where nobody reads the [B, F] features."""
        one = torch.ones(len(self.groups), 1, 1, dtype=torch.float64)
        if self.sees is None:
            found = self.networks(one)
        else:
            seen = features[None] * self.sees[:, None]
            found = self.networks(torch.cat([one.expand(-1, len(features), 1), seen], dim=2))
        flat: Tensor = found.transpose(0, 1).reshape(found.shape[1], -1)
        return flat[:, self._take]

    def draw(self, rngs: Sequence[np.random.Generator]) -> Floats:
        """[B, d] coordinates, one row for each of ``rngs``, in which what is inactive is 0.5."""
        choices, space = self.choices, self.choices.space
        x = np.full((len(rngs), space.dimensions), 0.5)
        features = np.zeros((len(rngs), choices.num_features))
        values: list[dict[str, Any]] = [{} for _ in rngs]
        outputs: Floats | None = None
        fixed = {n: p.decode([0.5]) for n, p in space.items() if p.cardinality == 1}
        for row in values:
            row.update(fixed)
        with torch.no_grad(), one_thread():
            for group in (self.groups[turn] for turn in self.turns):
                if outputs is None or self.sees is not None:
                    outputs = self.outputs(torch.from_numpy(features)).expand(len(x), -1).numpy()
                for i in group:
                    self._draw_choice(i, outputs, rngs, x, features, values)
        return x

    def _draw_choice(
        self,
        i: int,
        outputs: Floats,
        rngs: Sequence[np.random.Generator],
        x: Floats,
        features: Floats,
        values: list[dict[str, Any]],
    ) -> None:
        choice = self.choices.choices[i]
        space, start = self.choices.space, self.choices.starts
        parameter, columns = space[choice.name], space.columns[choice.name]
        for b, rng in enumerate(rngs):
            # All draws are made, active or not: a row's later ones do not depend on that.
            u = self.choices.draw(i, outputs[b, start[i] : start[i + 1]], rng)
            if self.sees is None:
                x[b, choice.columns] = u
                continue
            condition = parameter.condition
            # Constants may be inactive too, so that conditions on them need the whole picture.
            if condition is None or condition.holds(space.active(values[b])) is True:
                x[b, choice.columns] = u
                self.choices.put_features(features[b], i, u)
                if choice.columns.stop == columns.stop:
                    values[b][choice.name] = parameter.decode(x[b, columns])


class PolicyGradient(GenerationalOptimizer):
    """Base of optimizers that learn a policy; see the module.

    A subclass implements :meth:`build` and :meth:`learn`.

    Args:
        space: what to search over.
        objectives: one.
        constraints: any number; see the module.
        rollout: trials between two rounds of learning.
        resolution: see :mod:`sharpen.search.rl.choices`.
        ranges: see :mod:`sharpen.search.rl.choices`.
        given: see :class:`~sharpen.core.optimizer.Optimizer`.

    Raises:
        ConfigError: an option is out of range.
    """

    capabilities: ClassVar[Capabilities] = Capabilities(constraints=True)

    def __init__(
        self,
        space: Space,
        objectives: Sequence[Objective] = (Objective("value"),),
        constraints: Sequence[Constraint] = (),
        *,
        rollout: int,
        resolution: int = 16,
        ranges: Ranges = "bins",
        **given: Any,
    ) -> None:
        check_at_least(type(self).__name__, 2, rollout=rollout)
        self.rollout = rollout
        self.choices = Choices(space, resolution, ranges)
        super().__init__(space, objectives, constraints, **given)

    # -- what a method is -----------------------------------------------------------------------

    @abstractmethod
    def build(self, rng: np.random.Generator) -> None:
        """Make the policy and all that learns, as they are before the first trial."""

    @abstractmethod
    def draw(self, numbers: npt.NDArray[np.int64]) -> Floats:
        """[k, d] points for trials of such numbers; the state must not change."""

    @abstractmethod
    def learn(self, x: Floats, mask: Bools, keys: Floats, rng: np.random.Generator) -> None:
        """Learn from a rollout.

        Args:
            x: [B, d] coordinates of its trials.
            mask: [B, d] whether each was active.
            keys: [B, 2] merit keys; :attr:`scale` makes rewards of them.
            rng: for all that learning draws.
        """

    # -- generations ----------------------------------------------------------------------------

    def begin(self) -> None:
        """See :meth:`GenerationalOptimizer.begin`."""
        self.scale = RewardScale()
        self.num_learnt = 0
        self.build(random_stream(self.seed, LATER))
        x, keys = self.elsewhere()
        if len(x):
            self._learn(x, self.seen.mask[: len(x)].copy(), keys)

    def plan(self, first: int) -> Floats:
        """See :meth:`GenerationalOptimizer.plan`."""
        if not len(self.choices):
            return np.full((self.rollout, self.space.dimensions), 0.5)
        points = self.draw(np.arange(first, first + self.rollout))
        if first == 0:
            points[0] = self.space.encode([self.space.default()]).x[0]
        return points

    def stray(self, number: int, rng: np.random.Generator) -> Floats:
        """See :meth:`GenerationalOptimizer.stray`."""
        if not len(self.choices):
            return np.full(self.space.dimensions, 0.5)
        point: Floats = self.draw(np.array([number]))[0]
        return point

    def absorb(self, generation: Generation) -> None:
        """See :meth:`GenerationalOptimizer.absorb`."""
        if len(generation.x) and len(self.choices):
            self._learn(generation.x, generation.mask, generation.keys)

    def _learn(self, x: Floats, mask: Bools, keys: Floats) -> None:
        self.scale.add(keys)
        rng = random_stream(self.seed, LATER + 1 + self.num_learnt)
        self.num_learnt += len(x)
        with one_thread():
            self.learn(x, mask, keys, rng)

    @property
    def annealed(self) -> float:
        """From 1 to 0 over the budget, or over 5,000 trials where none is known."""
        return max(1 - self.num_learnt / (self.budget or _ANNEALED_OVER), 0.0)

    def streams(self, numbers: npt.NDArray[np.int64]) -> list[np.random.Generator]:
        """The random streams of trials."""
        return [random_stream(self.seed, int(number)) for number in numbers]
