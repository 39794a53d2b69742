"""Which trajectories to learn from: rules one after another, with a count for each.

A rule looks at all trajectories that are left and says of each whether it stays, so that it may
compare them: to leave out doubles, or to balance tasks.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sharpen.align.agents.trajectory import Trajectory
from sharpen.core.errors import ConfigError

__all__ = [
    "Filtered",
    "Rule",
    "best_of",
    "difficulty",
    "filter_trajectories",
    "judged",
    "max_steps",
    "min_reward",
    "no_violation",
    "succeeded",
    "unique",
    "without",
]


@dataclass(frozen=True, slots=True)
class Rule:
    """A named choice."""

    name: str
    keep: Callable[[Sequence[Trajectory]], Sequence[bool]]


@dataclass(frozen=True, slots=True)
class Filtered:
    """What is left, and how many each rule left out."""

    kept: list[Trajectory]
    dropped: dict[str, int]


def filter_trajectories(trajectories: Sequence[Trajectory], rules: Sequence[Rule]) -> Filtered:
    """Apply rules in order.

    Args:
        trajectories: what there is.
        rules: of this module, or others.

    Raises:
        ConfigError: two rules have one name, or one does not answer for every trajectory.
    """
    dropped: dict[str, int] = {}
    kept = list(trajectories)
    for rule in rules:
        if rule.name in dropped:
            raise ConfigError(f"two rules have the name '{rule.name}': rename one.")
        answers = list(rule.keep(kept))
        if len(answers) != len(kept):
            raise ConfigError(
                f"the rule '{rule.name}' gave {len(answers)} answers for {len(kept)} trajectories."
            )
        dropped[rule.name] = len(answers) - sum(map(bool, answers))
        kept = [one for one, stays in zip(kept, answers, strict=True) if stays]
    return Filtered(kept, dropped)


def _each(name: str, test: Callable[[Trajectory], bool]) -> Rule:
    return Rule(name, lambda some: [test(one) for one in some])


def succeeded() -> Rule:
    """Those that reached their goal."""
    return _each("succeeded", lambda one: one.success)


def min_reward(least: float) -> Rule:
    """Those with at least so much reward."""
    return _each(f"reward >= {least:g}", lambda one: one.reward >= least)


def max_steps(most: int) -> Rule:
    """Those with so many steps at most."""
    return _each(f"steps <= {most}", lambda one: len(one.steps) <= most)


def no_violation() -> Rule:
    """Those that did nothing forbidden."""
    return _each("no violation", lambda one: not any(step.is_violation for step in one.steps))


def without(pattern: str) -> Rule:
    """Those in which no text of the model has something that fits a regular expression."""
    compiled = re.compile(pattern)
    return _each(
        f"without {pattern}",
        lambda one: not any(compiled.search(step.text) for step in one.steps),
    )


def judged(judge: Callable[[Trajectory], float], least: float, name: str = "judged") -> Rule:
    """Those that a judge gives at least so much."""
    return _each(name, lambda one: judge(one) >= least)


def unique() -> Rule:
    """The first of those that do the same in the same task."""

    def keep(some: Sequence[Trajectory]) -> list[bool]:
        seen: set[tuple[int, str, tuple[str, ...]]] = set()
        answers = []
        for one in some:
            key = (one.task, one.goal, one.actions)
            answers.append(key not in seen)
            seen.add(key)
        return answers

    return Rule("unique", keep)


def best_of(most: int) -> Rule:
    """Of each task so many: those with the most reward, and of these the shortest."""
    if most < 1:
        raise ConfigError(f"best_of({most}) must keep at least 1.")

    def keep(some: Sequence[Trajectory]) -> list[bool]:
        by_task: dict[int, list[int]] = defaultdict(list)
        for i, one in enumerate(some):
            by_task[one.task].append(i)
        chosen: set[int] = set()
        for indices in by_task.values():
            ranked = sorted(indices, key=lambda i: (-some[i].reward, len(some[i].steps), i))
            chosen.update(ranked[:most])
        return [i in chosen for i in range(len(some))]

    return Rule(f"best {most}", keep)


def difficulty(low: float, high: float) -> Rule:
    """Those of tasks whose share of successes lies in a range: neither hopeless nor too easy."""
    if not 0 <= low <= high <= 1:
        raise ConfigError(f"difficulty({low}, {high}) must be shares, the lower first.")

    def keep(some: Sequence[Trajectory]) -> list[bool]:
        runs, wins = Counter(one.task for one in some), Counter[int]()
        for one in some:
            wins[one.task] += one.success
        return [low <= wins[one.task] / runs[one.task] <= high for one in some]

    return Rule(f"difficulty {low:g} to {high:g}", keep)
