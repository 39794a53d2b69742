"""Finished trials as arrays, and the base of optimizers that work on them.

Rows are in the order of the trials' numbers, whatever the order in which they were told, so that
what follows from them depends on the history alone.

Order of merit (Kalyanmoy Deb, "An efficient constraint handling method for genetic algorithms",
Computer Methods in Applied Mechanics and Engineering 186, 2000, section 3)::

    feasible, by loss   <   infeasible, by sum of violations   <   failed
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sharpen.core.feedback import Trial
from sharpen.core.optimizer import Optimizer
from sharpen.core.problem import Constraint, Fidelity, Objective
from sharpen.core.space import Space
from sharpen.search.moments import deviation

__all__ = ["ArrayOptimizer", "Observations"]

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


class Observations:
    """What was told, as arrays with one row a finished trial, by number.

    Args:
        space: of the configurations; d coordinates.
        objectives: m of them.
        constraints: c of them.
        fidelity: of the problem.
    """

    def __init__(
        self,
        space: Space,
        objectives: Sequence[Objective],
        constraints: Sequence[Constraint] = (),
        fidelity: Fidelity | None = None,
    ) -> None:
        self._space = space
        self._objectives = tuple(objectives)
        self._constraints = tuple(constraints)
        self._fidelity = fidelity
        self._count = 0
        self._columns = {
            "numbers": np.empty(0, dtype=np.int64),
            "x": np.empty((0, space.dimensions)),
            "mask": np.empty((0, space.dimensions), dtype=bool),
            "loss": np.empty((0, len(self._objectives))),
            "margin": np.empty((0, len(self._constraints))),
            "ok": np.empty(0, dtype=bool),
            "fidelity": np.empty(0),
        }

    def __len__(self) -> int:
        return self._count

    def add(self, trials: Iterable[Trial]) -> None:
        """Add finished trials; one with a known number takes the other's place."""
        for trial in trials:
            known = self.numbers
            place = int(np.searchsorted(known, trial.number))
            if place == self._count or known[place] != trial.number:
                self._open(place)
            encoded = self._space.encode([trial.config])
            high = 1.0 if self._fidelity is None else self._fidelity.high
            row = {
                "numbers": trial.number,
                "x": encoded.x[0],
                "mask": encoded.mask[0],
                "loss": [self._loss(trial, objective) for objective in self._objectives],
                "margin": [self._margin(trial, constraint) for constraint in self._constraints],
                "ok": trial.is_ok,
                "fidelity": high if trial.fidelity is None else trial.fidelity,
            }
            for name, value in row.items():
                self._columns[name][place] = value

    def _open(self, place: int) -> None:
        """Make room for a row at ``place``."""
        if self._count == len(self._columns["ok"]):
            size = max(2 * self._count, 16)
            for name, old in self._columns.items():
                self._columns[name] = np.empty((size, *old.shape[1:]), dtype=old.dtype)
                self._columns[name][: self._count] = old[: self._count]
        for column in self._columns.values():
            column[place + 1 : self._count + 1] = column[place : self._count].copy()
        self._count += 1

    @staticmethod
    def _loss(trial: Trial, objective: Objective) -> float:
        value = trial.values.get(objective.name, np.nan)
        return objective.loss(value) if np.isfinite(value) else np.nan

    @staticmethod
    def _margin(trial: Trial, constraint: Constraint) -> float:
        known = trial.feedback.constraints if trial.feedback is not None else {}
        value = known.get(constraint.name, np.nan)
        if not np.isfinite(value):
            return np.nan
        # A strict bound that is met exactly is broken by the least there is.
        margin = constraint.margin(value)
        return margin if margin or constraint.holds(value) else float(np.finfo(float).tiny)

    # -- arrays ---------------------------------------------------------------------------------

    def _get(self, name: str) -> npt.NDArray[Any]:
        view: npt.NDArray[Any] = self._columns[name][: self._count]
        view.flags.writeable = False
        return view

    @property
    def numbers(self) -> npt.NDArray[np.int64]:
        """[n] numbers of the trials, ascending."""
        return self._get("numbers")

    @property
    def x(self) -> Floats:
        """[n, d] coordinates in the unit cube."""
        return self._get("x")

    @property
    def mask(self) -> Bools:
        """[n, d] whether a coordinate's parameter is active."""
        return self._get("mask")

    @property
    def loss(self) -> Floats:
        """[n, m] objectives such that less is better; NaN where there is none."""
        return self._get("loss")

    @property
    def margin(self) -> Floats:
        """[n, c] by how much each constraint is exceeded, at most 0 where it holds; or NaN."""
        return self._get("margin")

    @property
    def ok(self) -> Bools:
        """[n] whether the trial ended well."""
        return self._get("ok")

    @property
    def fidelity(self) -> Floats:
        """[n] how closely it was measured, in the fidelity's own units."""
        return self._get("fidelity")

    # -- what follows ---------------------------------------------------------------------------

    @property
    def violation(self) -> Floats:
        """[n] sum over the constraints of what exceeds them; 0 is feasible."""
        excess: Floats = np.maximum(self.margin, 0.0).sum(axis=1)
        return excess

    @property
    def good(self) -> Bools:
        """[n] whether it ended well and keeps every constraint."""
        good: Bools = self.ok & (self.violation == 0)
        return good

    def imputed(self) -> Floats:
        """[n, m] losses, with the worst known plus one standard deviation where one is missing.

        Zeros where no trial ended well.
        """
        found = np.where(self.ok[:, None], self.loss, np.nan)
        if not self.ok.any():
            return np.zeros_like(found)
        known = found[self.ok]
        worst: Floats = known.max(axis=0) + deviation(known)
        return np.where(np.isnan(found), worst, found)

    def merit(self) -> Floats:
        """[n] one number a trial of a single objective, such that less is better (see the module).

        Feasible trials have their loss, infeasible ones more than any of those, failed ones most.
        """
        merit = np.full(self._count, np.inf)
        good = self.good
        merit[good] = self.loss[good, 0]
        worst = merit[good].max() if good.any() else 0.0
        broken = self.ok & ~good
        merit[broken] = np.maximum(worst + self.violation[broken], np.nextafter(worst, np.inf))
        beyond = good | broken
        most = merit[beyond].max() if beyond.any() else 0.0
        merit[~beyond] = np.nextafter(most, np.inf) + 1.0
        return merit


class ArrayOptimizer(Optimizer):
    """Base of optimizers that work on vectors: :attr:`seen` has the history as arrays."""

    def __init__(
        self,
        space: Space,
        objectives: Sequence[Objective] = (Objective("value"),),
        constraints: Sequence[Constraint] = (),
        **given: Any,
    ) -> None:
        super().__init__(space, objectives, constraints, **given)
        self.restart()

    def restart(self) -> None:
        """See :meth:`Optimizer.restart`."""
        self.seen = Observations(self.space, self.objectives, self.constraints, self.fidelity)

    def tell(self, trials: Iterable[Trial]) -> None:
        """See :meth:`Optimizer.tell`."""
        given = list(trials)
        super().tell(given)
        self.seen.add(trial for trial in given if trial.feedback is not None)
