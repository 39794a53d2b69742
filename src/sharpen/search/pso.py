"""Particle swarm optimization: particles fly on, drawn to what they and their neighbours found.

James Kennedy and Russell Eberhart, "Particle Swarm Optimization", ICNN 1995; constriction: Maurice
Clerc and James Kennedy, "The Particle Swarm: Explosion, Stability, and Convergence in a
Multidimensional Complex Space", IEEE Transactions on Evolutionary Computation 6(1), 2002; ring:
Daniel Bratton and James Kennedy, "Defining a Standard for Particle Swarm Optimization", SIS 2007.

::

    v_i <- w v_i + c r_1 (p_i - x_i) + c r_2 (l_i - x_i)     w = 0.7298, c = 1.49618
    x_i <- x_i + v_i                                         r_1, r_2 ~ U[0, 1]^d
    p_i     the best position of particle i
    l_i     the best p of i and its two neighbours (ring), or of all (global)
    bound   reflects the position and turns the speed of that coordinate

A speed is at most the range. The first particle starts at the space's default, the others anywhere.
Infeasible positions rank after feasible ones by their violation (Deb's rules), failed ones last.
Trials from elsewhere are remembered by the first particles.

Differs from the papers: bounds reflect. A trial that begins while the swarm's move before is not
complete moves its particle from where it was, with random numbers of its own; a configuration that
somebody else chose moves its particle there. Time O(d) a proposal; memory O(N d).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, get_args

import numpy as np

from sharpen.core.errors import ConfigError
from sharpen.core.optimizer import Capabilities
from sharpen.core.parameters import Categorical, Float, Int
from sharpen.core.problem import Constraint, Objective
from sharpen.core.space import Space, random_stream
from sharpen.search.de import default_population
from sharpen.search.generations import Generation, GenerationalOptimizer, no_worse
from sharpen.search.observations import Floats

__all__ = ["PSO"]

Topology = Literal["ring", "global"]
_WORST = (3.0, 0.0)  # the key of a particle that has no position yet


class PSO(GenerationalOptimizer):
    """A swarm of particles; see the module for the method.

    Args:
        space: what to search over.
        objectives: one.
        constraints: any number; see the module.
        population: particles; None is 10 + 2 sqrt(d), at most a fiftieth of the budget, at least 8.
        topology: whose finds a particle knows of: ``"ring"`` or ``"global"``.
        inertia: w.
        attraction: c, to its own best position and to its neighbours'.
        given: see :class:`~sharpen.core.optimizer.Optimizer`.

    Raises:
        ConfigError: an option is out of range.
    """

    name: ClassVar[str] = "pso"
    capabilities: ClassVar[Capabilities] = Capabilities(constraints=True)
    hyperparameters: ClassVar[Space] = Space(
        population=Int(4, 100, log=True),
        topology=Categorical("ring", "global"),
        inertia=Float(0.3, 0.9),
        attraction=Float(0.5, 2.0),
    )

    def __init__(
        self,
        space: Space,
        objectives: Sequence[Objective] = (Objective("value"),),
        constraints: Sequence[Constraint] = (),
        *,
        population: int | None = None,
        topology: Topology = "ring",
        inertia: float = 0.7298,
        attraction: float = 1.49618,
        **given: Any,
    ) -> None:
        if population is not None and population < 2:
            raise ConfigError(f"population={population} must be at least 2 (PSO).")
        if topology not in get_args(Topology):
            raise ConfigError(f"topology={topology!r} must be ring or global (PSO).")
        if not 0 <= inertia < 1:
            raise ConfigError(f"inertia={inertia} must be at least 0 and less than 1 (PSO).")
        if attraction <= 0:
            raise ConfigError(f"attraction={attraction} must be positive (PSO).")
        self.topology, self.inertia, self.attraction = topology, inertia, attraction
        usual = 10 + int(2 * math.sqrt(space.dimensions))
        self.population = population or default_population(usual, given.get("budget"))
        super().__init__(space, objectives, constraints, **given)

    def begin(self) -> None:
        """See :meth:`GenerationalOptimizer.begin`."""
        shape = (self.population, self.space.dimensions)
        self._x, self._v = np.full(shape, np.nan), np.zeros(shape)
        self._best, self._keys = np.full(shape, 0.5), np.full((self.population, 2), _WORST)
        x, keys = self.elsewhere()
        order = np.lexsort((keys[:, 1], keys[:, 0]))[: self.population]
        self._best[: len(order)], self._keys[: len(order)] = x[order], keys[order]
        self._find_neighbours()

    def _find_neighbours(self) -> None:
        """Set [N] whose best position each particle is drawn to."""
        ranks = np.empty(self.population, dtype=np.int64)
        ranks[np.lexsort((self._keys[:, 1], self._keys[:, 0]))] = np.arange(self.population)
        each = np.arange(self.population)
        if self.topology == "global":
            self._leader = np.full(self.population, ranks.argmin())
            return
        ring = np.stack([each, (each - 1) % self.population, (each + 1) % self.population])
        self._leader = ring[ranks[ring].argmin(axis=0), each]

    def _move(self, number: int, i: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
        """[d] the next position of particle i, for trial ``number``, and its speed."""
        x = self._x[i]
        if np.isnan(x).any():  # it has not begun
            position = self.first_point(number, rng)
            return position, (rng.random(self.space.dimensions) - position) / 2
        r1, r2 = rng.random((2, self.space.dimensions))
        to_own, to_leader = self._best[i] - x, self._best[self._leader[i]] - x
        speed = self.inertia * self._v[i] + self.attraction * (r1 * to_own + r2 * to_leader)
        speed = np.clip(speed, -1.0, 1.0)
        position = x + speed
        reflected = np.where(
            position < 0, -position, np.where(position > 1, 2 - position, position)
        )
        return reflected, np.where(reflected == position, speed, -speed)

    def plan(self, first: int) -> Floats:
        """See :meth:`GenerationalOptimizer.plan`."""
        moves = [
            self._move(first + i, i, random_stream(self.seed, first + i))
            for i in range(self.population)
        ]
        self._next_v = np.array([speed for _, speed in moves])
        return np.array([position for position, _ in moves])

    def stray(self, number: int, rng: np.random.Generator) -> Floats:
        """See :meth:`GenerationalOptimizer.stray`."""
        return self._move(number, number % self.population, rng)[0]

    def absorb(self, generation: Generation) -> None:
        """See :meth:`GenerationalOptimizer.absorb`."""
        places, x, keys = generation.places, generation.x, generation.keys
        moved = np.nan_to_num(x - self._x[places])
        self._v[places] = np.where(generation.planned[:, None], self._next_v[places], moved)
        self._x[places] = x
        better = no_worse(keys, self._keys[places])
        self._best[places[better]], self._keys[places[better]] = x[better], keys[better]
        self._find_neighbours()
