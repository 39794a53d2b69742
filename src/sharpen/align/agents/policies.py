"""Who acts: a table of preferences that learns by itself, or a language model.

A policy is given the states of several episodes at once, so that a language model answers them as
one batch.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from sharpen.align.agents.pairs import StepPair
from sharpen.align.agents.trajectory import WORLD, Step, Trajectory, context_ids, context_of
from sharpen.core.errors import DataError
from sharpen.models.tokenizer import Tokenizer

__all__ = ["LMPolicy", "Move", "Policy", "State", "TablePolicy"]


@dataclass(frozen=True, kw_only=True, slots=True)
class State:
    """What an agent knows before it acts."""

    goal: str
    observation: str
    actions: tuple[str, ...]
    """What may be done, as far as the world tells."""

    random: np.random.Generator
    """Of this episode."""

    steps: tuple[Step, ...] = ()
    """What was done before."""

    lessons: tuple[str, ...] = ()
    """What it is reminded of."""

    instructions: str = ""
    """What it is told before the goal."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Move:
    """What an agent does."""

    action: str
    thought: str = ""
    ids: tuple[int, ...] | None = None
    logp: tuple[float, ...] | None = None


class Policy(Protocol):
    """Chooses actions."""

    def __call__(self, states: Sequence[State]) -> Sequence[Move]:
        """One move for each state."""


class TablePolicy:
    """A softmax over actions with a preference for each pair of a situation and an action.

    A situation is the goal and what is seen. Actions that it never met have the preference 0, so an
    empty table draws evenly. It heeds lessons of the form of
    :func:`~sharpen.align.agents.memory.lesson_of`.

    Args:
        heed: how much the preference of an action falls that a lesson warns of.
    """

    def __init__(self, *, heed: float = 4.0) -> None:
        self.heed = heed
        self.table: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)

    def __call__(self, states: Sequence[State]) -> list[Move]:
        """Draw a move for each state."""
        return [self._draw(state) for state in states]

    def _draw(self, state: State) -> Move:
        if not state.actions:
            raise DataError("a TablePolicy needs a world that tells what may be done.")
        known = self.table.get((state.goal, state.observation), {})
        scores = np.array([known.get(action, 0.0) for action in state.actions])
        for i, action in enumerate(state.actions):
            scores[i] -= self.heed * any(
                _warns(lesson, state.observation, action) for lesson in state.lessons
            )
        chances = np.exp(scores - scores.max())
        chances /= chances.sum()
        index = int(state.random.choice(len(chances), p=chances))
        return Move(action=state.actions[index])

    def fit(self, trajectories: Iterable[Trajectory], *, prior: float = 0.5) -> None:
        """Imitate: preferences are the logarithms of how often an action was taken.

        Args:
            trajectories: what to imitate, as filtered for rejection-sampling fine-tuning.
            prior: is added to every count; the larger, the more even.
        """
        counts: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        for one in trajectories:
            for step in one.steps:
                counts[one.goal, step.observation][step.action] += 1
        for key, some in counts.items():
            for action, count in some.items():
                self.table[key][action] = math.log((count + prior) / prior)

    def prefer(
        self, pairs: Sequence[StepPair], *, beta: float = 0.5, rate: float = 2.0, steps: int = 10
    ) -> None:
        """Step-wise DPO: descend -log sigmoid(beta * (difference of preferences - its start)).

        In a softmax the normalizers of both actions are the same and cancel, so the log-ratios of a
        pair differ by its preferences alone.

        Args:
            pairs: of :func:`~sharpen.align.agents.step_pairs`.
            beta: how far preferences go from where they began.
            rate: of the descent.
            steps: of it.
        """
        start = {
            i: self._difference(pair.goal, pair.observation, pair.chosen, pair.rejected)
            for i, pair in enumerate(pairs)
        }
        for _ in range(steps):
            for i, pair in enumerate(pairs):
                now = self._difference(pair.goal, pair.observation, pair.chosen, pair.rejected)
                slope = rate * beta / (1 + math.exp(beta * (now - start[i])))
                some = self.table[pair.goal, pair.observation]
                some[pair.chosen] = some.get(pair.chosen, 0.0) + slope
                some[pair.rejected] = some.get(pair.rejected, 0.0) - slope

    def _difference(self, goal: str, observation: str, chosen: str, rejected: str) -> float:
        some = self.table[goal, observation]
        return some.get(chosen, 0.0) - some.get(rejected, 0.0)


def _warns(lesson: str, observation: str, action: str) -> bool:
    return f"'{action}'" in lesson and observation in lesson


class LMPolicy:
    """A language model that reads all that came before and writes its thoughts and an action.

    The last line that it writes is the action, what stands before it are thoughts. A prompt's sign
    that is repeated before the action, and the quotes of code around it, are left out. Where it
    goes on to speak for the world its turn ends, and so do the tokens of the move.

    Args:
        generate: prompts to completions, one for each: texts, or objects with ``text`` and, where
            they are known, ``token_ids`` and ``logprobs``.
        tokenizer: with it, prompts are token ids, exactly those that training will see; without,
            texts.
    """

    def __init__(
        self, generate: Callable[[list[Any]], Sequence[Any]], tokenizer: Tokenizer | None = None
    ) -> None:
        self.generate = generate
        self.tokenizer = tokenizer

    def __call__(self, states: Sequence[State]) -> list[Move]:
        """Ask for all moves at once.

        Raises:
            DataError: there is not one completion for each prompt.
        """
        replies = self.generate([self._prompt(state) for state in states])
        if len(replies) != len(states):
            raise DataError(f"generate gave {len(replies)} completions for {len(states)} prompts.")
        return [_move(reply, self.tokenizer) for reply in replies]

    def _prompt(self, state: State) -> Any:
        if self.tokenizer is None:
            return context_of(
                state.goal, state.steps, state.observation, state.lessons, state.instructions
            )
        return context_ids(
            state.goal,
            state.steps,
            state.observation,
            self.tokenizer,
            state.lessons,
            state.instructions,
        )


def _move(reply: Any, tokenizer: Tokenizer | None) -> Move:
    text = reply if isinstance(reply, str) else reply.text
    ids, logp = getattr(reply, "token_ids", None), getattr(reply, "logprobs", None)
    if ids is None or (logp is not None and len(logp) != len(ids)):
        logp = None  # an engine may leave out that of the end: then it has to be computed
    own, goes_on, _ = text.partition(WORLD)
    if goes_on and ids is not None and tokenizer is not None:
        count = _count(ids, tokenizer)
        ids, logp = ids[:count], None if logp is None else logp[:count]
    lines = [line for line in own.strip().splitlines() if not line.startswith("```")]
    thought, action = "\n".join(lines[:-1]), "".join(lines[-1:])
    return Move(
        action=action.strip().removeprefix(">").strip().strip("`").strip(),
        thought=thought.strip(),
        ids=None if ids is None else tuple(ids),
        logp=None if logp is None else tuple(logp),
    )


def _count(ids: Sequence[int], tokenizer: Tokenizer) -> int:
    """How many tokens stand before the world's words; at least one."""
    own = len(tokenizer.decode(list(ids)).partition(WORLD)[0])
    counts = range(len(ids) + 1)
    return max(1, bisect_right(counts, own, key=lambda n: len(tokenizer.decode(list(ids[:n])))) - 1)
