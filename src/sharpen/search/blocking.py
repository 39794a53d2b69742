"""Solvers that own their loop, turned into optimizers that are asked and told.

A solver runs in a thread of its own, a lane. When it calls its function, the lane posts the point
and waits; whoever asks gets the configuration at that point, and the result lets the solver go on.

::

    lane 0, 1, 2 ...   a run of the solver each; lane 0 starts at the space's default, lane k at a
                       point from the stream of (seed, k), which also orders the coordinates
    request            answered at once if its configuration is in the history
    propose            the first request, by lane, that is not pending; a lane that has ended is
                       passed over, and where all requests are pending the next lane begins

So the proposals follow from the history alone although the solver's state cannot be stored: a new
instance that is told the history runs the solver again, and every call it made is answered. Trials
side by side are different runs, and the points of one finite-difference gradient.

A failed trial is answered with a loss beyond the worst of its lane; a lane whose start fails ends.
A solver that ends is followed by another from a new start. Where twenty runs in a row ask for
nothing new, the configuration is drawn at random: the space is as good as exhausted.

Time of a proposal: the solver's, and a switch of threads. Memory: a thread a lane under way.
"""

from __future__ import annotations

import itertools
import threading
import weakref
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sharpen.core.feedback import Trial
from sharpen.core.parameters import Float
from sharpen.core.problem import Constraint, Objective
from sharpen.core.space import Space, random_stream
from sharpen.search.generations import Ints
from sharpen.search.observations import ArrayOptimizer, Floats
from sharpen.search.variation import free_columns

__all__ = ["Answer", "BlockingOptimizer", "Function", "Lane"]

_MOST_IDLE = 20  # runs in a row that ask for nothing new
_LATER = 2**62  # streams of starts and repairs; trials have the numbers below


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What is known of a point."""

    loss: float
    """NaN where the trial failed."""

    margin: Floats
    """[c] by how much each constraint is exceeded; at most 0 where it holds."""

    gradient: Floats | None
    """[k] derivative of the loss in the coordinates that have a choice, where it was told."""


class _Closed(BaseException):
    """Ends a solver whose optimizer is gone; no ``except Exception`` keeps it."""


class Lane:
    """A solver in a thread of its own that waits for answers.

    Args:
        solve: runs the solver; its argument evaluates a list of points [k].
    """

    def __init__(self, solve: Callable[[Callable[[list[Floats]], list[Answer]]], None]) -> None:
        self.points: list[Floats] = []
        self.is_finished = False
        self.error: BaseException | None = None
        self._answers: list[Answer] = []
        self._is_closed = False
        self._asked, self._answered = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(
            target=self._run, args=(solve,), name="sharpen-solver", daemon=True
        )
        self._thread.start()
        self._asked.acquire()

    def _run(self, solve: Callable[[Callable[[list[Floats]], list[Answer]]], None]) -> None:
        try:
            solve(self._evaluate)
        except _Closed:
            pass
        except BaseException as error:  # it is raised where the lane is read
            self.error = error
        self.is_finished, self.points = True, []
        self._asked.release()

    def _evaluate(self, points: list[Floats]) -> list[Answer]:
        if not self._is_closed:
            self.points = points
            self._asked.release()
            self._answered.acquire()
        if self._is_closed:
            raise _Closed
        return self._answers

    def answer(self, answers: list[Answer]) -> None:
        """Let the solver go on until its next request, or its end."""
        self._answers = answers
        self._answered.release()
        self._asked.acquire()

    def close(self) -> None:
        """End the solver and its thread."""
        if not self.is_finished:
            self._is_closed = True
            self._answered.release()
        if self._thread is not threading.current_thread():
            self._thread.join()


def _close(lanes: dict[int, Lane | None]) -> None:
    for lane in lanes.values():
        if lane is not None:
            lane.close()
    lanes.clear()


class Function:
    """The function as a solver calls it, in the coordinates that have a choice.

    Args:
        evaluate: evaluates a list of points [k] in [0, 1].
        difference: step of a finite difference.
    """

    def __init__(self, evaluate: Callable[[list[Floats]], list[Answer]], difference: float) -> None:
        self._evaluate = evaluate
        self._difference = difference
        self._known: dict[bytes, Answer] = {}
        self._best, self._worst = np.inf, -np.inf

    def at(self, points: Sequence[Floats]) -> list[Answer]:
        """What is known of points [k] after evaluating them; those outside [0, 1] at the bound."""
        inside = [np.clip(np.asarray(p, dtype=np.float64), 0.0, 1.0) for p in points]
        keys = [p.tobytes() for p in inside]
        new = {k: p for k, p in zip(keys, inside, strict=True) if k not in self._known}
        if new:
            answers = self._evaluate(list(new.values()))
            for answer in answers:
                if np.isfinite(answer.loss):
                    self._best = min(self._best, answer.loss)
                    self._worst = max(self._worst, answer.loss)
            self._known |= {k: self._finite(answer) for k, answer in zip(new, answers, strict=True)}
        return [self._known[k] for k in keys]

    def _finite(self, answer: Answer) -> Answer:
        if np.isfinite(answer.loss):
            return answer
        beyond = self._worst + max(self._worst - self._best, 1.0)
        return Answer(beyond, np.ones_like(answer.margin), None)

    @property
    def has_answers(self) -> bool:
        """Whether any trial ended well."""
        return bool(np.isfinite(self._best))

    def __call__(self, x: Floats) -> float:
        """The loss."""
        return self.at([x])[0].loss

    def slack(self, x: Floats) -> Floats:
        """[c] how far each constraint is from being broken; negative where it is."""
        return -self.at([x])[0].margin

    def gradient(self, x: Floats) -> Floats:
        """[k] derivative of the loss: as told, else by differences."""
        [here] = self.at([x])
        if here.gradient is not None:
            return here.gradient
        steps, answers = self._differences(x)
        return np.array([(a.loss - here.loss) / s for a, s in zip(answers, steps, strict=True)])

    def slack_gradient(self, x: Floats) -> Floats:
        """[c, k] derivative of :meth:`slack`, by differences."""
        [here] = self.at([x])
        steps, answers = self._differences(x)
        return np.array(
            [(here.margin - a.margin) / s for a, s in zip(answers, steps, strict=True)]
        ).T.reshape(len(here.margin), len(x))

    def _differences(self, x: Floats) -> tuple[Floats, list[Answer]]:
        x = np.clip(x, 0.0, 1.0)
        steps = np.where(x + self._difference <= 1, self._difference, -self._difference)
        return steps, self.at(list(x + np.diag(steps)))


class BlockingOptimizer(ArrayOptimizer):
    """Base of optimizers that run a solver; see the module.

    A subclass implements :meth:`solver`.
    """

    difference: float = 1e-6
    """Step of finite differences, as a part of each range."""

    @abstractmethod
    def solver(self) -> Callable[[Function, Floats], Any]:
        """A function that minimizes from a start [k] until it has converged.

        It must not refer to the optimizer, which could then never be collected.
        """

    def __init__(
        self,
        space: Space,
        objectives: Sequence[Objective] = (Objective("value"),),
        constraints: Sequence[Constraint] = (),
        **given: Any,
    ) -> None:
        self._free = free_columns(space)
        self._open_lanes()
        super().__init__(space, objectives, constraints, **given)

    # -- lanes ----------------------------------------------------------------------------------

    def _open_lanes(self) -> None:
        self._lanes: dict[int, Lane | None] = {}  # None has ended
        self._requests: dict[int, list[tuple[str, dict[str, Any]]]] = {}
        self._columns: dict[int, Ints] = {}
        self._counts: dict[int, int] = {}
        self._finalizer = weakref.finalize(self, _close, self._lanes)

    def restart(self) -> None:
        """See :meth:`Optimizer.restart`."""
        super().restart()
        self._numbers: dict[str, int] = {}
        self._close_lanes()

    def _close_lanes(self) -> None:
        _close(self._lanes)
        for cache in (self._requests, self._columns, self._counts):
            cache.clear()

    def __getstate__(self) -> dict[str, Any]:
        without = ("_lanes", "_requests", "_columns", "_counts", "_finalizer")
        return {k: v for k, v in self.__dict__.items() if k not in without}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open_lanes()

    def tell(self, trials: Iterable[Trial]) -> None:
        """See :meth:`Optimizer.tell`."""
        given = list(trials)
        for trial in given:
            if trial.feedback is None or not self.is_true(trial):
                continue
            key = self.space.canonical(trial.config)
            known = self._numbers.get(key)
            if known is None or trial.number < known:
                self._numbers[key] = trial.number
            has_changed = trial.number in self.history and self.history[trial.number] != trial
            if has_changed or (known is not None and trial.number < known):
                self._close_lanes()  # an answer was another one
        super().tell(given)

    def propose(self, number: int) -> dict[str, Any]:
        """See :meth:`Optimizer.propose`."""
        pending = {self.space.canonical(trial.config) for trial in self.pending.values()}
        idle = 0
        for k in itertools.count():
            if k not in self._lanes:
                idle += 1
                if idle > _MOST_IDLE or not len(self._free):
                    break
                self._begin(k)
            self._advance(k)
            if self._lanes[k] is None:
                continue
            for key, config in self._requests[k]:
                if key not in self._numbers and key not in pending:
                    return dict(config)
        return self.space.draw(random_stream(self.seed, number))

    def _begin(self, k: int) -> None:
        rng = random_stream(self.seed, _LATER + k)
        point = rng.random(self.space.dimensions)
        if k == 0:
            point = self.space.encode([self.space.default()]).x[0]
        # Solvers step along the coordinates in turn; which come first is drawn by lot.
        self._columns[k] = rng.permutation(self._free)
        start = point[self._columns[k]]
        solve, difference = self.solver(), self.difference

        def run(evaluate: Callable[[list[Floats]], list[Answer]]) -> None:
            function = Function(evaluate, difference)
            function.at([start])
            if function.has_answers:
                solve(function, start)

        self._counts[k] = 0
        lane = self._lanes[k] = Lane(run)
        self._post(k, lane)

    def _post(self, k: int, lane: Lane) -> None:
        """Settle which configurations a lane waits for."""
        if lane.error is not None:
            raise lane.error
        if lane.is_finished:
            self._lanes[k] = None
            return
        requests = []
        for free in lane.points:
            point = np.full(self.space.dimensions, 0.5)
            point[self._columns[k]] = free
            # Lanes and calls count as one number: 2^31 calls a lane.
            rng = random_stream(self.seed, _LATER + ((k + 1) << 31) + self._counts[k])
            self._counts[k] += 1
            config = self.space.settle(point, rng)
            requests.append((self.space.canonical(config), config))
        self._requests[k] = requests

    def _advance(self, k: int) -> None:
        """Answer a lane for as long as the history has what it asks for."""
        while (lane := self._lanes[k]) is not None:
            if any(key not in self._numbers for key, _ in self._requests[k]):
                return
            numbers = [self._numbers[key] for key, _ in self._requests[k]]
            lane.answer([self._answer(number, self._columns[k]) for number in numbers])
            self._post(k, lane)

    def _answer(self, number: int, columns: Ints) -> Answer:
        row = int(np.searchsorted(self.seen.numbers, number))
        trial = self.history[number]
        if not self.seen.ok[row]:
            return Answer(np.nan, np.ones(len(self.constraints)), None)
        loss, margin = float(self.seen.loss[row, 0]), self.seen.margin[row].copy()
        gradient = self._told_gradient(trial)
        return Answer(loss, margin, None if gradient is None else gradient[columns])

    def _told_gradient(self, trial: Trial) -> Floats | None:
        """[d] the derivative in unit coordinates if the trial brought that of every real one."""
        objective = self.objectives[0]
        assert trial.feedback is not None
        told = trial.feedback.gradients.get(objective.name)
        if told is None:
            return None
        gradient = np.zeros(self.space.dimensions)
        for name, value in trial.config.items():
            parameter = self.space[name]
            if isinstance(parameter, Float) and parameter.step is None:
                if name not in told:
                    return None
                scale = parameter.high - parameter.low
                if parameter.log:
                    scale = value * np.log(parameter.high / parameter.low)
                gradient[self.space.columns[name]] = objective.loss(told[name]) * scale
        return gradient
