"""How well a policy does: success with its interval, reward, steps, cost, time, violations."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from sharpen.align.agents.collecting import collect
from sharpen.align.agents.environment import MakeWorld
from sharpen.align.agents.memory import ReflectionMemory
from sharpen.align.agents.policies import Policy
from sharpen.align.agents.trajectory import Trajectory
from sharpen.core.errors import DataError
from sharpen.text.prompts.confidence import Interval, mcnemar, mean_interval, paired_difference

__all__ = ["AgentReport", "Comparison", "compare_agents", "evaluate", "report_of"]


@dataclass(frozen=True, kw_only=True, slots=True)
class AgentReport:
    """What a policy did."""

    success: Interval
    """Share of episodes, with Wilson's interval of 95 %."""

    reward: Interval
    steps: float
    """Mean of an episode, as the next two."""

    cost: float
    time_s: float
    violations: float
    """Share of episodes with something forbidden."""

    tasks: tuple[int, ...]
    wins: tuple[bool, ...]
    """[tasks] success of each episode."""

    def summary(self) -> str:
        """One line."""
        return (
            f"success {self.success}, reward {self.reward.value:.3f}, {self.steps:.1f} steps, cost"
            f" {self.cost:.1f}, {self.time_s:.3f} s, violations {self.violations:.1%}"
        )

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "success": [self.success.value, self.success.low, self.success.high],
            "reward": [self.reward.value, self.reward.low, self.reward.high],
            "steps": self.steps,
            "cost": self.cost,
            "time_s": self.time_s,
            "violations": self.violations,
            "tasks": list(self.tasks),
            "wins": list(self.wins),
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Two policies on the same tasks."""

    difference: Interval
    """Success of the first minus that of the second, by a paired bootstrap."""

    p: float
    """Of McNemar's exact test that both succeed equally often."""


def evaluate(
    make: MakeWorld,
    policy: Policy,
    seeds: Iterable[int] = range(100),
    *,
    memory: ReflectionMemory | None = None,
    instructions: str = "",
    seed: int = 0,
) -> AgentReport:
    """Play each task once.

    Args:
        make: makes a world.
        policy: acts.
        seeds: of the tasks.
        memory: gives lessons.
        instructions: what the agent is told before its goal.
        seed: of what is drawn.

    Raises:
        DataError: there are no tasks.
    """
    return report_of(
        collect(make, policy, tasks=seeds, memory=memory, instructions=instructions, seed=seed)
    )


def report_of(trajectories: Sequence[Trajectory]) -> AgentReport:
    """The report of episodes that were played.

    Raises:
        DataError: there are none.
    """
    if not trajectories:
        raise DataError("there are no trajectories to report on.")
    return AgentReport(
        success=mean_interval([float(one.success) for one in trajectories]),
        reward=mean_interval([one.reward for one in trajectories]),
        steps=fmean(len(one.steps) for one in trajectories),
        cost=fmean(sum(step.cost for step in one.steps) for one in trajectories),
        time_s=fmean(sum(step.time_s for step in one.steps) for one in trajectories),
        violations=fmean(any(s.is_violation for s in one.steps) for one in trajectories),
        tasks=tuple(one.task for one in trajectories),
        wins=tuple(one.success for one in trajectories),
    )


def compare_agents(first: AgentReport, second: AgentReport) -> Comparison:
    """Whether one policy succeeds more often than another.

    Raises:
        DataError: they did not play the same tasks.
    """
    if first.tasks != second.tasks:
        raise DataError("only reports of the same tasks, in the same order, can be compared.")
    ours, theirs = ([float(win) for win in one.wins] for one in (first, second))
    return Comparison(difference=paired_difference(ours, theirs), p=mcnemar(ours, theirs))
