"""What every way of searching for prompts stands on: one budget, one history, one proposer.

A unit of the budget is one example under one prompt; a full evaluation takes as many as there are
validation examples. What was judged before costs nothing again, and a step that does not fit into
what is left is not begun.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sharpen.core.errors import ConfigError
from sharpen.core.lm.errors import ReplyError
from sharpen.text.asking import Asker
from sharpen.text.listing import elided, shown
from sharpen.text.prompts.evaluator import Evaluation, Evaluator, Outcome
from sharpen.text.prompts.exemplars import ExemplarPool
from sharpen.text.prompts.task import Candidate, Example
from sharpen.text.reply import all_between

__all__ = ["BudgetSpent", "Search", "failures"]

_SHOWN = 600
_DRY = 6  # asks in a row without anything new, after which a method gives up


class BudgetSpent(Exception):
    """The next evaluation does not fit into what is left."""


class Search:
    """A search for a prompt.

    Args:
        evaluator: judges candidates.
        proposer: a model that writes instructions; None where no method needs one.
        seed_prompt: where it begins.
        train: examples that methods may look at.
        val: examples that candidates are compared on.
        units: how many judgements may be made.
        seed: of all its randomness.
        on_evaluation: called with every full evaluation.

    Attributes:
        unreadable: replies of the proposer that held no instruction.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        proposer: Asker | None,
        seed_prompt: Candidate,
        train: Sequence[Example],
        val: Sequence[Example],
        *,
        units: int,
        seed: int = 0,
        on_evaluation: Callable[[Evaluation], None] | None = None,
    ) -> None:
        self.evaluator = evaluator
        self.proposer = proposer
        self.seed_prompt = seed_prompt
        self.train = list(train)
        self.val = list(val)
        self.units = units
        self.spent = 0
        self.rng = np.random.default_rng(seed)
        self.history: list[Evaluation] = []
        self.pool = ExemplarPool(train)
        self._on_evaluation = on_evaluation
        self.unreadable = 0
        self._asked = 0
        self._dry = 0

    # -- evaluating ------------------------------------------------------------------------------

    @property
    def full_evaluations_left(self) -> float:
        """What is left, in full evaluations."""
        return (self.units - self.spent) / len(self.val)

    def full(self, candidate: Candidate) -> Evaluation:
        """The candidate on all validation examples.

        Raises:
            BudgetSpent: it does not fit into the budget.
        """
        known = {evaluation.candidate.key for evaluation in self.history}
        evaluation = self.on(candidate, self.val)
        self.pool.add(evaluation)
        if candidate.key not in known:
            self.history.append(evaluation)
            if self._on_evaluation is not None:
                self._on_evaluation(evaluation)
        return evaluation

    def on(self, candidate: Candidate, examples: Sequence[Example]) -> Evaluation:
        """The candidate on some examples.

        Raises:
            BudgetSpent: it does not fit into the budget.
        """
        cost = self.evaluator.missing(candidate, examples)
        if self.spent + cost > self.units:
            raise BudgetSpent
        self.spent += cost
        return self.evaluator(candidate, examples)

    @property
    def best(self) -> Evaluation:
        """The full evaluation of the highest score; of equal ones the first.

        Raises:
            ConfigError: there was none.
        """
        if not self.history:
            raise ConfigError("the budget is too small for one evaluation of the first prompt.")
        return max(self.history, key=lambda evaluation: evaluation.score)

    def minibatch(self, size: int) -> list[Example]:
        """Training examples at random."""
        size = min(size, len(self.train))
        picked = self.rng.choice(len(self.train), size=size, replace=False)
        return [self.train[int(k)] for k in picked]

    # -- proposing -------------------------------------------------------------------------------

    def ask(self, prompt: str, temperature: float = 1.0) -> list[str]:
        """Texts that the proposer writes between ``<PROMPT>`` and ``</PROMPT>``.

        Raises:
            BudgetSpent: nothing new came for a while.
        """
        reply = self.ask_words(prompt, temperature)
        try:
            found = [text for text in all_between(reply, "<PROMPT>", "</PROMPT>") if text]
        except ReplyError:
            found = []
        self.unreadable += not found
        tried = {evaluation.candidate.instruction for evaluation in self.history}
        self._dry = 0 if any(text not in tried for text in found) else self._dry + 1
        if self._dry >= _DRY:
            raise BudgetSpent
        return list(dict.fromkeys(found))

    def begin_round(self, candidate: Candidate) -> None:
        """Let the next stage begin from a prompt, and with its own patience."""
        self.seed_prompt = candidate
        self._dry = 0

    def skip(self) -> None:
        """Note a turn that brought nothing.

        Raises:
            BudgetSpent: nothing new came for a while.
        """
        self._dry += 1
        if self._dry >= _DRY:
            raise BudgetSpent

    def ask_words(self, prompt: str, temperature: float = 1.0) -> str:
        """What the proposer writes."""
        if self.proposer is None:
            raise ConfigError("this way of writing instructions needs a proposer: proposer=LM(...)")
        self._asked += 1
        return self.proposer(prompt, temperature=temperature, repeat=self._asked)

    def shown(self, examples: Sequence[Example]) -> str:
        """Examples as text."""
        return "\n\n".join(
            f"Input: {elided(_values(one), _SHOWN)}\nOutput: {elided(shown(one.output), _SHOWN)}"
            for one in examples
        )


def _values(example: Example) -> str:
    values: Any = dict(example.input)
    if set(values) == {"input"}:
        return shown(values["input"])
    return "; ".join(f"{name}: {shown(value)}" for name, value in values.items())


def failures(outcomes: Sequence[Outcome], count: int) -> str:
    """Examples that went wrong, as text: input, reply, what is right, what was said."""
    parts = []
    for outcome in [one for one in outcomes if one.score < 1][:count]:
        said = f"\nSaid about it: {elided(outcome.feedback, _SHOWN)}" if outcome.feedback else ""
        parts.append(
            f"Input: {elided(_values(outcome.example), _SHOWN)}\n"
            f"Reply: {elided(outcome.reply, _SHOWN)}\n"
            f"Right: {elided(shown(outcome.example.output), _SHOWN)}{said}"
        )
    return "\n\n".join(parts)
