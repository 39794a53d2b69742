"""Pairs of steps: what was better to do at a point that several trajectories share.

Trajectories of one task that did the same up to a step are in the same state there, so they are
branches of a tree. The value of an action at a branching is the mean reward of the trajectories
that took it. A pair has the shared beginning as its prompt; only the tokens of the action are
learned from.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sharpen.align.agents.trajectory import Step, Trajectory, context_ids, context_of
from sharpen.align.rows.parse import Row
from sharpen.align.rows.tokens import TokenRow
from sharpen.core.errors import ConfigError
from sharpen.models.tokenizer import Tokenizer

__all__ = ["StepPair", "pair_rows", "pair_tokens", "step_pairs"]


@dataclass(frozen=True, kw_only=True, slots=True)
class StepPair:
    """Two actions at one point."""

    goal: str
    task: int
    steps: tuple[Step, ...]
    """What was done before, the same for both."""

    observation: str
    chosen: str
    rejected: str
    """The model's words."""

    margin: float
    """By how much the mean reward after the chosen one is higher."""

    chosen_ids: tuple[int, ...] | None = None
    """The tokens that a model drew for it, the end included; None where they are not known."""

    rejected_ids: tuple[int, ...] | None = None

    lessons: tuple[str, ...] = ()
    """What the agent was reminded of at the beginning."""

    instructions: str = ""
    """What it was told before the goal."""


def step_pairs(
    trajectories: Iterable[Trajectory], *, margin: float = 0.3, min_visits: int = 3
) -> list[StepPair]:
    """The best and the worst action at every point where trajectories part.

    Args:
        trajectories: of any tasks; worlds must be deterministic, given the task.
        margin: least difference of the mean rewards.
        min_visits: trajectories that must have taken an action for it to count; with few of them
            the best action is so by luck, and learning from it does harm.

    Raises:
        ConfigError: ``margin`` is not above 0, or ``min_visits`` below 1.
    """
    if not margin > 0 or min_visits < 1:
        raise ConfigError(
            f"margin={margin} of step pairs must be above 0 and min_visits={min_visits} at least 1."
        )
    branches: dict[tuple[Any, ...], dict[str, list[tuple[Trajectory, int]]]] = {}
    for one in trajectories:
        for at, step in enumerate(one.steps):
            before = tuple(earlier.action for earlier in one.steps[:at])
            point = branches.setdefault((one.task, one.goal, before), defaultdict(list))
            point[step.action].append((one, at))
    found = []
    for taken in branches.values():
        values = {
            action: sum(one.reward for one, _ in some) / len(some)
            for action, some in taken.items()
            if len(some) >= min_visits
        }
        if len(values) < 2:
            continue
        best, worst = max(values, key=values.__getitem__), min(values, key=values.__getitem__)
        if values[best] - values[worst] >= margin:
            found.append(_pair(taken[best][0], taken[worst][0], values[best] - values[worst]))
    return found


def _pair(good: tuple[Trajectory, int], bad: tuple[Trajectory, int], margin: float) -> StepPair:
    one, at = good
    other, _ = bad
    return StepPair(
        goal=one.goal,
        task=one.task,
        steps=one.steps[:at],
        observation=one.steps[at].observation,
        chosen=one.steps[at].text,
        rejected=other.steps[at].text,
        margin=margin,
        chosen_ids=one.steps[at].ids,
        rejected_ids=other.steps[at].ids,
        lessons=one.lessons,
        instructions=one.instructions,
    )


def pair_rows(pairs: Sequence[StepPair]) -> list[dict[str, Any]]:
    """Pairs as rows of the format ``preference`` for :mod:`sharpen.align.rows`."""
    return [
        {
            "prompt": context_of(
                one.goal, one.steps, one.observation, one.lessons, one.instructions
            ),
            "chosen": f" {one.chosen}",
            "rejected": f" {one.rejected}",
            "margin": one.margin,
            "task": one.task,
        }
        for one in pairs
    ]


def pair_tokens(pairs: Sequence[StepPair], tokenizer: Tokenizer) -> list[TokenRow]:
    """Pairs as tokens, those that a model drew where they are known.

    Args:
        pairs: of :func:`step_pairs`.
        tokenizer: of the model that learns from them.
    """
    end = [] if tokenizer.eos_id is None else [tokenizer.eos_id]
    found = []
    for one in pairs:
        answers = [
            list(ids) if ids is not None else [*tokenizer.encode(f" {text}"), *end]
            for text, ids in ((one.chosen, one.chosen_ids), (one.rejected, one.rejected_ids))
        ]
        row = Row(
            where=f"task {one.task}, step {len(one.steps)}",
            kind="preference",
            completions=(one.chosen, one.rejected),
            meta={"margin": one.margin},
        )
        prompt = context_ids(
            one.goal, one.steps, one.observation, tokenizer, one.lessons, one.instructions
        )
        masks = [[True] * len(answer) for answer in answers]
        found.append(TokenRow(row=row, prompt=prompt, completions=answers, masks=masks))
    return found
