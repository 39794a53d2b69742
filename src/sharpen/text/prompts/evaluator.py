"""Candidates on examples: replies, predictions, scores, each example at most once per prompt.

Calls run at once; results are in the order of the examples. A reply that holds no prediction scores
0 and is counted; so does a request that the model refuses, such as a prompt that is too long.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from sharpen.core.errors import ConfigError
from sharpen.core.lm.client import LM
from sharpen.core.lm.errors import RequestError
from sharpen.text.prompts.exemplars import Nearest
from sharpen.text.prompts.label_scores import TOP, best_label, label_scores, mean_scores
from sharpen.text.prompts.metrics import Metric, judge
from sharpen.text.prompts.task import Candidate, Example, Exemplar, PromptProgram

__all__ = ["Evaluation", "Evaluator", "Outcome"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One example under one prompt."""

    example: Example
    reply: str
    prediction: Any
    """None where the reply holds none."""

    score: float
    feedback: str = ""
    """What the metric said."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A prompt on some examples."""

    candidate: Candidate
    outcomes: Sequence[Outcome] = field(repr=False)

    @property
    def scores(self) -> list[float]:
        """One for each example, in order."""
        return [outcome.score for outcome in self.outcomes]

    @property
    def score(self) -> float:
        """Their mean."""
        return sum(self.scores) / len(self.scores)

    @property
    def unparsed(self) -> int:
        """Replies that hold no prediction."""
        return sum(outcome.prediction is None for outcome in self.outcomes)


@dataclass(frozen=True, slots=True)
class _Reply:
    """What the model gave for one example under one prompt."""

    text: str
    scores: Mapping[str, float] | None = None
    refused: str = ""


class Evaluator:
    """Runs candidates of a program.

    Args:
        program: makes prompts and predictions.
        lm: the model; its cache and budget are its own.
        metric: judges predictions.
        batch: examples that scores of labels are calibrated on, once all of them were asked under
            a prompt; before that, those that are judged together.
        prior: scores of labels to subtract, instead of those of a batch.
        concurrency: calls at once.
        sampling: parameters of the requests.

    Attributes:
        evaluated: examples judged so far, each once per prompt.
    """

    def __init__(
        self,
        program: PromptProgram,
        lm: LM,
        metric: Metric,
        *,
        batch: Sequence[Example] = (),
        prior: Mapping[str, float] | None = None,
        concurrency: int = 8,
        **sampling: Any,
    ) -> None:
        if concurrency < 1:
            raise ConfigError(f"concurrency={concurrency} must be at least 1 (Evaluator).")
        if program.decision != "reply":
            if "logprobs" not in lm.capabilities:
                raise ConfigError(
                    f"decision={program.decision!r} needs a model that tells probabilities, and"
                    f" '{lm.model}' does not. Use decision: reply."
                )
            sampling |= {"max_tokens": 1, "logprobs": TOP, "temperature": 0.0}
        self.program = program
        self.lm = lm
        self.metric = metric
        self.batch = list(batch)
        self._fixed = prior
        self.concurrency = concurrency
        self.sampling = sampling
        self.evaluated = 0
        self._known: dict[tuple[str, str], _Reply] = {}
        self._nearest: dict[str, Nearest] = {}
        self._lock = threading.Lock()

    def missing(self, candidate: Candidate, examples: Sequence[Example]) -> int:
        """How many of the examples were not judged under the candidate yet."""
        return sum((candidate.key, example.id) not in self._known for example in examples)

    def __call__(self, candidate: Candidate, examples: Sequence[Example]) -> Evaluation:
        """The candidate on the examples; each that was asked before is not asked again.

        Raises:
            BudgetExhausted: the model's budget is used up; what was asked is kept.
            ServiceError: the model does not answer.
        """
        key = candidate.key
        new = [example for example in examples if (key, example.id) not in self._known]
        if self.concurrency == 1:
            for example in new:
                self._known[key, example.id] = self._ask(candidate, example)
                self.evaluated += 1
        elif new:
            with ThreadPoolExecutor(min(self.concurrency, len(new))) as pool:
                futures = [pool.submit(self._ask, candidate, example) for example in new]
                failed: Exception | None = None
                for example, future in zip(new, futures, strict=True):
                    try:
                        self._known[key, example.id] = future.result()
                        self.evaluated += 1
                    except Exception as error:  # of those cancelled after the first one too
                        failed = failed or error
                        for other in futures:
                            other.cancel()
                if failed is not None:
                    raise failed
        prior = self._prior(key, examples)
        return Evaluation(candidate, [self._outcome(key, one, prior) for one in examples])

    def shown_to(self, candidate: Candidate, example: Example) -> list[Exemplar]:
        """The exemplars that an example sees: never its own, and the nearest last."""
        others = [one for one in candidate.exemplars if one.id != example.id]
        if not candidate.nearest:
            return others
        with self._lock:
            if candidate.key not in self._nearest:
                self._nearest[candidate.key] = Nearest(candidate.exemplars)
            index = self._nearest[candidate.key]
        return index.find(example, candidate.nearest)

    def prior(self, candidate: Candidate) -> dict[str, float]:
        """Mean score of each label under a prompt that was judged on the whole batch."""
        return self._prior(candidate.key, self.batch)

    def _prior(self, key: str, examples: Sequence[Example]) -> dict[str, float]:
        if self.program.decision != "calibrated":
            return {}
        if self._fixed is not None:
            return dict(self._fixed)
        whole = self.batch and all((key, one.id) in self._known for one in self.batch)
        replies = [self._known[key, one.id] for one in (self.batch if whole else examples)]
        scored = [reply.scores for reply in replies if reply.scores is not None]
        return mean_scores(scored) if scored else {}

    def _ask(self, candidate: Candidate, example: Example) -> _Reply:
        shown = self.shown_to(candidate, example)
        messages = self.program.messages(candidate, example.input, shown)
        try:
            response = self.lm.chat(messages, **self.sampling)
        except RequestError as error:
            return _Reply("", refused=str(error))
        if self.program.decision == "reply":
            return _Reply(response.text)
        scores = label_scores(response, self.program.labels)
        refused = "" if scores else "the reply ended before its first token"
        return _Reply(response.text, refused=refused, scores=scores)

    def _outcome(self, key: str, example: Example, prior: Mapping[str, float]) -> Outcome:
        reply = self._known[key, example.id]
        prediction, feedback, score = None, reply.refused, 0.0
        if reply.scores is not None:
            prediction = best_label(reply.scores, prior)
        elif not reply.refused:
            prediction = self.program.parser(reply.text)
            feedback = "no answer could be read out of the reply"
        if prediction is not None:
            judged = judge(self.metric, prediction, example)
            assert judged.score is not None
            score, feedback = judged.score, judged.text or ""
        text = reply.text if reply.scores is None else str(prediction)
        return Outcome(
            example=example, reply=text, prediction=prediction, score=score, feedback=feedback
        )
