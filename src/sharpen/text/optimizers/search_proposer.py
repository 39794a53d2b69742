"""Improves programs by search, without a language model.

It stands where the optimizers that read stand, and uses the score of the feedback, and of an error
the line it names. Parameters fall into blocks: all numbers and choices together, each text, each
piece of code. A step changes one block of the best values so far:

- numbers and choices by an optimizer of :mod:`sharpen.search`, by name;
- text by an edit (:mod:`sharpen.text.edits`), chosen by Thompson sampling of how often each helped;
- code by a mutation (:mod:`sharpen.text.mutations`) not tried before, first those of the line that
  raised, then by family; mutants of the best code, of the best before it and so on in turn, since a
  change that helps a little may lead away from the one that is needed.

Which block is changed is chosen by Thompson sampling too (Thompson, 1933): each has a Beta
distribution of the chance that a step improves the score.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

import numpy as np

from sharpen.core.errors import ConfigError, DataError
from sharpen.core.feedback import Trial
from sharpen.core.optimizer import Optimizer, make_optimizer
from sharpen.core.parameters import Bool
from sharpen.core.parameters import Parameter as SpaceParameter
from sharpen.core.problem import Objective, as_feedback
from sharpen.core.space import Space, random_stream
from sharpen.text.edits import EDITS, edited
from sharpen.text.feedback import Feedback
from sharpen.text.mutations import Mutant, mutants
from sharpen.text.nodes import Node
from sharpen.text.optimizers.base import Suggestion, TextOptimizer
from sharpen.text.parameter import Parameter

__all__ = ["SearchProposer"]

_MARKED = re.compile(r"^> *(\d+) ", re.MULTILINE)
_SCORE = Objective("score", "max")
_TRIES = 50
_FEW = 5


class SearchProposer(TextOptimizer):
    """Proposes values by search; every output needs feedback with a score, or an error.

    Args:
        parameters: what to change; numbers and choices need a ``space``, or are truth values.
        phrases: sentences that may be put into texts.
        method: the optimizer of numbers and choices, such as ``cmaes``, ``tpe``, ``gp``;
            ``auto`` takes Nelder and Mead's simplex for five real numbers or fewer, CMA-ES for
            other numbers, and TPE where there are choices.
        seed: of all its randomness.

    Raises:
        ConfigError: a number without a space, or an unknown method.
    """

    def __init__(
        self,
        parameters: Sequence[Parameter],
        lm: Any = None,
        *,
        phrases: Sequence[str] = (),
        method: str = "auto",
        seed: int = 0,
    ) -> None:
        super().__init__(parameters)
        self.phrases = tuple(phrases)
        self.seed = seed
        self.best_score = -np.inf
        self.best: dict[str, Any] = {}
        self._parents: dict[str, list[tuple[str, int | None]]] = {
            self.names[p.id]: [] for p in self.parameters if p.kind == "code"
        }
        self._turn = -1
        self._tried: set[str] = set()
        self._last: tuple[str, str, Any] | None = None
        self._odds: dict[str, list[int]] = {}
        spaces = {
            self.names[p.id]: _space_of(p, self.names[p.id])
            for p in self.parameters
            if p.kind not in ("text", "code")
        }
        self._numbers: Optimizer | None = None
        if spaces:
            if method == "auto":
                kinds = {p.kind for p in self.parameters if self.names[p.id] in spaces}
                method = "tpe" if kinds - {"int", "float"} else "cmaes"
                if kinds == {"float"} and len(spaces) <= _FEW:
                    method = "nelder-mead"
            self._numbers = make_optimizer(method, Space(spaces), [_SCORE], seed=seed)
        self.blocks = (["numbers"] if spaces else []) + [
            self.names[p.id] for p in self.parameters if p.kind in ("text", "code")
        ]

    def propose(self, pending: Sequence[tuple[Node, Feedback]]) -> Suggestion:
        """New values from the scores of the last ones."""
        values = {self.names[p.id]: p._value for p in self.parameters}
        score, line = _judged(pending)
        self._learn(values, score, line)
        rng = random_stream(self.seed, self.steps)
        open_blocks = list(self.blocks)
        while open_blocks:
            block = self._choose(open_blocks, rng)
            changed = self._changed(block, rng)
            if changed is not None:
                self._tried.add(_digest({**self.best, **changed}))
                return Suggestion(
                    values={**self.best, **changed},
                    reasoning=f"changes {block}; the best score so far is {self.best_score:.6g}",
                )
            open_blocks.remove(block)
        return Suggestion(values=self.best, terminated=True, reasoning="nothing is left to try")

    def restore_best(self) -> None:
        """Set the best values that were judged."""
        for parameter in self.parameters:
            if self.best:
                parameter.value = self.best[self.names[parameter.id]]

    def _learn(self, values: dict[str, Any], score: float, line: int | None) -> None:
        improved = score > self.best_score
        if self._last is not None:
            block, edit, candidate = self._last
            for key in (block, edit):
                odds = self._odds.setdefault(key, [1, 1])
                odds[0 if improved else 1] += 1
            if block == "numbers" and self._numbers is not None:
                self._numbers.tell([candidate.result(_outcome(score))])
        elif self._numbers is not None:
            config = {name: values[name] for name in self._numbers.space}
            feedback = as_feedback(_outcome(score), [_SCORE], [])
            first = Trial(number=-1, config=config, state=feedback.status, feedback=feedback)
            self._numbers.tell([first])
        if improved or not self.best:
            self.best_score, self.best = score, dict(values)
            for name in self._parents:
                if not self._parents[name] or self._parents[name][-1][0] != values[name]:
                    self._parents[name].append((values[name], line))
        self._tried.add(_digest(values))
        self._last = None

    def _choose(self, blocks: Sequence[str], rng: np.random.Generator) -> str:
        draws = {block: rng.beta(*self._odds.get(block, (1, 1))) for block in blocks}
        return max(draws, key=lambda block: draws[block])

    def _changed(self, block: str, rng: np.random.Generator) -> dict[str, Any] | None:
        if block == "numbers":
            assert self._numbers is not None
            (candidate,) = self._numbers.ask()
            self._last = (block, "numbers", candidate)
            return dict(candidate.config)
        kind = next(p.kind for p in self.parameters if self.names[p.id] == block)
        if self.find(block).frozen:
            return None
        return self._edited(block, rng) if kind == "text" else self._mutated(block)

    def _edited(self, block: str, rng: np.random.Generator) -> dict[str, Any] | None:
        for _ in range(_TRIES):
            edit = self._choose(list(EDITS), rng)
            text = edited(self.best[block], edit, self.phrases, rng)
            if text is not None and self._is_new({block: text}):
                self._last = (block, edit, None)
                return {block: text}
        return None

    def _mutated(self, block: str) -> dict[str, Any] | None:
        """A mutant of the best code, of the code before it, ... in turn, not tried before."""
        parents = self._parents[block]
        for _ in range(len(parents)):
            self._turn += 1
            source, line = parents[-1 - self._turn % len(parents)]
            for mutant in _nearest_first(source, line):
                if self._is_new({block: mutant.source}):
                    self._last = (block, mutant.kind, None)
                    return {block: mutant.source}
        return None

    def _is_new(self, changed: Mapping[str, Any]) -> bool:
        if _digest({**self.best, **changed}) in self._tried:
            return False
        try:
            for name, value in changed.items():
                self.find(name).validated(value)
        except ConfigError:
            return False
        return True


def _space_of(parameter: Parameter, name: str) -> SpaceParameter:
    if parameter.space is not None:
        return parameter.space
    if parameter.kind == "bool":
        return Bool()
    raise ConfigError(
        f"search needs the space of parameter '{name}': Parameter({parameter._value!r}, '{name}',"
        " space=Float(low, high)), or Int, Categorical ..."
    )


def _nearest_first(source: str, line: int | None) -> list[Mutant]:
    """Mutants, those near the line that raised first; none of what is no Python."""
    try:
        found = mutants(source)
    except DataError:
        return []
    return found if line is None else sorted(found, key=lambda mutant: abs(mutant.line - line))


def _judged(pending: Sequence[tuple[Node, Feedback]]) -> tuple[float, int | None]:
    """The mean score, and the line that an error names."""
    scores, line = [], None
    for output, feedback in pending:
        words = f"{feedback.text or ''}\n{feedback.error or ''}\n{output._value}"
        marked = _MARKED.search(words) if isinstance(output._value, str) else None
        line = int(marked[1]) if marked and line is None else line
        if feedback.score is not None:
            scores.append(feedback.score)
        elif feedback.error is not None or marked is not None:
            scores.append(-np.inf)
        else:
            raise ConfigError(
                "search needs a score: output.backward(0.5), or Feedback(score=..., text=...)."
            )
    return float(np.mean(scores)), line


def _outcome(score: float) -> Any:
    return {"score": score}


def _digest(values: Mapping[str, Any]) -> str:
    return sha256(repr(sorted(values.items())).encode("utf-8", "surrogatepass")).hexdigest()
