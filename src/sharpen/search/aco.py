"""Ant colony optimization: ants choose values by pheromone that good trials leave behind.

Marco Dorigo and Luca Maria Gambardella, "Ant Colony System", IEEE Transactions on Evolutionary
Computation 1(1), 1997 (the greedy choice); Christian Blum and Marco Dorigo, "The Hyper-Cube
Framework for Ant Colony Optimization", IEEE Transactions on Systems, Man, and Cybernetics B 34(2),
2004 (pheromone in [0, 1]); Thomas Stuetzle and Holger Hoos, "MAX-MIN Ant System", Future Generation
Computer Systems 16, 2000 (the least pheromone); Bernd Bullnheimer et al., "A new rank-based version
of the Ant System", 1997 (the weights).

::

    p(j)     tau_j^alpha eta_j^beta / sum         one pheromone vector tau a parameter
    choice   argmax_j of that with probability g ("greediness"), else j ~ p
    tau_j <- (1 - rho) tau_j + rho sum_k w_k [ant k chose j]
    k        the best trial so far, with the largest weight, then the best third of the generation,
             falling linearly; the weights sum to 1
    tau_j    at least 1 / (10 levels)

The levels of a parameter are its values. A range with more of them than `resolution`, or an integer
on a logarithmic axis, is cut into that many cells, and the value is uniform within the cell. A
subset has one pheromone for each item that is in and one for it that is out; a permutation has one
for each item at each place, and an ant fills the places in turn. eta is a categorical's weights,
else 1. What a trial did not use (inactive parameters) leaves nothing. Infeasible trials rank after
feasible ones by their violation, failed ones last and without pheromone. A trial from elsewhere may
be the best so far.

Differs from the papers: all of them are about tours of a graph; here each parameter is one choice.
Time O(sum of levels) a proposal, O(n^2) for a permutation of n; memory alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from sharpen.core.collections import Permutation
from sharpen.core.errors import ConfigError
from sharpen.core.optimizer import Capabilities
from sharpen.core.parameters import Categorical, Float, Int, Parameter
from sharpen.core.problem import Constraint, Objective
from sharpen.core.space import Space, random_stream
from sharpen.search.generations import Generation, GenerationalOptimizer
from sharpen.search.observations import Bools, Floats

__all__ = ["ACO"]


class ACO(GenerationalOptimizer):
    """An ant colony; see the module for the method.

    Args:
        space: what to search over.
        objectives: one.
        constraints: any number; see the module.
        ants: trials of a generation.
        evaporation: rho, the part of the pheromone that a generation replaces.
        greediness: g, how often the most promising level is taken for certain.
        alpha: power of the pheromone.
        beta: power of a categorical's weights.
        resolution: cells of a range with more values.
        given: see :class:`~sharpen.core.optimizer.Optimizer`.

    Raises:
        ConfigError: an option is out of range.
    """

    name: ClassVar[str] = "aco"
    capabilities: ClassVar[Capabilities] = Capabilities(constraints=True)
    hyperparameters: ClassVar[Space] = Space(
        ants=Int(2, 64, log=True),
        evaporation=Float(0.05, 1.0),
        greediness=Float(0.0, 1.0),
        resolution=Int(2, 32, log=True),
    )

    def __init__(
        self,
        space: Space,
        objectives: Sequence[Objective] = (Objective("value"),),
        constraints: Sequence[Constraint] = (),
        *,
        ants: int = 8,
        evaporation: float = 0.25,
        greediness: float = 0.25,
        alpha: float = 1.0,
        beta: float = 1.0,
        resolution: int = 16,
        **given: Any,
    ) -> None:
        if ants < 2:
            raise ConfigError(f"ants={ants} must be at least 2 (ACO).")
        if not 0 < evaporation <= 1:
            raise ConfigError(f"evaporation={evaporation} must be positive and at most 1 (ACO).")
        if not 0 <= greediness <= 1:
            raise ConfigError(f"greediness={greediness} must be from 0 to 1 (ACO).")
        if alpha < 0 or beta < 0:
            raise ConfigError(f"alpha={alpha} and beta={beta} must not be negative (ACO).")
        if resolution < 2:
            raise ConfigError(f"resolution={resolution} must be at least 2 (ACO).")
        self.ants, self.evaporation, self.greediness = ants, evaporation, greediness
        self.alpha, self.beta, self.resolution = alpha, beta, resolution
        super().__init__(space, objectives, constraints, **given)

    def _num_levels(self, parameter: Parameter) -> int:
        if isinstance(parameter, Permutation):
            return parameter.width
        if parameter.width > 1:
            return 2
        return int(parameter.cardinality) if self._is_listed(parameter) else self.resolution

    def _is_listed(self, parameter: Parameter) -> bool:
        """Whether the levels of a scalar are its values, not cells of its range."""
        if isinstance(parameter, Categorical):
            return True
        is_log = isinstance(parameter, Int) and parameter.log  # of unequal bins
        return parameter.cardinality <= self.resolution and not is_log

    # -- state ----------------------------------------------------------------------------------

    def begin(self) -> None:
        """See :meth:`GenerationalOptimizer.begin`."""
        # One row a coordinate; of a permutation, one row a place.
        self._tau: dict[str, Floats] = {}
        self._eta: dict[str, Floats] = {}
        for name, parameter in self.space.items():
            if parameter.cardinality == 1:
                continue
            levels = self._num_levels(parameter)
            self._tau[name] = np.full((parameter.width, levels), 1 / levels)
            weights = parameter.weights if isinstance(parameter, Categorical) else None
            eta = np.ones(levels) if weights is None else np.array(weights, dtype=np.float64)
            self._eta[name] = (eta / eta.sum()) ** self.beta
        self._best: tuple[tuple[float, float], Floats, Bools] | None = None
        x, keys = self.elsewhere()
        self._remember(x, self.seen.mask[: len(x)], keys)

    def _remember(self, x: Floats, mask: Bools, keys: Floats) -> None:
        for row in np.lexsort((keys[:, 1], keys[:, 0]))[:1]:
            key = (float(keys[row, 0]), float(keys[row, 1]))
            if key[0] < 2 and (self._best is None or key < self._best[0]):
                self._best = (key, x[row].copy(), mask[row].copy())

    # -- ants -----------------------------------------------------------------------------------

    def plan(self, first: int) -> Floats:
        """See :meth:`GenerationalOptimizer.plan`."""
        numbers = range(first, first + self.ants)
        return np.array([self.stray(n, random_stream(self.seed, n)) for n in numbers])

    def stray(self, number: int, rng: np.random.Generator) -> Floats:
        """See :meth:`GenerationalOptimizer.stray`."""
        point = np.full(self.space.dimensions, 0.5)
        for name, tau in self._tau.items():
            parameter, columns = self.space[name], self.space.columns[name]
            appeal = tau**self.alpha * self._eta[name]
            if isinstance(parameter, Permutation):
                left = np.ones(len(appeal), dtype=bool)
                for place, row in enumerate(appeal):
                    item = self._choose(rng, np.where(left, row, 0.0))
                    left[item] = False
                    point[columns.start + item] = (place + 0.5) / len(appeal)
                continue
            chosen = np.array([self._choose(rng, row) for row in appeal])
            point[columns] = self._coordinates(rng, parameter, chosen, appeal.shape[1])
        return point

    def _choose(self, rng: np.random.Generator, appeal: Floats) -> int:
        if rng.random() < self.greediness:
            # Of equal levels one at random, or the first generation would be one point.
            return int(rng.choice(np.flatnonzero(appeal == appeal.max())))
        total = np.cumsum(appeal)
        return int(np.searchsorted(total, rng.random() * total[-1], side="right"))

    def _coordinates(
        self, rng: np.random.Generator, parameter: Parameter, chosen: npt.NDArray[Any], levels: int
    ) -> Floats:
        if parameter.width == 1 and self._is_listed(parameter):
            values = parameter.values_on_grid(levels)
            return np.array(parameter.encode(values[int(chosen[0])]))
        if parameter.width > 1:  # a subset: 1/4 is out and 3/4 is in
            return np.asarray((chosen + 0.5) / 2)
        return np.asarray((chosen + rng.random(1)) / levels)

    def _levels(self, parameter: Parameter, u: Floats, count: int) -> npt.NDArray[np.int64]:
        """[width] the level of each coordinate; of a permutation, the item at each place."""
        if isinstance(parameter, Permutation):
            return np.argsort(u, kind="stable")
        if parameter.width == 1 and self._is_listed(parameter):
            grid = np.array([parameter.encode(v)[0] for v in parameter.values_on_grid(count)])
            return np.array([np.abs(grid - parameter.encode(parameter.decode(u))[0]).argmin()])
        return np.minimum((u * count).astype(np.int64), count - 1)

    def absorb(self, generation: Generation) -> None:
        """See :meth:`GenerationalOptimizer.absorb`."""
        self._remember(generation.x, generation.mask, generation.keys)
        if self._best is None:
            return
        good = generation.order[: max(self.ants // 3, 1)]
        good = good[generation.keys[good, 0] < 2]
        x = np.concatenate([self._best[1][None], generation.x[good]])
        mask = np.concatenate([self._best[2][None], generation.mask[good]])
        weight = np.arange(len(x), 0, -1) / (len(x) * (len(x) + 1) / 2)
        for name, tau in self._tau.items():
            parameter, columns = self.space[name], self.space.columns[name]
            rows, levels = np.arange(len(tau)), tau.shape[1]
            used = mask[:, columns.start]
            if not used.any():
                continue
            share = weight[used] / weight[used].sum()
            tau *= 1 - self.evaporation
            for w, u in zip(share, x[used, columns], strict=True):
                tau[rows, self._levels(parameter, u, levels)] += self.evaporation * w
            np.maximum(tau, 1 / (10 * levels), out=tau)
