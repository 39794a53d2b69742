"""Agents that choose in turn, each seeing what was chosen before it.

Wei Fu, Chao Yu, Zelai Xu, Jiaqi Yang and Yi Wu, "Revisiting Some Common Practices in Cooperative
Multi-Agent Reinforcement Learning", ICML 2022 (policies that factor by the chain rule); advantages
by Schulman et al., ICLR 2016, along the turns of one configuration::

    pi(a)  = prod_k pi_k(a_k | a_{<k})
    A_k    = sum_{j >= k} l^{j-k} (V_{j+1}(a_{<=j}) - V_j(a_{<j})),    V_{n+1} = r
    L      = -sum_k mean min(rho_k A_k, clip(rho_k, 1 - e, 1 + e) A_k) - c sum H

Such a policy can hold any distribution of configurations, so also two optima that differ in several
parameters; and a later agent learns the best answer to each earlier choice, which shows the earlier
agent what its choice is worth.

The order is the space's own (`given`), drawn once from the seed (`random`), or by importance: the
share of the rewards' variance between an agent's levels, measured on the trials drawn up to
`ordered_after`, the most important agent first. An agent whose parameters depend on another's
always comes after it. Inactive agents have no turn.

Differs from the papers: V_k also learns from earlier rollouts; design problems are stateless, so
the turns of one configuration are the whole episode and are not discounted.

Time O((epochs + passes memory / rollout) x agents x network) a trial; memory O(agents x network).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from sharpen.core.errors import ConfigError
from sharpen.core.parameters import Categorical, Float, Int
from sharpen.core.problem import Constraint, Objective
from sharpen.core.space import Space, random_stream
from sharpen.search.marl.mappo import MAPPO
from sharpen.search.observations import Floats
from sharpen.search.rl.checks import check_at_least, check_shares
from sharpen.search.rl.losses import gae
from sharpen.search.rl.policy_gradient import LATER, agent_groups

__all__ = ["SequentialMARL"]

Order = Literal["given", "random", "importance"]


class SequentialMARL(MAPPO):
    """Agents in turn; see the module for the method.

    Args:
        space: what to search over.
        objectives: one.
        constraints: any number; see :mod:`sharpen.search.rl.policy_gradient`.
        order: of the turns, ``"given"``, ``"random"`` or ``"importance"``.
        ordered_after: trials before the order by importance is fixed.
        trace: l.
        given: see :class:`~sharpen.search.marl.mappo.MAPPO`.

    Raises:
        ConfigError: an option is out of range.
    """

    name: ClassVar[str] = "sequential-marl"
    hyperparameters: ClassVar[Space] = Space(
        rollout=Int(8, 128, log=True),
        learning_rate=Float(1e-4, 3e-2, log=True),
        critic_rate=Float(1e-4, 3e-2, log=True),
        clip=Float(0.1, 0.4),
        entropy=Float(1e-4, 0.1, log=True),
        order=Categorical("given", "random", "importance"),
        trace=Float(0.5, 1.0),
    )

    def __init__(
        self,
        space: Space,
        objectives: Sequence[Objective] = (Objective("value"),),
        constraints: Sequence[Constraint] = (),
        *,
        order: Order = "given",
        ordered_after: int = 128,
        trace: float = 0.95,
        **given: Any,
    ) -> None:
        if order not in ("given", "random", "importance"):
            raise ConfigError(
                f"order={order!r} must be given, random or importance (SequentialMARL)."
            )
        check_at_least("SequentialMARL", 1, ordered_after=ordered_after)
        check_shares("SequentialMARL", trace=trace)
        self.order, self.ordered_after, self.trace = order, ordered_after, trace
        super().__init__(space, objectives, constraints, **given)

    def build(self, rng: np.random.Generator) -> None:
        """See :meth:`PolicyGradient.build`."""
        groups = agent_groups(self.choices, self.agents)
        self.names, self._of_agent = list(groups), list(groups.values())
        names = {self.choices.choices[i].name: k for k, g in enumerate(self._of_agent) for i in g}
        self._needs: list[set[int]] = []
        for k, group in enumerate(self._of_agent):
            needs: set[int] = set()
            for i in group:
                condition = self.space[self.choices.choices[i].name].condition
                wanted = condition.names() if condition is not None else ()
                needs |= {names[n] for n in wanted if n in names} - {k}
            self._needs.append(needs)
        first = np.arange(len(groups), dtype=np.float64)
        if self.order == "random":
            first = random_stream(self.seed, LATER // 2).random(len(groups))
        self._is_ordered = self.order != "importance"
        self._turns = self._in_turn(first)
        super().build(rng)
        self._take_turns()

    def _in_turn(self, urgency: Floats) -> list[int]:
        """The agents by ascending ``urgency``, each after those it needs."""
        left, turns = list(np.argsort(urgency, kind="stable")), list[int]()
        while left:
            # Two agents that need each other (groups of one's own) keep the order of urgency.
            ready = [k for k in left if self._needs[k] <= set(turns)] or left
            turns.append(int(ready[0]))
            left.remove(ready[0])
        return turns

    def _take_turns(self) -> None:
        """Let each agent's policy and critic see what is chosen before its turn."""
        count = len(self._turns)
        place = np.empty(count, dtype=np.int64)
        place[self._turns] = np.arange(count)
        before = torch.from_numpy((place[None] < place[:, None]).astype(np.float64))  # [k, j]
        sees = self.choices.spread(before @ self.policy.member.T)
        self.policy.sees = self.critics.sees = sees
        self.policy.turns = self._turns

    def sees(self) -> Tensor | None:
        """See :meth:`PPO.sees`."""
        return torch.zeros(len(self.groups), self.choices.num_features, dtype=torch.float64)

    def advantages_over(self, values: Tensor, rewards: Tensor, active: Tensor) -> Tensor:
        """See :meth:`MAPPO.advantages_over`."""
        turns = self._turns
        in_turn, acts = values[:, turns].T.clone(), active[:, turns].T
        following = torch.empty_like(in_turn)
        after = rewards
        for k in range(len(turns) - 1, -1, -1):
            following[k] = after
            # Who has no turn changes nothing, so what the next one sees is worth the same.
            after = in_turn[k] = torch.where(acts[k] > 0, in_turn[k], after)
        nothing = torch.zeros_like(in_turn)
        found = gae(nothing, in_turn, following, nothing, nothing, discount=1.0, trace=self.trace)
        by_agent = torch.empty_like(values)
        by_agent[:, turns] = found.T
        return super().advantages_over(-by_agent, torch.zeros_like(rewards), active)

    def learn(self, x: Any, mask: Any, keys: Floats, rng: np.random.Generator) -> None:
        """See :meth:`PolicyGradient.learn`."""
        super().learn(x, mask, keys, rng)
        if not self._is_ordered and self.num_learnt >= self.ordered_after:
            self._is_ordered = True
            self._turns = self._in_turn(-self.importance())
            self._take_turns()

    def importance(self) -> Floats:
        """[A] share of the remembered rewards' variance between the levels of each agent."""
        features = self.critics.features.numpy()
        rewards = self.scale.rewards(self.critics.keys)
        total = rewards.var()
        found = np.zeros(len(self._of_agent))
        for k, group in enumerate(self._of_agent):
            for i in group:
                start, stop = self.choices.feature_starts[i : i + 2]
                part = features[:, start:stop]
                if self.choices.choices[i].kind in ("values", "bins"):
                    cells = np.where(part.any(axis=1), part.argmax(axis=1), part.shape[1])
                else:
                    cells = np.minimum((part[:, 0] * 8).astype(np.int64), 7)
                counts = np.bincount(cells)
                sums = np.bincount(cells, weights=rewards)
                known = counts > 0
                means = sums[known] / counts[known]
                between = (counts[known] * (means - rewards.mean()) ** 2).sum() / len(rewards)
                # What as many levels of mere chance would explain is taken off.
                chance = total * (known.sum() - 1) / max(len(rewards) - 1, 1)
                found[k] = max(found[k], between - chance)
        return found
