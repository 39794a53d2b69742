"""A gymnasium environment as a problem: find the weights of a policy, or settings to train it with.

::

    "linear"    action = W s + b                       "mlp"    action = W_2 tanh(W_1 s + b_1) + b_2
    levels      the one with the largest number        reals    centre + number x half range, cut
    objective   mean return of some episodes           constant seeds: the same episodes each time

A policy of one's own is a function from a configuration to a function from an observation to an
action. ``"ppo"`` and ``"sac"`` train an agent with the configuration as their options and measure
it afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from sharpen.core.errors import ConfigError
from sharpen.core.parameters import Float
from sharpen.core.problem import Objective, TrialContext
from sharpen.core.space import Space
from sharpen.search.rl.agents import Agent, train_agent
from sharpen.search.rl.environments import EnvironmentMaker, Environments, make_environment

__all__ = ["GymnasiumProblem", "problem_from_gymnasium"]

Act = Callable[[Any], Any]
Policy = str | Callable[[dict[str, Any]], Act]


class GymnasiumProblem:
    """The problem that :func:`problem_from_gymnasium` makes."""

    def __init__(
        self,
        env: EnvironmentMaker,
        policy: Policy,
        space: Space | None,
        episodes: int,
        seed: int,
        is_fresh: bool,
        hidden: int,
        bound: float,
        steps: int | None,
    ) -> None:
        self.env, self.policy, self.episodes = env, policy, episodes
        self.seed, self.is_fresh, self.hidden, self.steps = seed, is_fresh, hidden, steps
        copies = Environments(env, 1, seed)
        self._form, inputs = copies.form, copies.observation_size
        copies.close()
        outputs = sum(self._form.levels) or self._form.size
        widths = {"linear": [inputs, outputs], "mlp": [inputs, hidden, outputs]}
        self._widths: list[int] = []
        if isinstance(policy, str) and policy in widths:
            self._widths = widths[policy]
            count = sum((a + 1) * b for a, b in zip(self._widths, self._widths[1:], strict=False))
            space = Space({f"w{i}": Float(-bound, bound) for i in range(count)})
        elif isinstance(policy, str) and policy not in ("ppo", "sac"):
            raise ConfigError(
                f"policy={policy!r} must be 'linear', 'mlp', 'ppo', 'sac' or a function."
            )
        if space is None:
            raise ConfigError(f"the policy {policy!r} needs space=, what to search over.")
        if policy in ("ppo", "sac") and steps is None:
            raise ConfigError(f"policy={policy!r} needs steps=, how long to train.")
        self.space = space
        self.name = f"gymnasium-{env}" if isinstance(env, str) else "gymnasium"
        self.objectives = (Objective("return", "max"),)
        self.constraints = ()

    def agent(self, config: Mapping[str, Any]) -> Agent:
        """The agent whose policy has the weights of ``config``; of a linear policy or an MLP."""
        flat = np.array([config[name] for name in self.space], dtype=np.float32)
        layers, start = [], 0
        for a, b in zip(self._widths, self._widths[1:], strict=False):
            w, start = flat[start : start + a * b].reshape(a, b), start + a * b
            layers.append((w, flat[start : start + b]))
            start += b
        log_sd = None if self._form.levels else np.zeros(self._form.size, dtype=np.float32)
        return Agent(
            algorithm=str(self.policy),
            layers=layers,
            activation="tanh",
            form=self._form,
            log_sd=log_sd,
        )

    def evaluate(self, config: dict[str, Any], trial: TrialContext) -> dict[str, Any]:
        """Returns of some episodes; see :meth:`sharpen.core.problem.Problem.evaluate`."""
        first = trial.seed if self.is_fresh else self.seed
        act: Act
        if self._widths:
            act = self.agent(config).act
        elif isinstance(self.policy, str):
            assert self.steps is not None
            name: Any = self.policy
            act = train_agent(self.env, name, steps=self.steps, seed=first, config=config).act
        else:
            act = self.policy(config)
        returns = [self._play(act, first + i) for i in range(self.episodes)]
        return {"return": float(np.mean(returns)), "least": min(returns), "most": max(returns)}

    def _play(self, act: Act, seed: int) -> float:
        env = make_environment(self.env)
        observation, _ = env.reset(seed=seed)
        total, is_over = 0.0, False
        while not is_over:
            observation, reward, terminated, truncated, _ = env.step(act(observation))
            total += float(reward)
            is_over = terminated or truncated
        env.close()
        return total


def problem_from_gymnasium(
    env: EnvironmentMaker,
    policy: Policy = "linear",
    *,
    space: Space | None = None,
    episodes: int = 5,
    seed: int = 0,
    is_fresh: bool = False,
    hidden: int = 8,
    bound: float = 1.0,
    steps: int | None = None,
) -> GymnasiumProblem:
    """Make an environment a problem; see the module.

    Args:
        env: an id, or a function that makes an environment. Its episodes must end.
        policy: ``"linear"``, ``"mlp"``; ``"ppo"``, ``"sac"``; or a function of one's own.
        space: what to search over; of ``"linear"`` and ``"mlp"`` it is their weights.
        episodes: of a trial.
        seed: of the first episode; the next ones follow.
        is_fresh: other episodes in each trial, by the trial's seed: a noisy objective.
        hidden: width of the MLP.
        bound: weights are from -bound to bound.
        steps: of training, for ``"ppo"`` and ``"sac"``.

    Raises:
        ConfigError: no such environment or policy, spaces that agents cannot use, or an argument
            that is missing.

    Examples:
        >>> problem = problem_from_gymnasium("CartPole-v1", "linear", episodes=1)
        >>> len(problem.space), problem.objectives[0].direction
        (10, 'max')
    """
    if episodes < 1:
        raise ConfigError(f"episodes={episodes} must be at least 1.")
    if hidden < 1 or not bound > 0:
        raise ConfigError(f"hidden={hidden} and bound={bound} must be positive.")
    return GymnasiumProblem(env, policy, space, episodes, seed, is_fresh, hidden, bound, steps)
