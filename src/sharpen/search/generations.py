"""The base of optimizers that work in generations: evolution strategies, swarms, gradients.

A generation is a run of trial numbers that is planned as a whole, from the generations before it.
The state after any number of generations follows from the seed and the history alone, so it is a
cache: it moves on by each generation that is complete, and is built again from the start when a
trial of an earlier one, or one from elsewhere, is told late.

::

    numbers      0 .. s_0 - 1 | s_0 .. s_0 + s_1 - 1 | ...
    state        state_{g+1} = absorb(state_g, results of generation g)
    trial n      n in the generation under way: its planned point
                 otherwise (a generation before is not complete): stray(n), drawn from state_g

A point that was planned stands for its trial when the trial has its configuration; otherwise (a
stray, or a configuration that somebody else chose) the configuration's own coordinates do. A
generation is complete when all its trials ended, or when those that did not are neither pending
nor needed: as many trials as it has have ended after it.

Order of merit: Deb's rules, as in :mod:`sharpen.search.observations`, trial by trial. A trial that
was not measured at the highest fidelity counts as failed.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sharpen.core.feedback import Trial
from sharpen.core.space import random_stream
from sharpen.search.observations import ArrayOptimizer, Bools, Floats

__all__ = ["Generation", "GenerationalOptimizer", "merit_keys", "no_worse"]

Ints = npt.NDArray[np.int64]


def merit_keys(optimizer: ArrayOptimizer, rows: npt.ArrayLike) -> Floats:
    """[k, 2] what compares trials, less is better, by the first column and then by the second.

    Feasible trials have (0, loss), infeasible ones (1, sum of violations), others (2, 0).

    Args:
        optimizer: whose trials; of one objective.
        rows: [k] which rows of ``optimizer.seen``.
    """
    seen, rows = optimizer.seen, np.asarray(rows, dtype=np.int64)
    keys = np.zeros((len(rows), 2))
    excess = np.maximum(seen.margin[rows], 0.0).sum(axis=1)
    known = seen.ok[rows] & np.isfinite(excess)
    if optimizer.fidelity is not None:
        known &= seen.fidelity[rows] == optimizer.fidelity.high
    feasible, broken = known & (excess == 0), known & (excess > 0)
    keys[feasible, 1] = seen.loss[rows[feasible], 0]
    keys[broken, 0], keys[broken, 1] = 1, excess[broken]
    keys[~known, 0] = 2
    return keys


def no_worse(a: Floats, b: Floats) -> Bools:
    """[k] whether each of ``a`` is as good as its counterpart in ``b``; both [k, 2] keys."""
    found: Bools = (a[..., 0] < b[..., 0]) | ((a[..., 0] == b[..., 0]) & (a[..., 1] <= b[..., 1]))
    return found


@dataclass(frozen=True, slots=True, eq=False)
class Generation:
    """The results of a complete generation, in the order of its trials' numbers."""

    places: Ints
    """[k] which of the planned points each trial was; without those that were lost."""

    x: Floats
    """[k, d] where each was measured, in the unit cube."""

    mask: Bools
    """[k, d] whether a coordinate's parameter was active."""

    planned: Bools
    """[k] whether that is the point that was planned."""

    keys: Floats
    """[k, 2] see :func:`merit_keys`."""

    losses: Floats
    """[k, m] losses of all objectives; those of trials whose keys are not (0, ...) mean nothing."""

    @property
    def loss(self) -> Floats:
        """[k] losses; NaN where a trial failed or broke a constraint."""
        found: Floats = np.where(self.keys[:, 0] == 0, self.keys[:, 1], np.nan)
        return found

    @property
    def order(self) -> Ints:
        """[k] rows from the best to the worst; of equal ones the first comes first."""
        return np.lexsort((self.keys[:, 1], self.keys[:, 0]))


class GenerationalOptimizer(ArrayOptimizer):
    """Base of optimizers that work in generations; see the module.

    A subclass implements :meth:`begin`, :meth:`plan`, :meth:`absorb` and :meth:`stray`.
    """

    @abstractmethod
    def begin(self) -> None:
        """Set the state before the first generation; :attr:`elsewhere` has what else is known."""

    @abstractmethod
    def plan(self, first: int) -> Floats:
        """[k, d] the points of the generation whose first trial has the number ``first``.

        Called once a generation. Coordinates outside [0, 1] are cut off at the bound.
        """

    @abstractmethod
    def absorb(self, generation: Generation) -> None:
        """Move the state on by the results of the generation that was planned last."""

    @abstractmethod
    def stray(self, number: int, rng: np.random.Generator) -> Floats:
        """[d] a point for a trial beyond the generation under way; the state must not change."""

    # -- the cache ------------------------------------------------------------------------------

    def restart(self) -> None:
        """See :meth:`Optimizer.restart`."""
        super().restart()
        self._is_stale = True
        self._first = 0
        self._points: Floats = np.empty((0, 0))
        self._configs: list[dict[str, Any] | None] = []

    def tell(self, trials: Iterable[Trial]) -> None:
        """See :meth:`Optimizer.tell`."""
        given = list(trials)
        for trial in given:
            number = trial.number
            if number < self._first and self.history.get(number) != trial:
                # A trial that was taken for lost, or one from elsewhere, is known after all.
                self._is_stale |= trial.feedback is not None or number not in self.history
        super().tell(given)

    def elsewhere(self) -> tuple[Floats, Floats]:
        """[k, d] and [k, 2]: coordinates and merit keys of the trials with negative numbers."""
        count = int(np.searchsorted(self.seen.numbers, 0))
        return self.seen.x[:count].copy(), merit_keys(self, np.arange(count))

    def best_elsewhere(self) -> Floats | None:
        """[d] the best of those trials; None where no feasible one ended well."""
        x, keys = self.elsewhere()
        if not (keys[:, 0] == 0).any():
            return None
        best: Floats = x[np.lexsort((keys[:, 1], keys[:, 0]))[0]]
        return best

    def first_point(self, number: int, rng: np.random.Generator) -> Floats:
        """[d] where a trial of a first generation is: at the space's default, then at random."""
        if number == 0:
            start: Floats = self.space.encode([self.space.default()]).x[0]
            return start
        return rng.random(self.space.dimensions)

    def propose(self, number: int) -> dict[str, Any]:
        """See :meth:`Optimizer.propose`."""
        self._catch_up()
        place = number - self._first
        if 0 <= place < len(self._points):
            return dict(self._config(place))
        rng = random_stream(self.seed, number)
        point = self.stray(number, rng)
        return self.space.settle(np.clip(point, 0.0, 1.0), rng)

    def _catch_up(self) -> None:
        if self._is_stale:
            self._is_stale = False
            self._first = 0
            self.begin()
            self._open()
        while True:
            end = self._first + len(self._points)
            missing = [n for n in range(self._first, end) if n not in self.history]
            if missing:
                later = len(self.seen) - int(np.searchsorted(self.seen.numbers, end))
                if later < len(self._points) or any(n in self.pending for n in missing):
                    return
            self.absorb(self._finished(end))
            self._first = end
            self._open()

    def _open(self) -> None:
        self._points = np.clip(self.plan(self._first), 0.0, 1.0)
        self._configs = [None] * len(self._points)

    def _config(self, place: int) -> dict[str, Any]:
        config = self._configs[place]
        if config is None:
            rng = random_stream(self.seed, self._first + place)
            config = self._configs[place] = self.space.settle(self._points[place], rng)
        return config

    def _finished(self, end: int) -> Generation:
        numbers = self.seen.numbers
        rows = np.arange(np.searchsorted(numbers, self._first), np.searchsorted(numbers, end))
        places = numbers[rows] - self._first
        planned = np.array(
            [self.history[self._first + int(p)].config == self._config(int(p)) for p in places],
            dtype=bool,
        )
        x = np.where(planned[:, None], self._points[places], self.seen.x[rows])
        keys, losses = merit_keys(self, rows), self.seen.loss[rows].copy()
        return Generation(places, x, self.seen.mask[rows], planned, keys, losses)
