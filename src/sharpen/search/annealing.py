"""Simulated annealing, and the random walk that it is at an infinite temperature.

Scott Kirkpatrick, C. Daniel Gelatt and Mario P. Vecchi, "Optimization by Simulated Annealing",
Science 220, 1983; acceptance: Nicholas Metropolis et al., 1953.

::

    n < 10     x_0 the space's default, then x_n ~ U[0, 1]^d;  T_0 = standard deviation of their
               losses, and the best of them is the start
    y          x with one parameter in `moves` (at least one) moved to a neighbouring value
    accept y   if it is no worse, or with probability exp((f(x) - f(y)) / T_k)
    T_k        T_0 r^(k / horizon), r = `cooling`, down to T_0 r
    step       a normal one of `step` sqrt(T_k / T_0) of the range, at least a hundredth of `step`

A walk accepts every trial that ended well and never cools. Neighbours by the kind of parameter:
:mod:`sharpen.search.variation`. A feasible trial always beats an infeasible one, of two infeasible
ones the lesser violation; failed ones are never accepted. Where trials run side by side, those
that began before the one ahead of them ended are neighbours of the same point and are judged in
the order of their numbers. Trials from elsewhere may be the start.

Differs from the paper: T_0 comes from random trials, so that no unit of the loss is needed.
Time O(d) a proposal; memory O(d).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from sharpen.core.errors import ConfigError
from sharpen.core.optimizer import Capabilities
from sharpen.core.parameters import Float
from sharpen.core.problem import Constraint, Objective
from sharpen.core.space import Space, random_stream
from sharpen.search.generations import Generation, GenerationalOptimizer
from sharpen.search.moments import deviation
from sharpen.search.observations import Floats
from sharpen.search.variation import active_columns, stepped

__all__ = ["RandomWalk", "SimulatedAnnealing"]

_HORIZON = 200  # trials of the schedule where no budget is known
_LATER = 2**62  # streams of decisions; trials have the numbers below


class _Walk(GenerationalOptimizer):
    """A chain of points, each a neighbour of the one before."""

    capabilities: ClassVar[Capabilities] = Capabilities(constraints=True)

    def __init__(
        self,
        space: Space,
        objectives: Sequence[Objective] = (Objective("value"),),
        constraints: Sequence[Constraint] = (),
        *,
        step: float = 0.3,
        moves: float = 0.25,
        **given: Any,
    ) -> None:
        kind = type(self).__name__
        for option, value in (("step", step), ("moves", moves)):
            if not 0 < value <= 1:
                raise ConfigError(f"{option}={value} must be positive and at most 1 ({kind}).")
        self.step, self.moves = step, moves
        super().__init__(space, objectives, constraints, **given)

    def begin(self) -> None:
        """See :meth:`GenerationalOptimizer.begin`."""
        self._x: Floats | None = None
        self._key: tuple[float, float] = (2.0, 0.0)

    def _scale(self) -> float:
        return self.step

    def _neighbour(self, number: int, rng: np.random.Generator) -> Floats:
        if self._x is None:
            return self.first_point(number, rng)
        names = active_columns(self.space, self._x)
        moved = [name for name in names if rng.random() < self.moves]
        if names and not moved:
            moved = [names[int(rng.integers(len(names)))]]
        return stepped(self.space, rng, self._x, moved, self._scale())

    def plan(self, first: int) -> Floats:
        """See :meth:`GenerationalOptimizer.plan`."""
        self._number = first
        return self._neighbour(first, random_stream(self.seed, first))[None]

    def stray(self, number: int, rng: np.random.Generator) -> Floats:
        """See :meth:`GenerationalOptimizer.stray`."""
        return self._neighbour(number, rng)


class RandomWalk(_Walk):
    """A walk over neighbouring configurations; see the module for the method.

    Args:
        space: what to search over.
        objectives: one.
        constraints: any number; see the module.
        step: standard deviation of a step, as a part of the range.
        moves: the part of the parameters that move at once.
        given: see :class:`~sharpen.core.optimizer.Optimizer`.

    Raises:
        ConfigError: an option is out of range.
    """

    name: ClassVar[str] = "random-walk"
    hyperparameters: ClassVar[Space] = Space(
        step=Float(0.01, 1.0, log=True), moves=Float(0.01, 1.0, log=True)
    )

    def absorb(self, generation: Generation) -> None:
        """See :meth:`GenerationalOptimizer.absorb`."""
        if len(generation.x) and generation.keys[0, 0] < 2:
            self._x = generation.x[0]


class SimulatedAnnealing(_Walk):
    """Simulated annealing; see the module for the method.

    Args:
        space: what to search over.
        objectives: one.
        constraints: any number; see the module.
        cooling: r, the last temperature by the first.
        horizon: trials until then; None is the budget, or 200.
        given: ``step``, standard deviation of the first steps, as a part of the range; ``moves``,
            the part of the parameters that move at once; and those of
            :class:`~sharpen.core.optimizer.Optimizer`.

    Raises:
        ConfigError: an option is out of range.
    """

    name: ClassVar[str] = "annealing"
    hyperparameters: ClassVar[Space] = Space(
        step=Float(0.01, 1.0, log=True),
        moves=Float(0.01, 1.0, log=True),
        cooling=Float(1e-6, 0.1, log=True),
    )
    first_trials: ClassVar[int] = 10

    def __init__(
        self,
        space: Space,
        objectives: Sequence[Objective] = (Objective("value"),),
        constraints: Sequence[Constraint] = (),
        *,
        cooling: float = 1e-4,
        horizon: int | None = None,
        **given: Any,
    ) -> None:
        if not 0 < cooling < 1:
            raise ConfigError(f"cooling={cooling} must be between 0 and 1 (SimulatedAnnealing).")
        if horizon is not None and horizon < 1:
            raise ConfigError(f"horizon={horizon} must be at least 1 (SimulatedAnnealing).")
        self.cooling = cooling
        self.horizon = horizon or given.get("budget") or _HORIZON
        super().__init__(space, objectives, constraints, **given)

    @property
    def temperature(self) -> float:
        """T_k / T_0 for the next trial."""
        after = self._number - self.first_trials
        left = min(max(after / max(self.horizon - self.first_trials, 1), 0.0), 1.0)
        return float(self.cooling**left)

    def _scale(self) -> float:
        return self.step * max(math.sqrt(self.temperature), 0.01)

    def begin(self) -> None:
        """See :meth:`GenerationalOptimizer.begin`."""
        super().begin()
        self._first_temperature = 1.0
        self._number = 0

    def plan(self, first: int) -> Floats:
        """See :meth:`GenerationalOptimizer.plan`."""
        if first:
            return super().plan(first)
        numbers = range(self.first_trials)
        return np.array([self.first_point(n, random_stream(self.seed, n)) for n in numbers])

    def absorb(self, generation: Generation) -> None:
        """See :meth:`GenerationalOptimizer.absorb`."""
        if self._number == 0:
            x, keys = self.elsewhere()
            x, keys = np.concatenate([x, generation.x]), np.concatenate([keys, generation.keys])
            loss = generation.loss
            known = loss[np.isfinite(loss)]
            spread = float(deviation(known)) if len(known) else 0.0
            self._first_temperature = spread or 1.0
            if len(x):
                best = int(np.lexsort((keys[:, 1], keys[:, 0]))[0])
                self._x, self._key = x[best], (float(keys[best, 0]), float(keys[best, 1]))
            return
        if not len(generation.x):
            return
        key = (float(generation.keys[0, 0]), float(generation.keys[0, 1]))
        if key[0] < 2 and (key <= self._key or self._accepts(key)):
            self._x, self._key = generation.x[0], key

    def _accepts(self, key: tuple[float, float]) -> bool:
        """Whether a worse trial is taken: only if both are feasible, by the temperature."""
        if key[0] > 0 or self._key[0] > 0:
            return False
        heat = self._first_temperature * self.temperature
        chance = random_stream(self.seed, _LATER + self._number).random()
        return bool(chance < math.exp((self._key[1] - key[1]) / heat))
