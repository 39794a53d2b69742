"""A program, examples and a judge as a problem: what a study searches over and measures.

The space is that of the module's parameters that are not frozen. An evaluation runs the module on
all examples or a minibatch, and gives the mean score with what optimizers that read need: the
recorded programs of the worst examples, what was said of each, and what it cost.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sharpen.core.errors import ConfigError
from sharpen.core.feedback import Feedback as CoreFeedback
from sharpen.core.feedback import TextFeedback
from sharpen.core.problem import Fidelity, TrialContext
from sharpen.core.space import random_stream
from sharpen.text.errors import ExecutionError
from sharpen.text.feedback import Feedback, as_feedback
from sharpen.text.listing import elided, shown
from sharpen.text.module import Module
from sharpen.text.nodes import Node
from sharpen.text.optimizers.base import SCORE
from sharpen.text.optimizers.problem import program_of
from sharpen.text.optimizers.variables import space_of
from sharpen.text.record import ErrorNode
from sharpen.text.sweep import sweep
from sharpen.text.tape import Tape
from sharpen.text.textual import TextualPropagator
from sharpen.text.variation import crossover, neighbors

__all__ = ["Guide", "TextProblem"]

Guide = Callable[[Any, Any, Any], Any]
"""``guide(query, response, reference)`` gives a score, words, a pair of both, or Feedback."""

Metric = Callable[[Any, Any], float]
"""``metric(response, reference)`` gives a score; higher is better."""

_REFERENCE = 500  # characters of what was expected, in words for an optimizer


@dataclass(frozen=True, slots=True)
class _Judged:
    """One example that was run."""

    index: int
    output: Node | None
    feedback: Feedback


class TextProblem:
    """Find the parameters with which a program does best on examples.

    Args:
        module: the program; ``module(query)`` is run on each example, also where ``forward`` is a
            coroutine function.
        dataset: pairs of query and reference; None runs ``module()`` once.
        metric: the score of a response; None takes it from the guide, or, without one, takes the
            response as the score.
        guide: says more of a response, in words, for optimizers that read.
        minibatch: examples of a trial, drawn by its seed; None takes all.
        least: makes the number of examples a fidelity from ``least`` to all, which optimizers that
            choose it use; others measure on all.
        shown: the examples whose programs and feedback optimizers are shown, the worst first.
        on_error: the score of an example on which the program raised; None lets the trial fail.
        concurrency: examples at once. Trials of one process follow one another; give a study
            ``workers`` for trials at once, in processes.
        propagator: has a model write criticism of each parameter, which ``TextGrad`` uses.
        name: the problem's.

    Raises:
        ConfigError: no example, no parameter, or an option that makes no sense.

    Examples:
        >>> from sharpen.core.parameters import Float
        >>> from sharpen.text.parameter import Parameter
        >>> class Line(Module):
        ...     def __init__(self):
        ...         self.slope = Parameter(1.0, space=Float(0.0, 4.0))
        ...
        ...     def forward(self, x):
        ...         return self.slope * x
        >>> problem = TextProblem(Line(), [(1.0, 3.0), (2.0, 6.0)], lambda y, want: -abs(y - want))
        >>> problem.evaluate({"slope": 3.0}).objectives
        {'score': 0.0}
    """

    def __init__(
        self,
        module: Module,
        dataset: Sequence[tuple[Any, Any]] | None = None,
        metric: Metric | None = None,
        guide: Guide | None = None,
        *,
        minibatch: int | None = None,
        least: int | None = None,
        shown: int = 4,
        on_error: float | None = 0.0,
        concurrency: int = 1,
        propagator: TextualPropagator | None = None,
        name: str | None = None,
    ) -> None:
        self.module = module
        self.takes_query = dataset is not None
        self.dataset = [(None, None)] if dataset is None else [(q, r) for q, r in dataset]
        if not self.dataset:
            raise ConfigError("a TextProblem needs an example: dataset=[(query, reference), ...].")
        self.metric = metric
        self.guide = guide
        size = len(self.dataset)
        for option, value in (("minibatch", minibatch), ("least", least)):
            if value is not None and not 1 <= value <= size:
                raise ConfigError(f"{option}={value} must be from 1 to the {size} examples.")
        if shown < 0 or concurrency < 1:
            raise ConfigError("shown must be at least 0 and concurrency at least 1 (TextProblem).")
        if minibatch is not None and least is not None:
            raise ConfigError("give minibatch or least, not both (TextProblem).")
        self.minibatch = minibatch
        self.shown = shown
        self.on_error = on_error
        self.concurrency = concurrency
        self.propagator = propagator
        self.name = name or type(module).__name__.lower()
        self.objectives = (SCORE,)
        self.constraints = ()
        self.fidelity: Fidelity | None = None
        if least is not None and least < size:
            self.fidelity = Fidelity("examples", least, size, integer=True)
        named = {n: p for n, p in module.named_parameters().items() if not p.frozen}
        if not named:
            raise ConfigError(f"{module!r} has no parameter that may be changed.")
        self._names = {parameter.id: path for path, parameter in named.items()}
        self._parameters = list(named.values())
        self.space = space_of(named)
        self._lock = threading.Lock()

    def evaluate(
        self, config: Mapping[str, Any], trial: TrialContext | None = None
    ) -> CoreFeedback:
        """Run the program with these values; the module keeps its own.

        Returns:
            Feedback with the objective ``score``, texts for optimizers that read, and in ``info``
            ``per_example`` (scores), ``examples`` (their places in the data set), ``programs`` and
            ``criticism``; ``cost`` holds ``calls``, ``tokens``, and ``usd`` where it is known.
        """
        trial = trial or TrialContext()
        return self.judge(config, self.drawn(trial.seed, trial.fidelity))

    def drawn(self, seed: int, fidelity: float | None = None) -> list[int]:
        """Places of the examples of a trial, ascending."""
        size = len(self.dataset)
        if fidelity is not None:  # a larger sample holds the smaller ones
            order = random_stream(0, 0).permutation(size)
            return sorted(int(k) for k in order[: int(fidelity)])
        if self.minibatch is None:
            return list(range(size))
        return sorted(map(int, random_stream(seed, 0).permutation(size)[: self.minibatch]))

    def judge(self, values: Mapping[str, Any], examples: Sequence[int]) -> CoreFeedback:
        """:meth:`evaluate` on chosen examples, by their places in the data set."""
        with self._lock, self.module.holding(values):
            before = [client.usage for client in self.module.clients()]
            with Tape(retain=True):
                feedback = self._told(self._run(examples))
            after = [client.usage for client in self.module.clients()]
        cost = {
            "calls": float(sum(b.calls - a.calls for a, b in zip(before, after, strict=True))),
            "tokens": float(sum(b.tokens - a.tokens for a, b in zip(before, after, strict=True))),
        }
        spent = [
            None if a.cost is None or b.cost is None else b.cost - a.cost
            for a, b in zip(before, after, strict=True)
        ]
        if None not in spent:
            cost["usd"] = float(sum(one for one in spent if one is not None))
        return replace(feedback, cost=cost)

    # -- configurations -------------------------------------------------------------------------

    def sample(self, n: int = 1, *, seed: int = 0) -> list[dict[str, Any]]:
        """Random configurations: numbers and choices are drawn, words have their first values."""
        return self.space.sample(n, seed=seed)

    def neighbors(
        self, config: Mapping[str, Any], k: int = 1, *, phrases: Sequence[str] = (), seed: int = 0
    ) -> list[dict[str, Any]]:
        """Configurations with one variable changed; see :mod:`sharpen.text.variation`."""
        return neighbors(self.space, config, k, phrases=phrases, seed=seed)

    def crossover(
        self, first: Mapping[str, Any], second: Mapping[str, Any], *, seed: int = 0
    ) -> dict[str, Any]:
        """A configuration between two; see :mod:`sharpen.text.variation`."""
        return crossover(self.space, first, second, seed=seed)

    # -- running --------------------------------------------------------------------------------

    def _run(self, examples: Sequence[int]) -> list[_Judged]:
        if inspect.iscoroutinefunction(self.module.forward):
            return asyncio.run(self._run_async(examples))
        if self.concurrency == 1 or len(examples) == 1:
            return [self._one(index) for index in examples]
        with ThreadPoolExecutor(min(self.concurrency, len(examples))) as pool:
            tasks = [(copy_context(), index) for index in examples]
            return list(pool.map(lambda task: task[0].run(self._one, task[1]), tasks))

    async def _run_async(self, examples: Sequence[int]) -> list[_Judged]:
        gate = asyncio.Semaphore(self.concurrency)

        async def one(index: int) -> _Judged:
            async with gate:
                try:
                    output = await self._call(index)
                except ExecutionError as error:
                    return self._failed(index, error)
            return self._judge(index, output)

        return await asyncio.gather(*map(one, examples))

    def _call(self, index: int) -> Any:
        query, _ = self.dataset[index]
        return self.module(query) if self.takes_query else self.module()

    def _one(self, index: int) -> _Judged:
        try:
            output = self._call(index)
        except ExecutionError as error:
            return self._failed(index, error)
        return self._judge(index, output)

    def _failed(self, index: int, error: ExecutionError) -> _Judged:
        report = str(error.node._value)
        return _Judged(index, error.node, Feedback(score=self.on_error, error=report))

    def _judge(self, index: int, output: Any) -> _Judged:
        query, reference = self.dataset[index]
        node = output if isinstance(output, Node) else None
        response = node._value if node is not None else output
        said = Feedback()
        if self.guide is not None:
            said = _as_said(self.guide(query, response, reference))
        elif self.metric is not None and reference is not None:
            said = Feedback(text=f"Expected: {elided(shown(reference), _REFERENCE)}")
        score = said.score
        if self.metric is not None:
            score = self.metric(response, reference)
        elif self.guide is None:
            score = response
        if score is None:
            raise ConfigError(
                "the guide gave words without a score: give TextProblem a metric, or return"
                " (score, words)."
            )
        return _Judged(
            index, node, Feedback(score=score, text=said.text, objectives=said.objectives)
        )

    # -- what is told ---------------------------------------------------------------------------

    def _told(self, judged: Sequence[_Judged]) -> CoreFeedback:
        failed = [one for one in judged if one.feedback.score is None]
        scores = [one.feedback.score for one in judged if one.feedback.score is not None]
        worst = sorted(judged, key=lambda one: (_score(one), one.index))[: self.shown]
        told = [one for one in worst if one.output is not None]
        texts = [self._text(one, len(judged)) for one in told]
        info: dict[str, Any] = {
            "per_example": scores,
            "examples": [one.index for one in judged],
            "programs": [
                program_of(one.output, self._parameters, self._names)
                for one in told
                if one.output is not None
            ],
        }
        if self.propagator is not None:
            info["criticism"] = self._criticism(told)
        if failed:
            return CoreFeedback(
                status="failed", text=texts, error=failed[0].feedback.error, info=info
            )
        mean = float(np.mean(scores))
        if len(judged) > 1:
            texts.append(
                TextFeedback(body=f"Score: {mean:.6g}, the mean of {len(judged)} examples")
            )
        elif not texts:
            texts.append(TextFeedback(body=f"Score: {mean:.6g} (higher is better)"))
        std: dict[str, float] = {}
        size = len(self.dataset)
        if 1 < len(scores) < size:  # the mean of a sample without replacement
            left = (size - len(scores)) / max(size - 1, 1)
            std["score"] = float(np.std(scores, ddof=1) * np.sqrt(left / len(scores)))
        return CoreFeedback(objectives={"score": mean}, std=std, text=texts, info=info)

    def _text(self, one: _Judged, count: int) -> TextFeedback:
        said = one.feedback.render()
        body = f"ID [{one.index}]: {said}" if count > 1 else said
        kind = "error" if isinstance(one.output, ErrorNode) else "note"
        return TextFeedback(body=body, kind=kind, score=one.feedback.score)

    def _criticism(self, told: Sequence[_Judged]) -> dict[str, list[list[str]]]:
        assert self.propagator is not None
        pending = [(one.output, one.feedback) for one in told if one.output is not None]
        found: dict[str, list[list[str]]] = {name: [] for name in self._names.values()}
        for parameter, messages in sweep(pending, self.propagator):
            if parameter.id in self._names:
                merged = self.propagator.merge(parameter, messages)
                found[self._names[parameter.id]] = [[one.text, one.context] for one in merged]
        return found

    def __repr__(self) -> str:
        return f"TextProblem({self.module!r}, {len(self.dataset)} examples)"


def _score(one: _Judged) -> float:
    return -np.inf if one.feedback.score is None else one.feedback.score


def _as_said(given: Any) -> Feedback:
    """What a guide says, as feedback.

    Raises:
        ConfigError: nothing that could be feedback.
    """
    if isinstance(given, tuple):
        if len(given) != 2 or not isinstance(given[1], str | type(None)):
            raise ConfigError(f"a guide gives a score and words, got {given!r:.80}.")
        return Feedback(score=given[0], text=given[1])
    return as_feedback(given)
