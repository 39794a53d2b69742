"""Rewards of trajectories and of their steps.

A step is worth by how much it raises what may be expected, estimated by playing on from before and
after it many times (Monte Carlo)::

    V(s_t) = mean of what n rollouts earn from s_t on, 0 at the end
    process reward of step t = its own reward + V(s_t+1) - V(s_t)

So the process rewards of a trajectory add up to its reward minus V(s_0).
"""

from __future__ import annotations

from dataclasses import dataclass

from sharpen.align.agents.collecting import Episode, play
from sharpen.align.agents.environment import MakeWorld
from sharpen.align.agents.policies import Move, Policy
from sharpen.align.agents.trajectory import Trajectory
from sharpen.core.errors import ConfigError, DataError

__all__ = ["StepValues", "outcome", "process_mc"]


@dataclass(frozen=True, slots=True)
class StepValues:
    """What the steps of a trajectory are worth."""

    values: list[float]
    """[steps + 1] V of the state before each step, and 0 of the end."""

    rewards: list[float]
    """[steps] process rewards."""


def outcome(trajectory: Trajectory) -> float:
    """1 where the goal was reached, else 0."""
    return float(trajectory.success)


def process_mc(
    make: MakeWorld, trajectory: Trajectory, policy: Policy, n_rollouts: int = 8, *, seed: int = 0
) -> StepValues:
    """Monte-Carlo values of a trajectory's steps.

    Args:
        make: makes the trajectory's world.
        trajectory: is played again, so the world must be deterministic, given the task.
        policy: plays on.
        n_rollouts: from each state.
        seed: of the rollouts.

    Raises:
        ConfigError: ``n_rollouts`` is below 1.
        DataError: the world does not do again what it did.
    """
    if n_rollouts < 1:
        raise ConfigError(f"n_rollouts={n_rollouts} must be at least 1.")
    episode = Episode(make, trajectory.task, instructions=trajectory.instructions)
    episode.lessons = trajectory.lessons
    groups: list[list[Episode]] = []
    for step in trajectory.steps:
        if episode.is_over or episode.observation != step.observation:
            raise DataError(
                f"step {len(groups)} of task {trajectory.task} sees something else when it is"
                " played again: the world is not deterministic, or another one."
            )
        groups.append([episode.copy(seed * n_rollouts + i) for i in range(n_rollouts)])
        episode.do(Move(action=step.action, thought=step.thought, ids=step.ids, logp=step.logp))
    play([one for group in groups for one in group], policy)
    values = []
    for at, group in enumerate(groups):
        later = [sum(step.reward for step in one.steps[at:]) for one in group]
        values.append(sum(later) / n_rollouts)
    values.append(0.0)
    rewards = [
        step.reward + values[at + 1] - values[at] for at, step in enumerate(trajectory.steps)
    ]
    return StepValues(values, rewards)
