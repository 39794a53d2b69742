"""What the loops share: judging, telling, asking, and what they give back.

A loop has a problem to learn from and an optimizer that proposes. Its optimizer is told of a
configuration with its feedback on a minibatch and asked for better ones; how many are asked for, on
what they are judged and which are kept is the loop's own.
"""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from sharpen.core.errors import ConfigError
from sharpen.core.feedback import Feedback as CoreFeedback
from sharpen.core.lm.errors import BudgetExhausted
from sharpen.core.optimizer import Candidate
from sharpen.core.space import random_stream
from sharpen.text.optimizers.base import TextOptimizer
from sharpen.text.problem import TextProblem

__all__ = ["TrainResult", "TrainStep", "Trainer", "score_of"]

Config = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainStep:
    """One turn of a loop."""

    number: int
    """From 0."""

    score: float
    """Of what the loop holds after it, on what it decides by; minus infinity where it raised."""

    accepted: bool
    """Whether a proposal was kept."""

    values: Mapping[str, Any]
    """Of the best that it holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainResult:
    """What a loop found; the module has the best values."""

    best: Config
    """The values."""

    score: float
    """Theirs, on what the loop decides by."""

    start: float
    """That of the first values."""

    steps: Sequence[TrainStep] = ()

    examples: int = 0
    """Examples that were judged."""

    cost: Mapping[str, float] = field(default_factory=dict)
    """What running the program took: ``calls``, ``tokens``, and ``usd`` where it is known."""

    stopped: str = ""
    """The limit of the language model that ended it early."""

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


class Trainer(ABC):
    """Base of the loops.

    Args:
        problem: the program, the examples to learn from, and the judge.
        optimizer: proposes; made for the problem's module or space.
        batch: examples that feedback is given on at a time, drawn by chance.
        validation: what proposals are judged on, with the same module; None takes what the loop
            learns from.
        seed: of the minibatches.

    Raises:
        ConfigError: the optimizer or the validation is for another space, or ``batch`` is too
            large.
    """

    def __init__(
        self,
        problem: TextProblem,
        optimizer: TextOptimizer,
        *,
        batch: int = 4,
        validation: TextProblem | None = None,
        seed: int = 0,
    ) -> None:
        who = type(self).__name__
        for what, space in (
            ("optimizer", optimizer.space),
            ("validation", (validation or problem).space),
        ):
            if space != problem.space:
                raise ConfigError(
                    f"the {what} is for another space than the problem ({who}): make it for the"
                    " same module."
                )
        if batch < 1:
            raise ConfigError(f"batch={batch} must be at least 1 ({who}).")
        self.problem = problem
        self.optimizer = optimizer
        self.batch = min(batch, len(problem.dataset))
        self.validation = validation
        self.seed = seed
        self.examples = 0
        self.cost: dict[str, float] = {}
        self._validated: dict[str, float] = {}

    def train(self, steps: int) -> TrainResult:
        """Improve the module's values; it has the best ones afterwards.

        Args:
            steps: turns of the loop.

        Returns:
            What was found; where the budget of a language model was used up, what was found until
            then.
        """
        if steps < 1:
            raise ConfigError(f"steps={steps} must be at least 1 ({type(self).__name__}).")
        done: list[TrainStep] = []
        stopped = ""
        try:
            self.begin(self.problem.space.default())
            start = self.best()[1]
            for number in range(steps):
                accepted = self.step(number)
                values, score = self.best()
                done.append(TrainStep(number=number, score=score, accepted=accepted, values=values))
                if self.optimizer.report.stopped:
                    stopped = self.optimizer.report.stopped
                    break
        except BudgetExhausted as error:
            if not done:
                raise
            stopped = str(error)
        values, score = self.best()
        self.problem.module.load_state_dict(values, strict=False)
        return TrainResult(
            best=values,
            score=score,
            start=start,
            steps=done,
            examples=self.examples,
            cost=self.cost,
            stopped=stopped,
        )

    # -- a loop's own ---------------------------------------------------------------------------

    @abstractmethod
    def begin(self, first: Config) -> None:
        """Take up the first values."""

    @abstractmethod
    def step(self, number: int) -> bool:
        """One turn; whether a proposal was kept."""

    @abstractmethod
    def best(self) -> tuple[Config, float]:
        """The best values held, and their score."""

    # -- parts ----------------------------------------------------------------------------------

    def drawn(self, number: int) -> list[int]:
        """Places of the examples of a turn."""
        order = random_stream(self.seed, number).permutation(len(self.problem.dataset))
        return sorted(int(k) for k in order[: self.batch])

    def judge(self, config: Config, examples: Sequence[int]) -> CoreFeedback:
        """What comes of a configuration on examples to learn from."""
        return self._count(self.problem.judge(config, examples), len(examples))

    def validate(self, config: Config) -> float:
        """The score of a configuration on all of the validation; each is measured once."""
        key = json.dumps(config, sort_keys=True)
        if key not in self._validated:
            problem = self.validation or self.problem
            feedback = problem.judge(config, range(len(problem.dataset)))
            self._validated[key] = score_of(self._count(feedback, len(problem.dataset)))
        return self._validated[key]

    def proposals(self, config: Config, feedback: CoreFeedback, count: int) -> list[Candidate]:
        """Configurations that should be better than one whose feedback is given."""
        self.optimizer.improves = self.optimizer.observe(config, feedback)
        return self.optimizer.ask(count)

    def tell(self, candidate: Candidate, feedback: CoreFeedback) -> None:
        """What came of a proposal."""
        self.optimizer.tell([candidate.result(feedback)])

    def _count(self, feedback: CoreFeedback, examples: int) -> CoreFeedback:
        self.examples += examples
        for name, value in feedback.cost.items():
            self.cost[name] = self.cost.get(name, 0.0) + value
        return feedback


def score_of(feedback: CoreFeedback) -> float:
    """The score; minus infinity where there is none."""
    return feedback.objectives.get("score", -math.inf)
