"""Tasks with a known best prompt, and how runs on them are watched: for ours and for peers alike.

Imports of the package nothing but the oracle, so that the interpreter of the peers runs it too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from sharpen.text.prompts.oracle import Oracle
from sharpen.text.prompts.task import Example

__all__ = ["BUDGETS", "COUNT", "FIRST", "TASKS", "Watched", "climb", "examples_of"]

WEIGHTS = {
    "steps": 0.12,
    "short": 0.08,
    "expert": 0.06,
    "check": 0.05,
    "json": -0.1,
    "rhyme": -0.15,
    "verbose": -0.05,
    "polite": 0.0,
}
FIRST = "Answer yes or no. (rhyme)"
BUDGETS = (8, 16, 32)
COUNT = 30
BATCH = 3
NEAR = 0.05
TASKS: dict[str, dict[str, float]] = {
    "instructions": {"exemplar_weight": 0.0},
    "noisy": {"exemplar_weight": 0.0, "noise": 0.4},
    "both": {"exemplar_weight": 0.3},
}
"""Instructions alone; the same with two of five answers drawn without regard to the prompt; and
instructions with up to four exemplars, which help by the kinds of inputs that they cover."""

_INSTRUCTION = re.compile(r"Answer yes or no\.[^\n\"]*")


class Watched(Oracle):
    """Counts answers, and notes how many it took until a prompt near the best was asked."""

    def __init__(self, task: str, seed: int) -> None:
        super().__init__(WEIGHTS, seed=seed, **TASKS[task])
        self.answers = 0
        self.reached: int | None = None
        self.proposals = 0

    def answer(self, prompt: str) -> str:
        """The label of the last case."""
        self.answers += 1
        shown = re.findall(r"of kind (\w)\] -> ", prompt)
        if self.reached is None and self.best_chance - self.chance(prompt, shown) <= NEAR:
            self.reached = self.answers
        return super().answer(prompt)

    def proposal(self, prompt: str) -> str:
        """An instruction made of the last one in a prompt; every one is a new draw."""
        self.proposals += 1
        return self.propose(prompt, self.proposals)

    def instruction_of(self, text: str) -> str:
        """The last instruction in a text."""
        found: list[str] = _INSTRUCTION.findall(text)
        return found[-1].strip() if found else text

    def outcome(
        self, instruction: str, shown: Sequence[Sequence[str]], seconds: float
    ) -> dict[str, Any]:
        """What a run came to.

        Args:
            instruction: of the chosen prompt.
            shown: kinds of the exemplars that it shows; a list for each input if they differ.
            seconds: of the processor.
        """
        chances = [self.chance(instruction, kinds) for kinds in shown or [()]]
        chance = sum(chances) / len(chances)
        return {
            "regret": self.best_chance - chance,
            "calls": self.answers,
            "reached": self.reached,
            "cpu_s": seconds,
        }


def examples_of(oracle: Oracle) -> tuple[list[Example], list[Example]]:
    """Examples to learn from, and to compare prompts on."""
    both = oracle.examples(2 * COUNT)
    return both[:COUNT], both[COUNT:]


def climb(
    oracle: Watched,
    budget: int,
    step: Callable[[Sequence[Example]], str],
    revert: Callable[[str], None],
) -> str:
    """Minibatch steps, each taken back where the validation score falls, within a budget.

    Args:
        oracle: answers.
        budget: full evaluations.
        step: runs the program on a minibatch, sends feedback, and gives the new instruction.
        revert: sets an instruction.

    Returns:
        The instruction at the end.
    """
    train, val = examples_of(oracle)

    def score(instruction: str) -> float:
        right = [oracle.answer(f"{instruction}\n\n{e.input['input']}") == e.output for e in val]
        return sum(right) / len(right)

    kept, best, turn = FIRST, score(FIRST), 0
    while oracle.answers + BATCH + COUNT <= budget * COUNT:
        batch = [train[(turn * BATCH + k) % COUNT] for k in range(BATCH)]
        turn += 1
        new = step(batch)
        value = score(new)
        if value >= best:
            kept, best = new, value
        else:
            revert(kept)
    return kept
