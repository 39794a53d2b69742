"""Independent PPO: one agent a parameter, each with its own network, all with the same reward.

Christian Schroeder de Witt et al., "Is Independent Learning All You Need in the StarCraft
Multi-Agent Challenge?", 2020; for the design of processors Srivatsan Krishnan et al., "Multi-Agent
Reinforcement Learning for Microprocessor Design Space Exploration", 2022::

    rho_k = pi_k(a_k) / pi_old,k(a_k)               of agent k alone
    A     = (r - mean r) / sd r                     the same for all agents
    L     = -sum_k mean min(rho_k A, clip(rho_k, 1 - e, 1 + e) A) - c sum H

With PPO the ratio of a whole configuration is cut, here that of each agent's part. A factored
policy cannot hold two configurations that go together in each of several parameters; and where a
parameter's good value is good only beside rare values of others (the "climbing game"), independent
learners settle on what is safe beside everything.

Design problems are stateless: see :mod:`sharpen.search.rl.policy_gradient`. In an environment the
agents of the second paper see the last metrics; here those say nothing about the next trial, so
that agents see nothing.

Differs from the papers: that, and no critic: the value of the one state is the mean reward.

Time O(epochs x agents x network) a trial; memory O(agents x network).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from sharpen.core.parameters import Float, Int
from sharpen.core.problem import Constraint, Objective
from sharpen.core.space import Space
from sharpen.search.rl.choices import Ranges
from sharpen.search.rl.policy_gradient import agent_groups
from sharpen.search.rl.ppo import PPO

__all__ = ["IPPO"]


class IPPO(PPO):
    """Independent PPO; see the module for the method.

    Args:
        space: what to search over.
        objectives: one.
        constraints: any number; see :mod:`sharpen.search.rl.policy_gradient`.
        agents: ``"per_parameter"``, or the names of each agent's parameters by the agent's name.
        ranges: what longer ranges are, ``"bins"`` or ``"beta"``.
        given: see :class:`~sharpen.search.rl.ppo.PPO`.

    Raises:
        ConfigError: an option is out of range, or a parameter has no agent.
    """

    name: ClassVar[str] = "ippo"
    hyperparameters: ClassVar[Space] = Space(
        rollout=Int(8, 128, log=True),
        learning_rate=Float(1e-4, 3e-2, log=True),
        clip=Float(0.1, 0.4),
        epochs=Int(1, 16, log=True),
        entropy=Float(1e-4, 0.1, log=True),
    )

    def __init__(
        self,
        space: Space,
        objectives: Sequence[Objective] = (Objective("value"),),
        constraints: Sequence[Constraint] = (),
        *,
        agents: str | Mapping[str, Sequence[str]] = "per_parameter",
        ranges: Ranges = "bins",
        **given: Any,
    ) -> None:
        self._agents = agents
        super().__init__(space, objectives, constraints, ranges=ranges, **given)
        agent_groups(self.choices, agents)  # wrong names are told at once

    @property
    def agents(self) -> str | Mapping[str, Sequence[str]]:
        """Who chooses what."""
        return self._agents
