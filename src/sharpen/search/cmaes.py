"""CMA-ES: a normal distribution that learns the shape of the function, generation by generation.

Nikolaus Hansen, "The CMA Evolution Strategy: A Tutorial", 2016, arXiv:1604.00772 (as the package
``cma`` implements it); restarts: Anne Auger and Nikolaus Hansen, "A restart CMA evolution strategy
with increasing population size", CEC 2005 (IPOP), and Nikolaus Hansen, "Benchmarking a
BI-population CMA-ES on the BBOB-2009 function testbed", GECCO 2009 (BIPOP); integers: Tristan Marty
et al., "LB+IC-CMA-ES: Two simple modifications of CMA-ES to handle mixed-integer problems", PPSN
2024.

::

    x_i ~ m + sigma N(0, C), i = 1 .. lambda          lambda = 4 + floor(3 ln d), sigma_0 = 1/4
    m     <- weighted mean of the best lambda / 2
    C     <- (1 - c_1 - c_mu) C + c_1 p_c p_c^T + c_mu sum_i w_i y_i y_i^T
    sigma <- sigma exp((c_s / d_s) (|p_s| / E|N(0, I)| - 1))
    stop  -> IPOP: lambda <- 2 lambda;  BIPOP: that, or a small one with sigma_0 10^(-2 u),
             whichever regime has used fewer trials

It starts at the best trial from elsewhere, or at the space's default; restarts begin at a uniform
point. A coordinate that is cut into bins of equal width is scaled to a width of one a bin and
treated as an integer; a permutation's coordinates are real. Infeasible trials rank after feasible
ones by their violation, failed ones last.

Differs from the papers: the choices of a categorical parameter are ordered as they are listed, and
one with weights, like an integer on a logarithmic axis, is real; a space of one coordinate has an
inert second one, because ``cma`` takes no single one; C is diagonal above 200 coordinates. d counts
coordinates that have a choice. Time
O(d^2) a proposal, O(d^3) now and then; memory O(d^2 + lambda d).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import numpy.typing as npt

from sharpen.core.collections import Subset
from sharpen.core.errors import ConfigError, DependencyNotInstalled
from sharpen.core.optimizer import Capabilities
from sharpen.core.parameters import Bool, Categorical, Float, Int, Ordinal, Scalar
from sharpen.core.problem import Constraint, Objective
from sharpen.core.space import Space, random_stream
from sharpen.search.generations import Generation, GenerationalOptimizer
from sharpen.search.observations import Floats
from sharpen.search.variation import free_columns

__all__ = ["CMAES"]

Restarts = Literal["none", "ipop", "bipop"]
_DIAGONAL_ABOVE = 200  # coordinates; a full matrix has more to learn than a budget allows
_LARGEST = 2**10  # times the first population; beyond, the populations stay as they are


def num_bins(space: Space) -> list[int]:
    """[d] into how many bins of equal width each coordinate is cut; 0 where it is not."""
    found = []
    for parameter in space.values():
        count = 0
        if isinstance(parameter, Subset):
            count = 2
        elif isinstance(parameter, Scalar):
            equal = (
                (isinstance(parameter, Float) and parameter.step is not None)
                or (isinstance(parameter, Int) and not parameter.log)
                or isinstance(parameter, Ordinal | Bool)
                or (isinstance(parameter, Categorical) and parameter.weights is None)
            )
            count = int(parameter.cardinality) if equal else 0
        found += [count] * parameter.width
    return found


class CMAES(GenerationalOptimizer):
    """Covariance matrix adaptation; see the module for the method.

    Args:
        space: what to search over.
        objectives: one.
        constraints: any number; see the module.
        population: trials of a generation; None is 4 + floor(3 ln d).
        sigma: first standard deviation, as a part of each range.
        restarts: what follows when the distribution has collapsed: ``"bipop"``, ``"ipop"`` or
            ``"none"``, which goes on with the same population.
        given: see :class:`~sharpen.core.optimizer.Optimizer`.

    Raises:
        ConfigError: an option is out of range.
        DependencyNotInstalled: the package ``cma`` is missing.

    Examples:
        >>> optimizer = CMAES(Space(x=Float(-1, 1), y=Float(-1, 1)))
        >>> for candidate in optimizer.ask(6):
        ...     optimizer.tell([candidate.result(candidate.config["x"] ** 2)])
    """

    name: ClassVar[str] = "cmaes"
    capabilities: ClassVar[Capabilities] = Capabilities(constraints=True)
    hyperparameters: ClassVar[Space] = Space(
        population=Int(4, 64, log=True),
        sigma=Float(0.05, 0.5, log=True),
        restarts=Categorical("none", "ipop", "bipop"),
    )

    def __init__(
        self,
        space: Space,
        objectives: Sequence[Objective] = (Objective("value"),),
        constraints: Sequence[Constraint] = (),
        *,
        population: int | None = None,
        sigma: float = 0.25,
        restarts: Restarts = "bipop",
        **given: Any,
    ) -> None:
        if population is not None and population < 4:
            raise ConfigError(f"population={population} must be at least 4 (CMAES).")
        if not 0 < sigma <= 1:
            raise ConfigError(f"sigma={sigma} must be positive and at most 1 (CMAES).")
        if restarts not in get_args(Restarts):
            raise ConfigError(f"restarts={restarts!r} must be none, ipop or bipop (CMAES).")
        try:
            import cma
        except ModuleNotFoundError:
            raise DependencyNotInstalled.for_feature("the optimizer 'cmaes'", "search") from None
        self._strategy_class = cma.CMAEvolutionStrategy
        self.sigma, self.restarts = sigma, restarts
        self._free = free_columns(space)
        every = num_bins(space)
        bins = [every[i] for i in self._free] + [0] * (2 - len(self._free))
        self._discrete = [i for i, count in enumerate(bins) if count]
        # u in [0, 1] is (z + shift) / scale; the bin's number is z rounded.
        self._scale = np.array([float(count or 1) for count in bins])
        self._shift = np.array([0.5 if count else 0.0 for count in bins])
        self.population = population or 4 + int(3 * math.log(max(len(self._free), 1)))
        super().__init__(space, objectives, constraints, **given)

    # -- coordinates ----------------------------------------------------------------------------

    def _to_cma(self, point: Floats) -> Floats:
        wide = np.full(len(self._scale), 0.5)
        wide[: len(self._free)] = point[self._free]
        z: Floats = wide * self._scale - self._shift
        return z

    def _to_unit(self, z: Floats) -> Floats:
        point = np.full(self.space.dimensions, 0.5)
        point[self._free] = ((z + self._shift) / self._scale)[: len(self._free)]
        return point

    # -- the strategy ---------------------------------------------------------------------------

    def begin(self) -> None:
        """See :meth:`GenerationalOptimizer.begin`."""
        self._runs = 0
        self._large = 0  # restarts with a larger population
        self._used = {"large": 0, "small": 0}  # trials of either regime since the first restart
        self._regime = ""
        start = self.best_elsewhere()
        if start is None:
            start = self.space.encode([self.space.default()]).x[0]
        self._launch(start, self.population, self.sigma)

    def _launch(self, start: Floats, population: int, sigma: float) -> None:
        dimensions = len(self._scale)
        options = {
            "bounds": [(-self._shift).tolist(), (self._scale - self._shift).tolist()],
            "CMA_stds": self._scale.tolist(),
            "integer_variables": list(self._discrete),
            "CMA_diagonal": dimensions > _DIAGONAL_ABOVE,
            "popsize": population,
            # The same numbers as after numpy.random.seed, without touching what others use.
            "randn": np.random.RandomState((self.seed + self._runs) % 2**32).randn,
            "seed": math.nan,
            "signals_filename": "",
            "verbose": -9,
            "verb_log": 0,
        }
        self._strategy = self._strategy_class(self._to_cma(start), sigma, options)

    def plan(self, first: int) -> Floats:
        """See :meth:`GenerationalOptimizer.plan`."""
        self._asked = self._strategy.ask()
        self._numbers = random_stream(self.seed, first).integers(2**32, size=4)
        return np.array([self._to_unit(z) for z in self._asked])

    def stray(self, number: int, rng: np.random.Generator) -> Floats:
        """See :meth:`GenerationalOptimizer.stray`."""
        es = self._strategy
        step = es.sm.transform(rng.standard_normal(len(self._scale)))
        return self._to_unit(es.gp.pheno(es.mean + es.sigma * es.sigma_vec.scaling * step))

    def absorb(self, generation: Generation) -> None:
        """See :meth:`GenerationalOptimizer.absorb`."""
        solutions = list(self._asked)
        known = np.full((len(solutions), 2), [2.0, 0.0])  # what was lost counts as failed
        known[generation.places] = generation.keys
        for place, x, planned in zip(
            generation.places, generation.x, generation.planned, strict=True
        ):
            if not planned:
                solutions[place] = self._to_cma(x)
        seeded = _global_random_numbers(self._numbers) if self._discrete else nullcontext()
        with seeded, warnings.catch_warnings():
            # It warns of points that it gave and does not get back: strays take their place.
            warnings.simplefilter("ignore")
            self._strategy.tell(solutions, _values(known))
        if self._regime:
            self._used[self._regime] += len(solutions)
        if self._strategy.stop():
            self._restart_search()

    def _restart_search(self) -> None:
        self._runs += 1
        rng = random_stream(self.seed, 2**62 + self._runs)
        population, sigma = self.population, self.sigma
        grown = self.population * min(2 ** (self._large + 1), _LARGEST)
        if (
            self.restarts == "bipop"
            and self._runs > 1
            and self._used["small"] < self._used["large"]
        ):
            self._regime = "small"
            ratio = 0.5 * self.population * min(2**self._large, _LARGEST) / self.population
            population = max(int(self.population * ratio ** (rng.random() ** 2)), 4)
            sigma = self.sigma * 10 ** (-2 * rng.random())
        elif self.restarts != "none":
            self._regime = "large"
            self._large += 1
            population = grown
        self._launch(rng.random(self.space.dimensions), population, sigma)


@contextmanager
def _global_random_numbers(seed: npt.NDArray[np.int64]) -> Iterator[None]:
    """Seed NumPy's global generator, which ``cma`` uses for integers, and put it back after."""
    state = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(state)


def _values(keys: Floats) -> list[float]:
    """One number a trial in the order of merit: losses, then beyond the worst by violation."""
    feasible, broken = keys[:, 0] == 0, keys[:, 0] == 1
    values = np.zeros(len(keys))
    values[feasible] = keys[feasible, 1]
    worst = values[feasible].max() if feasible.any() else 0.0
    values[broken] = np.maximum(worst + keys[broken, 1], np.nextafter(worst, np.inf))
    most = values[feasible | broken].max() if (feasible | broken).any() else 0.0
    values[keys[:, 0] == 2] = most + max(abs(most), 1.0)
    found: list[float] = values.tolist()
    return found
