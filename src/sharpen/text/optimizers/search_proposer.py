"""Improves programs by search, without a language model.

It stands where the optimizers that read stand, and uses the score of the feedback, and of an error
the line it names. Variables fall into blocks: all numbers and choices together, each text, each
piece of code. A proposal changes one block of the best values so far:

- numbers and choices by an optimizer of :mod:`sharpen.search`, by name; where there are choices or
  words too, in turn with combinations not tried yet and steps of real numbers. Each combination
  of choices, texts and code has its own best numbers and its own size of steps, a (1+1) evolution
  strategy with the rule of a fifth (Rechenberg, 1973): one that just came may be the right one
  with numbers that do not fit it. Combinations are taken by rank, the best most often; of equals
  the newest; those whose steps have become small without being the best no more;
- text by an edit (:mod:`sharpen.text.edits`), chosen by Thompson sampling of how often each helped;
- code by a mutation (:mod:`sharpen.text.mutations`) not tried before, first those of the line that
  raised, then by family; mutants of the best code, of the best before it and so on in turn, since a
  change that helps a little may lead away from the one that is needed.

Which block is changed is chosen by Thompson sampling too (Thompson, 1933): each has a Beta
distribution of the chance that a step improves the score. All of this is derived from the history,
where a trial's origin says what was changed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from typing import Any, ClassVar

import numpy as np

from sharpen.core.errors import ConfigError, DataError
from sharpen.core.feedback import Feedback as CoreFeedback
from sharpen.core.feedback import Trial
from sharpen.core.neighbors import moved
from sharpen.core.optimizer import Optimizer, Proposal, make_optimizer
from sharpen.core.parameters import Float, Int
from sharpen.core.problem import Constraint, Objective, as_feedback
from sharpen.core.space import Space, random_stream
from sharpen.core.text_parameter import Text
from sharpen.text.edits import EDITS, edited
from sharpen.text.module import Module
from sharpen.text.mutations import Mutant, mutants
from sharpen.text.optimizers.base import (
    GIVEN,
    SCORE,
    Pending,
    Suggestion,
    TextOptimizer,
    evidence_of,
    said_of,
)
from sharpen.text.parameter import Parameter

__all__ = ["SearchProposer"]

_MARKED = re.compile(r"^> *(\d+) ", re.MULTILINE)
_NUMBERS = "numbers"
_NEAR, _OTHER = "near", "other"
_TURNS, _NEIGHBORS = 4, 12
# Sizes of steps, as a part of the range: at first, at most; those of what is given up; what a step
# that helped and one that did not make of it, so that one in about four and a half must help.
_FIRST, _WIDEST, _SMALL, _GROW, _SHRINK = 0.3, 0.5, 0.01, 1.8, 0.85
_RANK = 0.3  # the chance that the best combination is taken, then the next, ...
_TRIES = 50
_FEW = 5


@dataclass(slots=True)
class _Elite:
    """The best of one combination of what is no real number."""

    config: dict[str, Any] = field(default_factory=dict)
    score: float = -np.inf
    number: int = -1
    step: float = _FIRST
    """Standard deviation of the next step, as a part of the range."""


class SearchProposer(TextOptimizer):
    """Proposes values by search; every output needs feedback with a score, or an error.

    Args:
        parameters: what to change: a module, parameters, or a space; numbers need a range.
        objectives: the score.
        constraints: none.
        lm: not used; it stands here so that optimizers can be exchanged.
        phrases: sentences that may be put into texts.
        method: the optimizer of numbers and choices, such as ``cmaes``, ``tpe``, ``gp``;
            ``auto`` takes Nelder and Mead's simplex for five real numbers or fewer, CMA-ES for
            other numbers, and TPE in turn with steps where there are choices, texts or code.
        seed: of all its randomness.

    Raises:
        ConfigError: a number without a range, or an unknown method.
    """

    name: ClassVar[str] = "search-proposer"

    def __init__(
        self,
        parameters: Module | Sequence[Parameter] | Space,
        objectives: Sequence[Objective] = (SCORE,),
        constraints: Sequence[Constraint] = (),
        *,
        lm: Any = None,
        phrases: Sequence[str] = (),
        method: str = "auto",
        seed: int = 0,
    ) -> None:
        super().__init__(parameters, objectives, constraints, seed=seed, start="best")
        self.phrases = tuple(phrases)
        self.method = method
        words = [name for name, p in self.space.items() if isinstance(p, Text)]
        for name in words:
            if self.variables[name].kind not in ("text", "code"):
                value = self.space[name].default_value()
                raise ConfigError(
                    f"search needs the space of parameter '{name}': Parameter({value!r}, '{name}',"
                    " space=Float(low, high)), or Int, Categorical ..."
                )
        numbers = [name for name in self.space if name not in words]
        self._numbers_space = self.space.subspace(numbers) if numbers else None
        if self._numbers_space is not None and method == "auto":
            self.method = "tpe" if words else _method(self._numbers_space)
        self._steps = method == "auto" and self.method == "tpe"
        self._real = {name for name, p in self.space.items() if isinstance(p, Float)}
        self.blocks = ([_NUMBERS] if numbers else []) + words
        self.restart()

    # -- what is derived from the history -------------------------------------------------------

    def restart(self) -> None:
        """Forget what was derived; it is derived anew."""
        self._folded: list[int] = []
        self._best_score = -np.inf
        self._best: dict[str, Any] = {}
        self._elites: dict[str, _Elite] = {}
        self._odds: dict[str, list[int]] = {}
        self._tried: set[str] = set()
        self._places: dict[int, int] = {}
        self._parents: list[tuple[dict[str, Any], int | None]] = []
        self._numbers: Optimizer | None = None
        if self._numbers_space is not None:
            self._numbers = make_optimizer(
                self.method, self._numbers_space, self.objectives, seed=self.seed
            )

    @property
    def best_score(self) -> float:
        """Of what was told; minus infinity where nothing had a score."""
        self._fold()
        return self._best_score

    @property
    def best(self) -> dict[str, Any]:
        """The values of that score; empty where nothing was told."""
        self._fold()
        return dict(self._best)

    def _fold(self) -> None:
        """Learn of the trials that were told since, in order of their numbers."""
        order = sorted(self.history)
        if order[: len(self._folded)] != self._folded:
            self.restart()
        for number, trial in sorted({**self.history, **self.pending}.items()):
            if number not in self._places and trial.origin == f"{self.name}/{_NUMBERS}":
                self._places[number] = len(self._places)
                if trial.feedback is None:
                    self._tell_numbers(trial, None)
        for number in order[len(self._folded) :]:
            self._learn(self.history[number])
            self._folded.append(number)

    def _learn(self, trial: Trial) -> None:
        score, line = self._judged(trial)
        improved = score > self._best_score
        block = _block(trial)
        if block:
            for key in {block, trial.origin.removeprefix(f"{self.name}/")}:
                odds = self._odds.setdefault(key, [1, 1])
                odds[0 if improved else 1] += 1
        if block in (_NUMBERS, ""):
            self._tell_numbers(trial, score)
        elite = self._elites.setdefault(self._combination(trial.config), _Elite())
        if trial.origin.endswith(f"/{_NUMBERS}/{_NEAR}") and score != elite.score:
            elite.step = min(elite.step * (_GROW if score > elite.score else _SHRINK), _WIDEST)
        if score >= elite.score:
            elite.score, elite.number, elite.config = score, trial.number, dict(trial.config)
        if improved or not self._best:
            self._best_score, self._best = score, dict(trial.config)
            self._parents.append((self._best, line))
        self._tried.add(_digest(trial.config))

    def _tell_numbers(self, trial: Trial, score: float | None) -> None:
        """Tell the optimizer of numbers, which counts its own trials alone."""
        if self._numbers is None or self._numbers_space is None:
            return
        config = {name: v for name, v in trial.config.items() if name in self._numbers_space}
        number = self._places.get(trial.number, -1 - abs(trial.number))
        told = Trial(number=number, config=config, origin=self._numbers.name)
        if score is not None:
            (objective,) = self.objectives
            value = objective.loss(-score)
            feedback = as_feedback({objective.name: value}, self.objectives, ())
            told = Trial(number=number, config=config, state=feedback.status, feedback=feedback)
        self._numbers.tell([told])

    def _judged(self, trial: Trial) -> tuple[float, int | None]:
        """The score, higher is better, and the line that an error names."""
        (objective,) = self.objectives
        score = -np.inf
        if trial.is_ok:
            score = -objective.loss(trial.values[objective.name])
        words = said_of(trial)
        info = trial.feedback.info if trial.feedback is not None else {}
        for program in info.get("programs", ()):
            words = [*words, *(text for _, _, text in program["outputs"])]
        marked = next((found for found in map(_MARKED.search, words) if found), None)
        return float(score), int(marked[1]) if marked else None

    def abandon(self, numbers: Iterable[int]) -> None:
        """Forget pending candidates whose worker died."""
        numbers = list(numbers)
        super().abandon(numbers)
        if self._numbers is not None:
            self._numbers.abandon(self._places[k] for k in numbers if k in self._places)

    # -- proposing ------------------------------------------------------------------------------

    def propose(self, number: int) -> Proposal:
        """The first values, unless there are numbers alone, and then what search proposes."""
        if not self._words() and not self.history:
            suggestion = self.suggest(number, Trial(number=number, config={}))
            config = self.space.active({**self.space.default(), **suggestion.values})
            return Proposal(config=config, origin=suggestion.origin)
        return super().propose(number)

    def suggest(self, number: int, base: Trial) -> Suggestion:
        """One block of the best values changed."""
        self._fold()
        best = self._best or self.space.default()
        if self.improves is not None:
            best = base.config
        rng = random_stream(self.seed, number)
        open_blocks = [block for block in self.blocks if block not in self.frozen()]
        tried = self._tried | {_digest(trial.config) for trial in self.pending.values()}
        while open_blocks:
            block = self._choose(open_blocks, rng)
            edit, changed = self._changed(block, number, best, tried, rng)
            if changed is not None:
                words = self._words()
                kept = {k: v for k, v in best.items() if block in words or k in words}
                frozen = self.frozen()
                values = {k: v for k, v in {**kept, **changed}.items() if k not in frozen}
                return Suggestion(
                    values=values,
                    reasoning=f"changes {block}; the best score so far is {self._best_score:.6g}",
                    origin=f"{self.name}/{block}/{edit}" if edit else f"{self.name}/{block}",
                )
            open_blocks.remove(block)
        return Suggestion(
            values=best, terminated=True, reasoning="nothing is left to try", origin=GIVEN
        )

    def _words(self) -> list[str]:
        return [block for block in self.blocks if block != _NUMBERS]

    def _choose(self, names: Sequence[str], rng: np.random.Generator, prefix: str = "") -> str:
        draws = {name: rng.beta(*self._odds.get(prefix + name, (1, 1))) for name in names}
        return max(draws, key=lambda name: draws[name])

    def _changed(
        self,
        block: str,
        number: int,
        best: Mapping[str, Any],
        tried: set[str],
        rng: np.random.Generator,
    ) -> tuple[str, dict[str, Any] | None]:
        """The edit, and the values that it gives; None where nothing is left."""
        if block == _NUMBERS:
            return self._numbered(number, best, rng)
        if self.variables[block].kind == "code":
            return self._mutated(block, best, tried)
        for _ in range(_TRIES):
            edit = self._choose(list(EDITS), rng, f"{block}/")
            text = edited(best[block], edit, self.phrases, rng)
            if text is not None and self._is_new(block, text, best, tried):
                return edit, {block: text}
        return "", None

    def _numbered(
        self, number: int, best: Mapping[str, Any], rng: np.random.Generator
    ) -> tuple[str, dict[str, Any] | None]:
        """Numbers and choices of their optimizer, or a step away; with the words of an elite."""
        assert self._numbers is not None
        assert self._numbers_space is not None
        elite = self._elite(best, rng)
        words = {name: elite.config[name] for name in self._words()}
        known = (*self.history.values(), *self.pending.values())
        turn = sum(_block(trial) == _NUMBERS for trial in known) % _TURNS
        if self._steps and turn:
            config = {k: v for k, v in elite.config.items() if k in self._numbers_space}
            if turn == 1:
                other = self._combined(config, words, rng)
                if other is not None:
                    return _OTHER, {**words, **other}
            near = _step(self._numbers_space, config, elite.step, rng)
            if near is not None:
                return _NEAR, {**words, **near}
        place = self._places.setdefault(number, len(self._places))
        (candidate,) = self._numbers.ask(number=place)
        return "", {**words, **candidate.config}

    def _combination(self, config: Mapping[str, Any]) -> str:
        """All that is no real number."""
        return _digest({k: v for k, v in config.items() if k not in self._real})

    def _combined(
        self, config: dict[str, Any], words: dict[str, Any], rng: np.random.Generator
    ) -> dict[str, Any] | None:
        """One choice or whole number changed, to a combination that was not tried."""
        assert self._numbers_space is not None
        near = self._numbers_space.neighbors(config, _NEIGHBORS, seed=int(rng.integers(2**31)))
        fresh = (one for one in near if self._combination({**words, **one}) not in self._elites)
        return next(fresh, None)

    def _elite(self, best: Mapping[str, Any], rng: np.random.Generator) -> _Elite:
        """The best values of a combination, or those that are given where they must be kept."""
        if not self._elites or self.improves is not None:
            return _Elite(config=dict(best))
        ranked: list[_Elite] = []
        for elite in sorted(self._elites.values(), key=lambda e: (e.score, e.number), reverse=True):
            if not ranked or (elite.score < ranked[-1].score and elite.step > _SMALL):
                ranked.append(elite)
        return ranked[min(int(rng.geometric(_RANK)), len(ranked)) - 1]

    def _mutated(
        self, block: str, best: Mapping[str, Any], tried: set[str]
    ) -> tuple[str, dict[str, Any] | None]:
        """A mutant of the best values, of the best before them, ... in turn, not tried before.

        Those that were not tried with any values of the others come first.
        """
        parents = self._parents if self.improves is None else []
        parents = parents or [(dict(best), None)]
        known = (*self.history.values(), *self.pending.values())
        sources = {trial.config.get(block) for trial in known}
        turn = sum(_block(trial) == block for trial in known)
        for again in (False, True):
            for k in range(turn, turn + len(parents)):
                parent, line = parents[-1 - k % len(parents)]
                for mutant in _nearest_first(parent[block], line):
                    if (again or mutant.source not in sources) and self._is_new(
                        block, mutant.source, parent, tried
                    ):
                        return mutant.kind, {**parent, block: mutant.source}
        return "", None

    def _is_new(self, block: str, value: str, best: Mapping[str, Any], tried: set[str]) -> bool:
        if _digest({**best, block: value}) in tried:
            return False
        try:
            self.variables[block].validated(value)
        except ConfigError:
            return False
        return True

    def evidence(self, pending: Pending) -> CoreFeedback:
        """The scores; what was recorded is not needed."""
        for output, feedback in pending:
            is_error = feedback.error is not None or (
                isinstance(output._value, str) and _MARKED.search(output._value)
            )
            if feedback.score is None and not is_error:
                raise ConfigError(
                    "search needs a score: output.backward(0.5), or Feedback(score=..., text=...)."
                )
        told = evidence_of(pending, (), {}, self.objectives[0])
        if any(feedback.score is None for _, feedback in pending):  # one that raised spoils it
            return CoreFeedback(status="failed", text=told.text, info=told.info, error=told.error)
        return told


def _block(trial: Trial) -> str:
    """The block that a trial of this optimizer changed; empty for others."""
    parts = trial.origin.split("/")
    return parts[1] if parts[0] == SearchProposer.name and len(parts) > 1 else ""


def _step(
    space: Space, config: Mapping[str, Any], scale: float, rng: np.random.Generator
) -> dict[str, Any] | None:
    """All real numbers moved, or one value where there are none; None where that is not allowed."""
    near = dict(config)
    for name in config:
        parameter = space[name]
        if isinstance(parameter, Float):
            u = np.array(parameter.encode(config[name]))
            near[name] = parameter.decode(moved(parameter, rng, u, scale))
    if near != config and _is_allowed(space, near):
        return near
    found = space.neighbors(config, seed=int(rng.integers(2**31)), scale=scale)
    return found[0] if found else None


def _is_allowed(space: Space, config: Mapping[str, Any]) -> bool:
    try:
        space.validate(config)
    except ConfigError:
        return False
    return True


def _method(space: Space) -> str:
    kinds = {type(parameter) for parameter in space.values()}
    if space.is_conditional or space.forbidden or kinds - {Float, Int}:
        return "tpe"
    return "nelder-mead" if kinds == {Float} and len(space) <= _FEW else "cmaes"


@lru_cache(maxsize=64)
def _mutants(source: str) -> tuple[Mutant, ...]:
    """Mutants; none of what is no Python."""
    try:
        return tuple(mutants(source))
    except DataError:
        return ()


def _nearest_first(source: str, line: int | None) -> Sequence[Mutant]:
    """Mutants, those near the line that raised first."""
    found = _mutants(source)
    return found if line is None else sorted(found, key=lambda mutant: abs(mutant.line - line))


def _digest(values: Mapping[str, Any]) -> str:
    return sha256(repr(sorted(values.items())).encode("utf-8", "surrogatepass")).hexdigest()
