"""DSPy's optimizers and ``Evaluate`` over the prompt search of :mod:`sharpen.text.prompts`.

``LabeledFewShot`` and ``BootstrapFewShot`` (Khattab et al., *DSPy: Compiling Declarative Language
Model Calls into Self-Improving Pipelines*, ICLR 2024) fill the exemplars of every prompt of a
program. Those that search, ``BootstrapFewShotWithRandomSearch``, ``MIPROv2`` and ``GEPA``, are
:func:`~sharpen.text.prompts.optimize.optimize_prompt` on a program of one prompt.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from typing import Any

from sharpen.core.errors import ConfigError
from sharpen.core.lm.errors import ReplyError
from sharpen.text.asking import as_lm
from sharpen.text.compat.dspy.predict import (
    TRACE,
    Example,
    Module,
    Predict,
    Prediction,
    configured,
    identity,
)
from sharpen.text.feedback import Feedback
from sharpen.text.prompts.mipro import trials_of
from sharpen.text.prompts.optimize import optimize_prompt
from sharpen.text.prompts.task import Example as _Example

__all__ = [
    "GEPA",
    "BootstrapFewShot",
    "BootstrapFewShotWithRandomSearch",
    "Evaluate",
    "EvaluationResult",
    "LabeledFewShot",
    "MIPROv2",
]

Metric = Callable[..., Any]
_AUTO = {"light": 6, "medium": 12, "heavy": 18}


def score_of(said: Any) -> Feedback:
    """What a metric said: a number, a truth value, or something with ``score`` and ``feedback``."""
    if isinstance(said, Feedback):
        return said
    if hasattr(said, "score"):
        return Feedback(score=float(said.score), text=str(getattr(said, "feedback", "") or ""))
    return Feedback(score=float(said))


@dataclass(frozen=True, slots=True)
class EvaluationResult:
    """How a program did."""

    score: float
    """Mean score, in per cent."""

    results: list[tuple[Example, Any, float]]
    """Each example with its prediction and score; where a reply could not be read, the error."""


class Evaluate:
    """Runs a program on examples.

    Args:
        devset: the examples.
        metric: called with example and prediction.
        num_threads: examples at once.
    """

    def __init__(
        self, *, devset: Sequence[Example], metric: Metric, num_threads: int = 8, **_: Any
    ) -> None:
        self.devset = list(devset)
        self.metric = metric
        self.num_threads = num_threads
        if not self.devset:
            raise ConfigError("there are no examples (Evaluate).")

    def __call__(self, program: Module) -> EvaluationResult:
        """Mean score in per cent, and all results in the order of the examples."""

        def one(example: Example) -> tuple[Example, Any, float]:
            try:
                predicted: Any = program(**example.inputs())
            except ReplyError as error:
                return example, error, 0.0
            return example, predicted, score_of(self.metric(example, predicted)).score or 0.0

        with ThreadPoolExecutor(self.num_threads) as pool:
            tasks = [(copy_context(), example) for example in self.devset]
            rows = list(pool.map(lambda task: task[0].run(one, task[1]), tasks))
        return EvaluationResult(100 * sum(score for _, _, score in rows) / len(rows), rows)


class LabeledFewShot:
    """Shows labelled examples, at random.

    Args:
        k: how many.
    """

    def __init__(self, k: int = 16) -> None:
        self.k = k

    def compile(self, student: Module, *, trainset: Sequence[Example], seed: int = 0) -> Any:
        """A copy of the program with exemplars."""
        made = student.deepcopy()
        for predictor in made.predictors():
            count = min(self.k, len(trainset))
            predictor.demos = random.Random(seed).sample(list(trainset), count)
        return made


class BootstrapFewShot:
    """Shows what a program itself wrote where it was right, then labelled examples.

    Args:
        metric: called with example, prediction and trace; without one every run is right.
        max_bootstrapped_demos: most exemplars of the program's own.
        max_labeled_demos: most exemplars in all.
        metric_threshold: least score that is right; without one any that is not 0.
    """

    def __init__(
        self,
        metric: Metric | None = None,
        max_bootstrapped_demos: int = 4,
        max_labeled_demos: int = 16,
        metric_threshold: float | None = None,
    ) -> None:
        self.metric = metric
        self.max_bootstrapped_demos = max_bootstrapped_demos
        self.max_labeled_demos = max_labeled_demos
        self.metric_threshold = metric_threshold

    def compile(
        self, student: Module, *, teacher: Module | None = None, trainset: Sequence[Example]
    ) -> Any:
        """A copy of the program with exemplars; examples are tried in their order."""
        made = student.deepcopy()
        source = made if teacher is None else teacher
        places = {id(own): k for k, own in enumerate(source.predictors())}
        if len(places) != len(made.predictors()):
            raise ConfigError("the teacher has other prompts than the student.")
        found: list[list[Any]] = [[] for _ in places]
        used: set[int] = set()
        for number, example in enumerate(trainset):
            if len(used) >= self.max_bootstrapped_demos:
                break
            token = TRACE.set([])
            try:
                predicted = source(**example.inputs())
                trace = TRACE.get() or []
            except ReplyError:
                continue
            finally:
                TRACE.reset(token)
            if self._is_right(example, predicted, trace):
                used.add(number)
                for own, inputs, outputs in trace:
                    found[places[id(own)]].append(own.exemplar({**inputs, **outputs}))
        left = [example for number, example in enumerate(trainset) if number not in used]
        for predictor, written in zip(made.predictors(), found, strict=True):
            labelled = left[: max(0, self.max_labeled_demos - len(written))]
            usable = [one for one in labelled if _is_labelled(predictor, one)]
            predictor.demos = [*written, *usable]
        return made

    def _is_right(self, example: Example, predicted: Any, trace: Any) -> bool:
        if self.metric is None:
            return True
        score = score_of(self.metric(example, predicted, trace)).score or 0.0
        return score >= self.metric_threshold if self.metric_threshold is not None else score > 0


def _is_labelled(predictor: Predict, example: Example) -> bool:
    """Whether an example has the inputs and an output of a prompt."""
    signature = predictor.signature
    has_inputs = all(name in example for name in signature.input_fields)
    return has_inputs and any(name in example for name in signature.output_fields)


class _Searching:
    """Base of those that search on a program of one prompt.

    Args:
        metric: called with example and prediction; a number, or ``Prediction(score=, feedback=)``.
        task_model: the model of the program; its own, or that of ``configure``, without one.
        prompt_model: the model that writes instructions; ``task_model`` without one.
        num_threads: examples at once.
        seed: of all randomness.
    """

    def __init__(
        self,
        metric: Metric,
        *,
        task_model: Any = None,
        prompt_model: Any = None,
        num_threads: int = 8,
        seed: int = 0,
    ) -> None:
        self.metric = metric
        self.task_model = task_model
        self.prompt_model = prompt_model
        self.num_threads = num_threads
        self.seed = seed

    def _compile(
        self,
        student: Module,
        trainset: Sequence[Example],
        valset: Sequence[Example] | None,
        **search: Any,
    ) -> Any:
        made = student.deepcopy()
        predictors = made.predictors()
        if len(predictors) != 1:
            raise ConfigError(
                f"{type(self).__name__} searches on a program of one prompt; this has"
                f" {len(predictors)}. Use BootstrapFewShot, or make it a program of"
                " sharpen.text with a Parameter for each instruction and OptoPrime."
            )
        (predictor,) = predictors
        lm = self.task_model or predictor.lm or configured()
        if lm is None:
            raise ConfigError("there is no model: configure(lm=...), or task_model=...")
        signature = predictor.signature

        def judged(predicted: Any, example: _Example) -> Feedback:
            return score_of(self.metric(example.meta["example"], Prediction(**predicted)))

        def examples(given: Sequence[Example]) -> list[_Example]:
            rows = [(dict(one.inputs()), one) for one in given]
            return [
                _Example(inputs, signature.render(one), identity(inputs), {"example": one})
                for inputs, one in rows
            ]

        train = examples(trainset)
        result = optimize_prompt(
            signature.program(),
            signature.instructions,
            train if valset is None else examples(valset),
            judged,
            lm=as_lm(lm),
            train=train,
            test=[],
            proposer=self.prompt_model,
            seed=self.seed,
            concurrency=self.num_threads,
            **{**search, **predictor.sampling},
        )
        predictor.take(result.candidate)
        made.result = result
        return made


class BootstrapFewShotWithRandomSearch(_Searching):
    """The best of sets of exemplars at random, of the program's own right replies and labels.

    Args:
        metric: see :class:`_Searching`.
        max_bootstrapped_demos: exemplars in a set.
        num_candidate_programs: how many sets.
        options: those of :class:`_Searching`.
    """

    def __init__(
        self,
        metric: Metric,
        max_bootstrapped_demos: int = 4,
        num_candidate_programs: int = 16,
        **options: Any,
    ) -> None:
        super().__init__(metric, **options)
        self.k = max_bootstrapped_demos
        self.candidates = num_candidate_programs

    def compile(
        self,
        student: Module,
        *,
        trainset: Sequence[Example],
        valset: Sequence[Example] | None = None,
    ) -> Any:
        """A copy of the program with the best set; ``result`` says how it was found."""
        budget = self.candidates + 1
        return self._compile(
            student, trainset, valset, io="none", eo="random_search", budget=budget, k=self.k
        )


class MIPROv2(_Searching):
    """Instructions and sets of exemplars proposed, then TPE over their combinations.

    Args:
        metric: see :class:`_Searching`.
        auto: ``light``, ``medium`` or ``heavy``, which says how many trials are made.
        max_bootstrapped_demos: exemplars in a set; 0 searches for the instruction alone.
        options: those of :class:`_Searching`.
    """

    def __init__(
        self,
        metric: Metric,
        auto: str | None = "light",
        max_bootstrapped_demos: int = 4,
        **options: Any,
    ) -> None:
        super().__init__(metric, **options)
        if auto is not None and auto not in _AUTO:
            raise ConfigError(f"auto must be light, medium, heavy or None, got {auto!r}.")
        self.auto = auto
        self.k = max_bootstrapped_demos

    def compile(
        self,
        student: Module,
        *,
        trainset: Sequence[Example],
        valset: Sequence[Example] | None = None,
        num_trials: int | None = None,
    ) -> Any:
        """A copy of the program with the best prompt; ``result`` says how it was found."""
        if num_trials is None:
            if self.auto is None:
                raise ConfigError("give num_trials, or auto.")
            num_trials = trials_of(_AUTO[self.auto], 2 if self.k else 1)
        budget = num_trials + 1
        return self._compile(
            student, trainset, valset, io="mipro", eo="none", budget=budget, k=self.k
        )


class GEPA(_Searching):
    """Reflective evolution of the instruction; the metric's feedback is what it reflects on.

    Args:
        metric: called with example and prediction; may give ``Prediction(score=, feedback=)``.
        max_full_evals: the budget, in evaluations on all validation examples.
        reflection_lm: the model that writes instructions.
        options: those of :class:`_Searching`.
    """

    def __init__(
        self, metric: Metric, max_full_evals: int = 10, reflection_lm: Any = None, **options: Any
    ) -> None:
        super().__init__(metric, prompt_model=reflection_lm, **options)
        self.budget = max_full_evals

    def compile(
        self,
        student: Module,
        *,
        trainset: Sequence[Example],
        valset: Sequence[Example] | None = None,
    ) -> Any:
        """A copy of the program with the best prompt; ``result`` says how it was found."""
        return self._compile(student, trainset, valset, io="gepa", eo="none", budget=self.budget)
